"""The log as a gateway sees it when a notary elsewhere keeps it: over the link, with lent keys.

Rule 1: this process has no log, no signing key and no master key. The notary lends it what it
seals, counts and samples with, in memory, each time the link is made.
Rule 2: where the notary is away, nothing is recorded and so nothing is answered (503, after at most
WEIGHBRIDGE_NOTARY_WAIT_MS); when it is back, answers go on by themselves.
Rule 3: outcomes, erasures and holds are the notary's to judge; they are passed on.
Read next: ledger.py (the other end), audit/lent_seals.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from audit.errors import AuditError, LogUnavailable
from audit.keys import Keyring
from audit.lent_seals import LentSeals
from audit.link_client import NotaryClient
from audit.record import Event

from .faults import BadRequest, Conflict
from .notary_link import client_link
from .settings import Settings

__all__ = ["RemoteLedger"]

log = logging.getLogger("weighbridge")
_LEND_S = 30.0
_START_S = 60.0
_DEED_S = 120.0
_PAUSE_S = 0.5


class RemoteLedger:
    """The log of a notary elsewhere."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected yet.

        Raises:
            TlsError: the link's files cannot be used.
        """
        address, tls = client_link(settings)
        self._address = address
        self.appender = self._client = NotaryClient(
            address,
            tls=tls,
            timeout_s=max(10.0, settings.notary_wait_ms / 1000),
            patience_s=settings.notary_wait_ms / 1000,
            durability=settings.durabilities().default,
        )
        self.outcomes = RemoteOutcomes(self._client)
        self.subjects = RemoteSubjects(self._client)
        self.reviews = RemoteReviews(self._client)
        self.known: dict[tuple[str, str], str] = {}
        self._lending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and be lent the keys; waits a minute for a notary that starts beside us.

        Raises:
            LogUnavailable: it is not there, does not let us in, or lends nothing that we can use.
        """
        try:
            lent = await self._lent()
            self.keyring = Keyring(b"", b"", bytes.fromhex(lent["unit"]))
            self.sampling_key = bytes.fromhex(lent["sampling"])
            self.seals = LentSeals(self.keyring, self._ask_key)
            self._take(lent)
        except LogUnavailable:
            await self._client.close()
            raise
        except (AuditError, KeyError, TypeError, ValueError) as exc:
            await self._client.close()
            raise LogUnavailable(
                f"the notary at {self._address} does not lend what this version needs; update the "
                "notary, then its gateways"
            ) from exc
        self._client.on_connected = self._connected
        self._client.on_away = self.seals.forget
        self._client.on_notice = self._noticed

    async def _lent(self) -> dict[str, Any]:
        until = asyncio.get_running_loop().time() + _START_S
        while True:
            try:
                return await self._client.ask("lend", timeout_s=_LEND_S)
            except LogUnavailable:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """Hang up."""
        if self._lending is not None:
            self._lending.cancel()
        await self._client.close()

    def expect(self, callers: Callable[[], int]) -> None:
        """The notary cannot know; it takes what comes."""

    def own(self, made: Callable[[str], bool]) -> None:
        """The notary cannot know; it remembers what came."""

    async def append(self, event: Event) -> object:
        """Append an event that this process makes."""
        return await self._client.append(event, durability="strict")

    async def leading_now(self) -> dict[str, str]:
        """Which version led each model last, as the log says."""
        found: dict[str, str] = (await self._client.ask("leading"))["leading"]
        return found

    def summary(self) -> dict[str, Any]:
        """Whether the notary can be reached."""
        return {"notary": "connected" if self._client.connected else "away"}

    def _take(self, lent: Mapping[str, Any]) -> None:
        self.seals.take(base64.b64decode(lent["roots"]), lent["gone"])
        self.known.update({(model, version): fact for model, version, fact in lent["known"]})

    async def _ask_key(self, prefix: bytes) -> bytes:
        found = await self._client.ask("lend_key", unit_ref=prefix.hex().ljust(32, "0"))
        return bytes.fromhex(found["key"])

    def _connected(self) -> None:
        """Notices may have been missed: be lent everything again."""
        if self._lending is None or self._lending.done():
            self._lending = asyncio.create_task(self._lend_again())

    async def _lend_again(self) -> None:
        while True:
            try:
                self._take(await self._client.ask("lend", timeout_s=_LEND_S))
            except AuditError as error:
                log.error("the notary at %s does not lend its keys: %s", self._address, error)
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def _noticed(self, notice: Mapping[str, Any]) -> None:
        if notice.get("notice") == "erased":
            self.seals.erased_elsewhere(str(notice["unit_ref"]))


class RemoteOutcomes:
    """Passes outcomes on: only the notary knows which event ids were used."""

    def __init__(self, client: NotaryClient) -> None:
        """`client` leads to the notary."""
        self._client = client

    async def report(self, body: dict[str, Any]) -> dict[str, Any]:
        """See Outcomes.report."""
        answer = await self._client.ask("outcomes", body=orjson.dumps(body).decode())
        if "error" in answer:
            raise (Conflict if answer["status"] == 409 else BadRequest)(str(answer["error"]))
        return answer


class RemoteSubjects:
    """Passes erasures and holds on."""

    def __init__(self, client: NotaryClient) -> None:
        """`client` leads to the notary."""
        self._client = client

    async def erase(self, unit_ref: str, *, actor: str, reason: str) -> dict[str, Any]:
        """See LocalSubjects.erase."""
        return await self._client.ask(
            "erase", timeout_s=_DEED_S, unit_ref=unit_ref, actor=actor, reason=reason
        )

    async def hold(
        self, unit_ref: str, *, actor: str, reason: str, release: bool = False
    ) -> dict[str, Any]:
        """See LocalSubjects.hold."""
        do = "release" if release else "hold"
        return await self._client.ask(
            do, timeout_s=_DEED_S, unit_ref=unit_ref, actor=actor, reason=reason
        )


class RemoteReviews:
    """Passes overrides on."""

    def __init__(self, client: NotaryClient) -> None:
        """`client` leads to the notary."""
        self._client = client

    async def override(
        self, decision: str, label: str, *, actor: str, reason: str
    ) -> dict[str, Any]:
        """See LocalReviews.override."""
        return await self._client.ask(
            "override",
            timeout_s=_DEED_S,
            decision=decision,
            label=label,
            actor=actor,
            reason=reason,
        )
