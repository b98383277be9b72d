"""The heavy half of the explainer service: follow the log, explain, count.

Rule 1: what was selected is explained, skipped with a reason, or pending; nothing falls between,
also not over a restart: the log itself says what is done (following.py).
Rule 2: an explanation is made with the exact artefact of the decision, by digest, from the kept
input, with a seed that follows from the decision's id.
Rule 3: fairness counts every decision once: a window names the leaves it covers, and the next one
starts where it ended.
Boundary: reads the log's files, writes through the notary's socket.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from audit.errors import (
    AuditError,
    DecodeError,
    EventConflict,
    LogDamaged,
    PayloadDamaged,
    RequestError,
)
from audit.explain import ExplainError, Explanation, explain, seed_for
from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import (
    Decision,
    Event,
    ExplanationRecord,
    ExplanationSkipped,
    commitment,
    new_id,
    now_us,
)
from audit.seals import Seals
from audit.snapshot import FOLLOWED
from audit.socket_link import NotaryClient
from runners.errors import ArtefactCorrupt, RunnerError
from runners.tensor import Batch, unpack

from .alarms import Alarms
from .counting import Counting
from .following import Following
from .masterkey import load_keyring
from .recorder import Appender
from .settings import Settings
from .shelf import Held, Shelf
from .tasks import begin

__all__ = ["Follower", "open_follower"]

log = logging.getLogger("weighbridge")
_POLL_S = 0.2
_RETRY_S = 2.0
_CLOSE_S = 1.5


class _Target(NamedTuple):
    """Which decision an explanation is for.

    One that is asked for at once has no leaf yet; `digest` None takes the version as it is now.
    """

    decision: str
    model: str
    version: str
    digest: str | None
    unit_ref: str
    leaf: int | None


class _Erased(Exception):
    """The subject was erased while its decision was explained."""


class Follower:
    """Follows one log. `run` goes on until `close`."""

    def __init__(
        self,
        reader: LogReader,
        appender: Appender,
        keyring: Keyring,
        shelf: Shelf,
        settings: Settings,
        *,
        seals: Seals,
    ) -> None:
        """Nothing is read before `start`."""
        self._appender = appender
        self._keyring = keyring
        self._shelf = shelf
        self._settings = settings
        self._seals = seals
        counting = Counting(
            seals,
            minimum=settings.fairness_minimum,
            window_s=settings.fairness_window_s,
            positive=self._positive,
        )
        key = keyring.derived(FOLLOWED)
        self._following = Following(reader, counting, Alarms(), key=key)
        self._working = asyncio.Lock()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what the log says is done already, then begin to follow."""
        await asyncio.to_thread(self._following.open)
        self._task = begin(self._run(), "the explainer")

    async def close(self) -> None:
        """Finish the explanation at hand and the open fairness window, if the notary still listens.

        What is not written now is counted and explained after the next start, from the log.
        """
        self._stop.set()
        if self._task is not None:
            _, unfinished = await asyncio.wait([self._task], timeout=_CLOSE_S)
            for task in unfinished:
                task.cancel()

    async def _run(self) -> None:
        said = ""
        while not self._stop.is_set():
            try:
                busy = await self._turn()
                said = ""
            except (AuditError, OSError) as exc:
                # The notary is away or the log is being mended: nothing is lost, the log waits.
                if str(exc) != said:  # it is tried again and again, and said once
                    said = str(exc)
                    log.warning("the explainer waits: %s", said)
                busy = False
                await self._pause(_RETRY_S)
            except Exception as unforeseen:  # noqa: BLE001  said, and tried again: it must not end
                log.error("the explainer met a %s", type(unforeseen).__name__)
                busy = False
                await self._pause(_RETRY_S)
            if not busy:
                await self._pause(_POLL_S)
        with suppress(AuditError, OSError):
            await self._write_windows(final=True)
            self._following.keep(closing=True)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _turn(self) -> bool:
        """Read what is new, write due windows, explain one decision; whether there was work."""
        read = await asyncio.to_thread(self._following.read)
        await self._write_windows(final=False)
        self._following.keep()
        waiting = next(iter(self._following.pending.items()), None)
        if waiting is None:
            return read
        try:
            event = await asyncio.to_thread(self._following.decision, *waiting)
        except (DecodeError, LogDamaged) as exc:  # perhaps for good: the others go on
            if self._following.put_off(waiting[0]):
                log.warning("could not read a decision that is to be explained: %s", exc)
            return read
        async with self._working:
            if event is None:
                self._following.settle(waiting[0])
            elif event.id in self._following.pending:
                await self._explain_recorded(event, waiting[1])
        return True

    async def _write_windows(self, *, final: bool) -> None:
        self._following.close_windows(final=final)
        # Together, so that they reach the disk in one group: a window is on record whole. Where the
        # notary is away they are sent again; it knows their ids.
        unsent = list(self._following.unsent)
        await asyncio.gather(*(self._store(event) for event in unsent))
        del self._following.unsent[: len(unsent)]

    def _positive(self, model: str, version: str) -> str | None:
        try:
            return self._shelf.get(model, version).manifest.positive_label
        except (RunnerError, ExplainError):
            return None

    async def _explain_recorded(self, event: Decision, leaf: int) -> None:
        """Explain a decision from its kept input, or record why not: nothing waits behind it.

        Raises:
            AuditError, OSError: the notary is away or the disk refuses; try again.
        """
        try:
            packed = await self._input(event.id, leaf)
        except (PayloadDamaged, LogDamaged):
            await self._skip(event.id, "payload_damaged", "the input does not open")
            return
        if packed is None:
            await self._skip(event.id, "payload_missing", "the input is not there")
            return
        try:
            target = _Target(
                event.id, event.model, event.version, event.digest, event.unit_ref, leaf
            )
            await self._explain(target, unpack(packed))
        except _Erased:
            await self._skip(event.id, "payload_missing", "the subject was erased meanwhile")
        except ExplainError as exc:
            await self._skip(event.id, exc.reason, exc.detail)
        except RunnerError as exc:
            await self._skip(event.id, "model_unavailable", type(exc).__name__)
        except RequestError as exc:
            await self._skip(event.id, "not_recorded", type(exc).__name__)
        except (AuditError, OSError):
            raise
        except Exception as unforeseen:  # noqa: BLE001  on record, so that the next has its turn
            await self._skip(event.id, "failed", type(unforeseen).__name__)

    async def _input(self, decision: str, leaf: int) -> bytes | None:
        return await asyncio.to_thread(self._following.kept, self._keyring, decision, leaf, "input")

    async def _store(self, event: Event, **beside: Any) -> None:
        """Strict, whatever the routes are: what is done is done only when it is on disk."""
        await self._appender.append(event, durability="strict", **beside)

    async def _skip(self, decision: str, reason: str, detail: str) -> None:
        await self._store(
            ExplanationSkipped(
                id=new_id(),
                time_us=now_us(),
                decision=decision,
                reason=reason,
                detail_code=detail[:200],
            )
        )
        self._following.settle(decision)

    async def _explain(self, target: _Target, batch: Batch) -> Explanation:
        """Explain the first row and record it."""
        held = await asyncio.to_thread(self._shelf.get, target.model, target.version)
        if target.digest is not None and held.manifest.digest != target.digest:
            raise ArtefactCorrupt(f"{target.model}:{target.version} is not what decided")
        found = await asyncio.to_thread(self._compute, target.decision, held, batch)
        body = found.body()
        self._seals.refresh()
        nonce = self._seals.nonce(target.unit_ref, f"explanation/{target.decision}")
        record = ExplanationRecord(
            id=new_id(),
            time_us=now_us(),
            decision=target.decision,
            model=target.model,
            version=target.version,
            digest=held.manifest.digest,
            body_commitment=commitment(nonce, body),
            **found.summary(),
        )
        # Erased while it was explained: what was derived from the input must not outlive it.
        if target.leaf is not None and await self._input(target.decision, target.leaf) is None:
            raise _Erased
        await self._store(record, payloads={"explanation": body}, subject=target.unit_ref)
        self._following.settle(target.decision)
        return found

    def _compute(self, decision: str, held: Held, batch: Batch) -> Explanation:
        row = {name: data[:1] for name, data in batch.items()}
        answered = held.model.infer(row).get("label")
        return explain(
            held.manifest.modality,
            row,
            held.predict,
            background=held.background,
            labels=held.manifest.labels,
            target=None if answered is None else int(answered.reshape(-1)[0]),
            seed=seed_for(decision),
            samples=self._settings.explain_samples,
        )

    async def explain_now(
        self, decision: str, model: str, version: str, unit_ref: str, packed: str
    ) -> dict[str, Any]:
        """Explain one decision at once; a refusal is `{"error", "status"}`."""
        async with self._working:
            try:
                batch = unpack(base64.b64decode(packed))
                target = _Target(decision, model, version, None, unit_ref, None)
                found = await self._explain(target, batch)
            except ExplainError as exc:
                await self._skip(decision, exc.reason, exc.detail)
                return {"error": str(exc), "status": 400}
            except (RunnerError, AuditError, EventConflict) as exc:
                log.error("could not explain %s: %s", decision, exc)
                return {"error": "the explanation could not be made", "status": 503}
        return {"explanation": orjson.loads(found.body())}


async def open_follower(settings: Settings) -> Follower:
    """A follower of the configured log, running."""
    keyring = await asyncio.to_thread(load_keyring, settings, signing=False)
    follower = Follower(
        LogReader(settings.log_dir),
        NotaryClient(settings.run_dir / "notary.sock"),
        keyring,
        Shelf(settings),
        settings,
        seals=await asyncio.to_thread(Seals, settings.log_dir, keyring),
    )
    await follower.start()
    return follower
