"""Appending to a notary in another process, or on another machine.

Rule 1: what was not answered is sent again on the next connection; the notary knows the event ids,
so a record whose receipt got lost is not stored twice.
Rule 2: a refusal travels as the error it is. Silence beyond `timeout_s` is LogUnavailable; when the
notary has been away for `patience_s`, everything is refused at once, until it is back.
Rule 3: a connection to a log of another name is not used.
Read next: link_calls.py (what waits), link_server.py (the other end), wire.py (the bytes).
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .appending import EventAppender
from .blobfile import Payload
from .errors import AuditError, EntryTooLarge, LogOverloaded, LogUnavailable
from .link_accept import keep_alive
from .link_address import NotaryAddress
from .link_calls import Answer, Answered, Calls
from .link_stream import FrameStream
from .receipts import Durability, Receipt, Told
from .wire import (
    APPEND,
    GREETING,
    MANAGE,
    MAX_FRAME_BYTES,
    NOTICE,
    STORED,
    AppendRequest,
    format_append,
    format_json,
    parse_json,
    parse_stored,
)

__all__ = ["NotaryClient"]

_LOGGER = logging.getLogger("weighbridge.audit")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_CONNECT_S = 5.0


class NotaryClient(EventAppender):
    """Appends to a notary elsewhere; the same `append` and `submit` as the notary's.

    Args:
        address: where it is; a path is a Unix socket's.
        tls: needed for TCP, see link_address.client_tls.
        timeout_s: how long an append may take, reconnecting included.
        patience_s: for how long a notary may be away before everything is refused at once;
            `timeout_s` by default.
        durability: of appends that do not say; None leaves it to the notary.

    Attributes:
        on_connected: called on the loop whenever a connection is there.
        on_away: called on the loop when the notary was away for `patience_s`.
        on_notice: called on the loop with what the notary tells everybody.
    """

    def __init__(
        self,
        address: Path | NotaryAddress,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
        patience_s: float | None = None,
        durability: Durability | None = None,
    ) -> None:
        self._address = NotaryAddress(address) if isinstance(address, Path) else address
        if self._address.path is None and tls is None:
            raise ValueError(f"could not use {self._address}: TCP needs TLS on both sides")
        self._tls = tls
        self._timeout_s = timeout_s
        self._patience_s = timeout_s if patience_s is None else patience_s
        self._durability = durability
        self._stream: _Stream | None = None
        self._calls = Calls()
        self._runner: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._away_since: float | None = None
        self._away = ""
        self._told_away = False
        self._origin: str | None = None
        self.on_connected: Callable[[], None] = lambda: None
        self.on_away: Callable[[], None] = lambda: None
        self.on_notice: Callable[[Mapping[str, Any]], None] = lambda _: None

    @property
    def origin(self) -> str | None:
        """The log's name; None before the first connection."""
        return self._origin

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._stream is not None

    def submit(
        self,
        event_id: str,
        data: bytes,
        told: Told,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,
        once: bool = False,  # noqa: ARG002  the link itself may send it again
    ) -> None:
        """Send an event's bytes; see EventAppender.submit."""
        subject = payloads[0].subject if payloads else ""
        kept = {payload.name: payload.data for payload in payloads}
        body = format_append(AppendRequest(durability or self._durability, data, subject, kept))
        if len(body) >= MAX_FRAME_BYTES:
            told(None, EntryTooLarge(f"could not store {event_id}: {len(body)} bytes of payloads"))
            return

        def answered(answer: Answer | None, error: AuditError | None) -> None:
            if answer is None or answer.kind != STORED:
                told(None, error or LogUnavailable("could not store a record: no receipt came"))
                return
            index, leaf = parse_stored(answer.body)
            told(Receipt(self._origin or "", index, leaf), None)

        self._send(APPEND, body, answered, self._timeout_s)

    async def ask(
        self, do: str, *, timeout_s: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Have the notary do something else; what it says about it.

        Raises:
            AuditError: as the notary refused.
            LogUnavailable: no answer in time; it may have been done.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer | None, error: AuditError | None) -> None:
            if not future.done():
                _settle(future, None if answer is None else answer.body, error)

        body = format_json({"do": do, **fields})
        self._send(MANAGE, body, answered, timeout_s or self._timeout_s)
        return parse_json(await future)

    async def manage(self, do: str, unit_ref: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Have the notary "erase", "hold" or "release" a subject; what it did. See erasing.py.

        Raises:
            EventInvalid, HoldStands, NotFound: as Erasing.erase and Erasing.hold.
            LogUnavailable: no answer in time; ask again.
        """
        return await self.ask(do, unit_ref=unit_ref, actor=actor, reason=reason)

    def start(self) -> None:
        """Connect now, rather than at the first call."""
        if self._runner is None:
            self._away_since = asyncio.get_running_loop().time()
            self._runner = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Hang up; appends still waiting fail with LogUnavailable."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        if self._stream is not None:
            self._stream.hang_up()
            await self._stream.over.wait()
            self._stream = None
        if self._sweep is not None:
            self._sweep.cancel()
        self._calls.refuse_all("the client was closed")

    # --- calls ----------------------------------------------------------------------------------

    def _send(self, kind: int, body: bytes, answered: Answered, timeout_s: float) -> None:
        now = asyncio.get_running_loop().time()
        self.start()
        if self._lost_patience(now):
            answered(None, LogUnavailable(self._is_away()))
            return
        try:
            frame = self._calls.add(kind, body, answered, now + timeout_s)
        except LogOverloaded as error:
            answered(None, error)
            return
        if self._stream is not None:
            self._stream.send(frame)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._pause(), self._look)

    def _pause(self) -> float:
        return min(0.25, self._timeout_s / 4, max(self._patience_s / 4, 0.01))

    def _look(self) -> None:
        """Refuse what waited too long."""
        loop = asyncio.get_running_loop()
        self._sweep, now = None, loop.time()
        if self._lost_patience(now):
            self._calls.refuse_all(self._is_away())
        late = f"could not go on: no answer from the notary at {self._address} in time"
        self._calls.refuse_overdue(now, late)
        if self._calls:
            self._sweep = loop.call_later(self._pause(), self._look)

    def _lost_patience(self, now: float) -> bool:
        lost = self._away_since is not None and now - self._away_since > self._patience_s
        if lost and not self._told_away:
            self._told_away = True
            _LOGGER.error("the notary at %s is away: %s", self._address, self._away)
            self.on_away()
        return lost

    def _is_away(self) -> str:
        return f"could not go on: no answer from the notary at {self._address}: {self._away}"

    def settle(self, number: int, kind: int, body: bytes) -> None:
        """Take one frame of the notary's.

        Raises:
            ValueError: it makes no sense.
        """
        if kind == NOTICE:
            self.on_notice(parse_json(body))
        else:
            self._calls.answer(number, kind, body)

    # --- the connection -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep connected as long as somebody may want to append."""
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                stream = await self._connect()
            except (OSError, ValueError) as error:
                self._away = _why(error)
            else:
                pause_s = _FIRST_PAUSE_S
                await stream.over.wait()
                self._away = stream.why
                self._stream, self._away_since = None, loop.time()
            self._lost_patience(loop.time())
            # The connection ended or never came to be. What waits is sent again on the next.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _connect(self) -> "_Stream":
        loop, address = asyncio.get_running_loop(), self._address
        stream = _Stream(self)
        try:
            async with asyncio.timeout(_CONNECT_S):
                if address.path is not None:
                    await loop.create_unix_connection(lambda: stream, str(address.path))
                else:
                    await loop.create_connection(
                        lambda: stream, address.host, address.port, ssl=self._tls
                    )
                    keep_alive(stream.transport.get_extra_info("socket"))
                origin = await stream.greeted
        except BaseException:  # re-raised: only the connection must not stay open
            if stream.made:
                stream.hang_up()
            raise
        if self._origin not in (None, origin):
            stream.hang_up()
            raise ValueError(f"it keeps the log {origin}, not {self._origin}")
        if self._told_away:
            _LOGGER.warning("the notary at %s is back", address)
        self._origin, self._stream = origin, stream
        self._away_since, self._told_away = None, False
        for frame in self._calls.frames():
            stream.send(frame)
        self.on_connected()
        return stream


class _Stream(FrameStream):
    """One connection to the notary."""

    def __init__(self, client: NotaryClient) -> None:
        super().__init__()
        self._client = client
        self.made = False
        self.greeted: asyncio.Future[str] = self._loop.create_future()
        self.over, self.why = asyncio.Event(), ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that there is something to hang up."""
        super().connection_made(transport)
        self.made = True

    def preamble(self, buffer: bytearray) -> int | None:
        """The greeting, with the log's name."""
        start = len(GREETING)
        if bytes(buffer[:start]) != GREETING[: len(buffer)]:
            raise ValueError("not a notary")
        if len(buffer) < start + 2:
            return None
        end = start + 2 + int.from_bytes(buffer[start : start + 2], "big")
        if len(buffer) < end:
            return None
        if not self.greeted.done():
            self.greeted.set_result(buffer[start + 2 : end].decode())
        return end

    def frame(self, number: int, kind: int, body: bytes) -> None:
        """Hand it over."""
        self._client.settle(number, kind, body)

    def ended(self, reason: str) -> None:
        """Tell both who may wait."""
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(reason))
            self.greeted.exception()  # whoever gave up on it does not want to hear of it
        self.why = reason
        self.over.set()


def _settle(future: asyncio.Future[Any], found: object, error: AuditError | None) -> None:
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(found)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return str(error) or type(error).__name__
