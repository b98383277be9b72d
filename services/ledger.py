"""The log as a gateway sees it, kept here: by the notary of this process.

Rule 1: whoever keeps the log keeps all of it: the signing key, the keys of subjects, the outcomes'
ids, the witnesses; and offers it to other processes over its socket, and to other machines over TCP
where that is set.
Rule 2: what only an operator of this machine may do is offered on the Unix socket alone.
Rule 3: opened in order, closed in the reverse order; a fault half-way closes what was opened.
Read next: wiring.py (who uses it), remote_ledger.py (a log that is kept elsewhere), cli_notary.py
(a notary without a gateway).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from audit.canonical import JSON
from audit.cosigning import Cosigning
from audit.erasing import Erasing
from audit.keys import Keyring
from audit.link_server import Handler, NotaryServer, serve, serve_tcp
from audit.notary import Notary
from audit.pruning import PRUNES
from audit.record import Event, Outcome
from audit.rotating import Rotating
from audit.seals import Seals

from .erasures import LocalSubjects, Subjects
from .facts import ARTEFACT, Fact, fact_of
from .faults import BadRequest
from .logwatch import LogWatch
from .masterkey import load_or_create_keyring
from .notary_link import listening_link
from .outcomes import Outcomes
from .overrides import LocalReviews, Reviews
from .recorder import Appender
from .reported import OutcomesBehind, open_reported
from .retaining import Retaining, open_pruning
from .settings import Settings
from .witnesses import parse_witnesses, summary
from .writing import patiently

__all__ = ["Ledger", "LocalLedger", "Reports"]

log = logging.getLogger("weighbridge")
SAMPLING = "sampling/1"
_LAST_OF_KEYS = "\uffff"


class Reports(Protocol):
    """Takes outcomes."""

    async def report(self, body: dict[str, Any]) -> dict[str, Any]:
        """See Outcomes.report."""


class Ledger(Protocol):
    """What a gateway needs of the log, wherever it is.

    Attributes:
        appender: where records go.
        keyring: turns units into references.
        seals: seals the private parts of records.
        sampling_key: what the sample of explanations is drawn with.
        outcomes: takes outcomes.
        subjects: erases and holds.
        reviews: records overrides.
        known: the artefact on record of each model and version, `DIGEST DEVICE`.
    """

    appender: Appender
    keyring: Keyring
    seals: Seals
    sampling_key: bytes
    outcomes: Reports
    subjects: Subjects
    reviews: Reviews
    known: dict[tuple[str, str], str]

    def expect(self, callers: Callable[[], int]) -> None:
        """Say how many callers are on their way to an append."""

    def own(self, made: Callable[[str], bool]) -> None:
        """Say which ids this process gives its decisions."""

    async def append(self, event: Event) -> object:
        """Append an event that this process makes."""

    async def leading_now(self) -> dict[str, str]:
        """Which version led each model last, as the log says."""

    def summary(self) -> dict[str, Any]:
        """What readiness says of the log."""


class LocalLedger:
    """The log of this home folder, kept by this process."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._servers: list[NotaryServer] = []
        self.known: dict[tuple[str, str], str] = {}
        self._leading: dict[str, str] = {}

    async def open(self) -> None:
        """Take the log's lock, recover it, finish erasures, and listen.

        Raises:
            AuditError, OSError, ValueError: it could not be opened; nothing stays open.
        """
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _open(self) -> None:
        settings = self._settings
        self.keyring = load_or_create_keyring(settings)
        self.sampling_key = self.keyring.derived(SAMPLING)
        self.notary = self.appender = await patiently(settings.log_dir, self._opened)
        self._stack.push_async_callback(self.notary.close)
        self.cosigning = Cosigning(
            settings.log_dir,
            self.keyring.verifier_key(settings.origin),
            parse_witnesses(settings.witnesses),
        )
        self._stack.callback(self.cosigning.close)
        self.notary.checkpoints.on_signed = self.cosigning.wake
        self.cosigning.start()
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.seals = await asyncio.to_thread(Seals, settings.log_dir, self.keyring, create=True)
        self.erasing = Erasing(self.notary, self.seals)
        self.erasing.on_erased = self._erased
        await self.erasing.finish()
        self.rotating = Rotating(self.notary, settings.keys_dir)
        await self.rotating.finish()
        self.pruning = open_pruning(self.notary, self.erasing, settings, self.keyring)
        await self._open_outcomes()
        await self._finish_pruning()
        self.subjects = LocalSubjects(
            self.erasing, log=settings.log_dir, reports=settings.home / "reports"
        )
        self.reviews = LocalReviews(self.notary, settings.log_dir)
        watch = LogWatch(self.notary, self.cosigning.states)
        watch.start()
        self._stack.push_async_callback(watch.close)
        await self._listen()

    async def _open_outcomes(self) -> None:
        """Know the outcomes on record, which artefacts were put on record, and who led."""
        reported = await open_reported(self.notary, self.keyring)
        self.pruning.keep_more = reported.keep
        self.outcomes = Outcomes(self.notary, self.keyring, reported)
        self._stack.push_async_callback(self.outcomes.close)
        for fact in reported.facts:
            self._learn(fact)

    async def _finish_pruning(self) -> None:
        """End one that was interrupted; it waits where outcomes would be forgotten."""
        try:
            await self.pruning.finish()
        except OutcomesBehind as exc:
            log.error("a pruning that was interrupted is left for the next one or start: %s", exc)

    async def _opened(self) -> Notary:
        settings = self._settings
        return await Notary.open(
            settings.log_dir,
            self.keyring,
            origin=settings.origin,
            durability=settings.durabilities().default,
            bound_s=settings.bound_ms / 1000,
        )

    async def _listen(self) -> None:
        settings, handlers = self._settings, self._handlers()
        path = settings.run_dir / "notary.sock"
        own = {"rotate_key": self._rotate_key}  # this machine's user alone
        own |= dict.fromkeys(PRUNES, self.pruning.answer)
        self._serving(await serve(self.notary, path, handlers=handlers | own))
        link = listening_link(settings)
        if link is not None:
            (_, host, port), tls = link
            self._serving(await serve_tcp(self.notary, host, port, tls, handlers=handlers))
        retaining = Retaining(self.pruning, settings)
        self._stack.push_async_callback(retaining.close)

    def _serving(self, server: NotaryServer) -> None:
        server.on_stored = self._stored
        self._servers.append(server)
        self._stack.push_async_callback(server.close)

    @property
    def ports(self) -> list[int]:
        """The TCP ports that other machines append through."""
        return [server.port for server in self._servers if server.port]

    async def close(self) -> None:
        """Answer what was asked, sign a last checkpoint, release the lock."""
        await self._stack.aclose()

    def expect(self, callers: Callable[[], int]) -> None:
        """Say how many callers are on their way to an append."""
        self.notary.expect(callers)

    def own(self, made: Callable[[str], bool]) -> None:
        """Let nobody else use the ids of this process's decisions."""
        self.notary.own(made)

    def summary(self) -> dict[str, Any]:
        """What readiness says of the witnesses."""
        return summary(self.cosigning.states())

    async def leading_now(self) -> dict[str, str]:
        """Which version led each model last, as the log says."""
        return dict(self._leading)

    async def append(self, event: Event) -> object:
        """Append an event that this process makes, and take note of it."""
        receipt = await self.notary.append(event, durability="strict")
        self._stored(event)
        return receipt

    def _stored(self, event: Event) -> None:
        fact = fact_of(event)
        if fact is not None:
            self._learn(fact)
        elif isinstance(event, Outcome):
            self.outcomes.heard()

    def _learn(self, fact: Fact) -> None:
        if fact.kind == ARTEFACT:
            self.known[fact.model, fact.version] = fact.value
        else:
            self._leading[fact.model] = fact.value

    # --- what others may ask --------------------------------------------------------------------

    def _handlers(self) -> dict[str, Handler]:
        return {
            "erase": self._erase,
            "hold": self._hold,
            "release": self._hold,
            "outcomes": self._outcomes,
            "override": self._override,
            "leading": self._lead,
            "lend": self._lend,
            "lend_key": self._lend_key,
            "health": self._health,
        }

    async def _erase(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        return await self.subjects.erase(
            str(asked["unit_ref"]), actor=str(asked["actor"]), reason=str(asked["reason"])
        )

    async def _hold(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        return await self.subjects.hold(
            str(asked["unit_ref"]),
            actor=str(asked["actor"]),
            reason=str(asked["reason"]),
            release=asked["do"] == "release",
        )

    async def _rotate_key(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        done = await self.rotating.rotate(actor=str(asked["actor"]), reason=str(asked["reason"]))
        return done._asdict()

    async def _outcomes(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        try:
            return await self.outcomes.report(orjson.loads(str(asked["body"])))
        except BadRequest as exc:
            return {"status": exc.status_hint, "error": str(exc)}

    async def _override(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        return await self.reviews.override(
            str(asked["decision"]),
            str(asked["label"]),
            actor=str(asked["actor"]),
            reason=str(asked["reason"]),
        )

    async def _lead(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:  # noqa: ARG002
        # Keys end at U+FFFF (canonical.py): one name beyond must not cost the others theirs.
        named = [name for name in self._leading if max(name, default="") <= _LAST_OF_KEYS]
        return {"leading": {name: self._leading[name] for name in named}}

    async def _lend(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:  # noqa: ARG002
        roots, gone = await asyncio.to_thread(self.seals.lend)
        return {
            "unit": self.keyring.unit.hex(),
            "sampling": self.sampling_key.hex(),
            "roots": base64.b64encode(roots).decode(),
            "gone": list(gone),
            "known": [[*tag, fact] for tag, fact in self.known.items()],
        }

    async def _lend_key(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        return {"key": self.seals.key(str(asked["unit_ref"])).hex()}

    async def _health(self, asked: Mapping[str, Any]) -> Mapping[str, JSON]:  # noqa: ARG002
        return {
            "leaves": self.notary.size,
            "signed": self.notary.signed.size,
            "failure": self.notary.failure,
            "checkpoint_failure": self.notary.checkpoints.failure,
        }

    def _erased(self, unit_ref: str) -> None:
        for server in self._servers:
            server.tell({"notice": "erased", "unit_ref": unit_ref})
