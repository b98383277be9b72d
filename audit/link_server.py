"""The notary's end of the link: what other processes may ask of it.

Rule 1: whoever is connected may append; and may ask what `handlers` offers. What may be
appended is admission.py's matter.
Rule 2: a connection that asks too much at once is not read until it has its answers, so memory is
bounded: `_MAX_ASKED` requests, `_MAX_ASKED_BYTES` bytes a connection, `max_connections` in all.
Rule 3: what is no append is done one after the other, the next when the answer before has nearly
left: some answers are a hundred thousand times as long as what asks for them. Who hangs up has what
was not begun dropped.
Rule 4: closing answers what was asked, then hangs up; the notary stays open.
Read next: admission.py (what gets in), link_accept.py (who does), link_client.py (the other end),
notary.py (who stores).
"""

import asyncio
import logging
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from .admission import admit
from .canonical import JSON
from .erasing import Erasing
from .errors import AuditError, EventInvalid, LogUnavailable
from .events import Event
from .link_accept import Acceptor
from .link_stream import FRAME_S, Begun, FrameStream
from .notary import Notary, Receipt
from .wire import (
    APPEND,
    DONE,
    MANAGE,
    MAX_FRAME_BYTES,
    NOTICE,
    REFUSED,
    STORED,
    format_frame,
    format_greeting,
    format_json,
    format_refusal,
    format_stored,
    parse_json,
)

__all__ = ["Handler", "Handlers", "NotaryServer", "erasing_handlers", "serve", "serve_tcp"]

Handler: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, JSON]]]
Handlers: TypeAlias = Mapping[str, Handler]

_LOGGER = logging.getLogger("weighbridge.audit")
_MAX_ASKED = 4096
_MAX_ASKED_BYTES = 128 << 20
_MAX_UNREAD_BYTES = MAX_FRAME_BYTES + (8 << 20)  # one long answer, and many notices
_CLOSE_S = 10.0
_UNIT_REF = re.compile(r"[0-9a-f]{32}")  # no other is found again in the log (mentions.py)
_OF_UNITS = frozenset({"erase", "hold", "release"})


async def serve(
    notary: Notary,
    path: Path,
    erasing: Erasing | None = None,
    *,
    handlers: Handlers | None = None,
    frame_s: float = FRAME_S,
) -> "NotaryServer":
    """Offer `notary` on a Unix socket at `path`, private to this user.

    What a dead server left there is replaced.

    Args:
        notary: who stores.
        path: of the socket.
        erasing: answers "erase", "hold" and "release".
        handlers: what else may be asked, by name.
        frame_s: how long one frame may take to arrive.

    Raises:
        OSError: the socket cannot be made (a path beyond 107 bytes, no such folder).
    """
    offered = erasing_handlers(erasing) | dict(handlers or {})
    server = NotaryServer(notary, offered, frame_s=frame_s)
    server.path = path
    server.accept(Acceptor(_listen(path), server.connection))
    return server


async def serve_tcp(
    notary: Notary,
    host: str,
    port: int,
    tls: ssl.SSLContext,
    *,
    handlers: Handlers | None = None,
    frame_s: float = FRAME_S,
) -> "NotaryServer":
    """As `serve`, on TCP: `tls` must ask for certificates (see link_address.server_tls).

    Raises:
        ValueError: `tls` lets anybody in.
        OSError: the address cannot be had.
    """
    if tls.verify_mode != ssl.CERT_REQUIRED:
        raise ValueError("could not offer the notary over TCP: TLS must ask for certificates")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = NotaryServer(notary, dict(handlers or {}), frame_s=frame_s)
    listening = socket.create_server((host, port), family=family, backlog=256)
    server.port = listening.getsockname()[1]
    server.accept(Acceptor(listening, server.connection, tls=tls))
    return server


def erasing_handlers(erasing: Erasing | None) -> dict[str, Handler]:
    """What a connection may ask `erasing` to do; nothing where there is none."""
    if erasing is None:
        return {}

    async def erase(asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        found = await erasing.erase(asked["unit_ref"], actor=asked["actor"], reason=asked["reason"])
        return found._asdict()

    async def hold(asked: Mapping[str, Any]) -> Mapping[str, JSON]:
        release, reason = asked["do"] == "release", asked["reason"]
        held = await erasing.hold(
            asked["unit_ref"], actor=asked["actor"], reason=reason, release=release
        )
        return held._asdict()

    return {"erase": erase, "hold": hold, "release": hold}


class NotaryServer:
    """A running server; made by `serve` or `serve_tcp`.

    Attributes:
        path: of the Unix socket, if it is one.
        port: that it listens on, if it is TCP.
        connections: those that are open.
        on_stored: told of each event that a connection brought, after it was stored; not of
            decisions whose form said everything (grammar.py), since nobody has parsed them.
    """

    def __init__(self, notary: Notary, handlers: Handlers, *, frame_s: float) -> None:
        self.path: Path | None = None
        self.port = 0
        self._notary = notary
        self._handlers = handlers
        self._frame_s, self._begun = frame_s, Begun()
        self.on_stored: Callable[[Event], None] = lambda _: None
        self._acceptor: Acceptor | None = None
        self.connections: set[_Connection] = set()

    def accept(self, acceptor: Acceptor) -> None:
        """Begin to let others in."""
        self._acceptor = acceptor
        acceptor.start()

    def connection(self) -> "_Connection":
        """What speaks to one more client."""
        return _Connection(self, self._notary, self._handlers, self._frame_s, self._begun)

    def tell(self, what: Mapping[str, JSON]) -> None:
        """Send a notice to everybody who is connected; who reads none of them is hung up on."""
        frame = format_frame(0, NOTICE, format_json(what))
        for connection in tuple(self.connections):
            if connection.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
                connection.transport.abort()
            else:
                connection.send(frame)

    def noted(self, event: Event, receipt: Receipt) -> None:
        """Tell `on_stored`. The record stands whatever comes of that: its client gets an answer."""
        try:
            self.on_stored(event)
        except Exception as error:  # noqa: BLE001  the process log learns of it, not the writer
            _LOGGER.error(
                "could not take note of leaf %d, a %s: %s",
                receipt.index,
                event.type,
                type(error).__name__,
            )

    async def close(self) -> None:
        """Stop listening, answer what is under way, hang up. The notary stays open."""
        if self._acceptor is not None:
            await self._acceptor.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(one.finish() for one in self.connections))
        for connection in list(self.connections):
            connection.hang_up()


class _Connection(FrameStream):
    """One client."""

    def __init__(
        self,
        server: NotaryServer,
        notary: Notary,
        handlers: Handlers,
        frame_s: float,
        begun: Begun,
    ) -> None:
        super().__init__(frame_s=frame_s, begun=begun)
        self._server, self._notary, self._handlers = server, notary, handlers
        self._asked = self._asked_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._full = False
        self._to_do: deque[tuple[int, bytes]] = deque()
        self._doing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        super().connection_made(transport)
        self._server.connections.add(self)
        self.send(format_greeting(self._notary.origin))

    def ended(self, reason: str) -> None:  # noqa: ARG002  what it asked for is still stored
        """Forget it."""
        self._server.connections.discard(self)
        while self._to_do:
            self._settle(len(self._to_do.popleft()[1]))

    async def finish(self) -> None:
        """Read no more, answer what was asked, say goodbye."""
        self.stop_reading()
        await self._idle.wait()
        await asyncio.sleep(0)  # the last answers leave at the end of the turn
        self.transport.close()

    def frame(self, number: int, kind: int, body: bytes) -> None:
        """Answer one request, now or later.

        Raises:
            ValueError: not our protocol.
        """
        if kind == APPEND:
            self._began(len(body))
            self._append(number, body)
        elif kind == MANAGE:
            self._began(len(body))
            self._to_do.append((number, body))
            if self._doing is None:
                self._doing = self._loop.create_task(self._manage_all())
        else:
            raise ValueError(f"a frame of kind {kind}")

    def _append(self, number: int, body: bytes) -> None:
        size = len(body)
        event: Event | None = None

        def told(receipt: Receipt | None, error: AuditError | None) -> None:
            if receipt is not None:
                if event is not None:
                    self._server.noted(event, receipt)
                reply = format_stored(receipt.index, receipt.leaf_hash)
                self._answer(format_frame(number, STORED, reply), size)
            else:
                error = error or LogUnavailable("could not store a record")
                self._answer(format_frame(number, REFUSED, format_refusal(error)), size)

        try:
            asked = admit(body)
        except ValueError as exc:
            told(None, EventInvalid(str(exc)))
        except AuditError as exc:
            told(None, exc)
        else:
            event = asked.event
            self._notary.submit(
                asked.event_id,
                asked.data,
                told,
                payloads=asked.payloads,
                durability=asked.durability,
            )

    async def _manage_all(self) -> None:
        while self._to_do:
            await self._manage(*self._to_do.popleft())
            await self.sent()
        self._doing = None

    async def _manage(self, number: int, body: bytes) -> None:
        try:
            kind, reply = DONE, format_json(await self._do(body))
        except AuditError as error:
            kind, reply = REFUSED, format_refusal(error)
        except Exception as error:  # noqa: BLE001  the edge of a task: whoever asked learns of it
            failed = LogUnavailable(f"could not do what was asked: {type(error).__name__}")
            kind, reply = REFUSED, format_refusal(failed)
        self._answer(format_frame(number, kind, reply), len(body))

    async def _do(self, body: bytes) -> Mapping[str, JSON]:
        try:
            asked = parse_json(body)
        except ValueError as exc:
            raise EventInvalid(f"could not read a request: {exc}") from exc
        handler = self._handlers.get(str(asked.get("do")))
        if handler is None:
            raise EventInvalid(
                f"could not do '{str(asked.get('do'))[:40]}': this notary does not offer it here"
            )
        if asked["do"] in _OF_UNITS and not _UNIT_REF.fullmatch(str(asked.get("unit_ref"))):
            raise EventInvalid("could not do what was asked: unit_ref must be 32 hex digits")
        try:
            return await handler(asked)
        except KeyError as exc:
            raise EventInvalid(f"could not read a request: it lacks {exc}") from exc

    def _began(self, size: int) -> None:
        self._asked += 1
        self._asked_bytes += size
        self._idle.clear()
        if not self._full and (self._asked > _MAX_ASKED or self._asked_bytes > _MAX_ASKED_BYTES):
            self._full = True
            self.stop_reading()

    def _answer(self, frame: bytes, size: int) -> None:
        if not self.transport.is_closing():
            self.send(frame)
        self._settle(size)

    def _settle(self, size: int) -> None:
        """A request is done with."""
        self._asked -= 1
        self._asked_bytes -= size
        if not self._asked:
            self._idle.set()
        if (
            self._full
            and self._asked <= _MAX_ASKED // 2
            and (self._asked_bytes <= _MAX_ASKED_BYTES // 2)
        ):
            self._full = False
            self.go_on_reading()


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener
