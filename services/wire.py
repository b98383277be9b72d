"""Our HTTP/1.1 connections: uvicorn's, with a short way for inference calls.

Rule 1: a call of `POST /v2/models/…/infer` needs no ASGI scope, no messages and no second write: it
goes from the parser to the door and its reply leaves in one piece. Everything else, and whatever
comes while another request of the same connection is being answered, stays uvicorn's.
Rule 2: replies leave in the order of their requests; a client that goes away cancels its work; a
server that stops answers what it has taken.
Rule 3: with authentication on, only a body that fits into uvicorn's own buffer is read before its
caller is known.
Source: uvicorn's `HttpToolsProtocol`, which is subclassed; `install` looks whether it is as it was,
and where it is not, every call takes the long way (docs/adr/0011-short-way.md).
Read next: httpserver.py (the limits of a connection, in front of this).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .access.gate import HttpGate, answer_of
from .faults import TooLarge
from .http import HttpDoor, Result
from .httpserver import BoundedProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "install"]

log = logging.getLogger("weighbridge")
_PREFIX, _SUFFIX = b"/v2/models/", b"/infer"
_OVERRIDDEN = (
    "connection_lost",
    "on_body",
    "on_headers_complete",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
)


class _Call:
    """One request that takes the short way; stands where uvicorn keeps its own request's state."""

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "path",
        "response_complete",
        "size",
        "task",
    )

    def __init__(self, path: str, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self.path, self.headers, self.keep_alive = path, headers, keep_alive
        self.body: list[bytes] = []
        self.size = 0
        self.response_complete = self.disconnected = False
        self.task: asyncio.Task[None] | None = None

    @property
    def message_event(self) -> _Call:
        """What uvicorn sets when the client has gone."""
        return self

    def set(self) -> None:
        """The client has gone: end its work."""
        if self.disconnected and self.task is not None:
            self.task.cancel()


class Connection(HttpToolsProtocol):
    """One client's connection."""

    door: Callable[[], HttpDoor]
    gate: HttpGate | None = None
    _call: _Call | None = None
    _running: _Call | None = None

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's state for it is made when it is known to need it."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._call = None

    def on_headers_complete(self) -> None:
        """Choose the way."""
        if self._is_short():
            http_1_0 = self.parser.get_http_version() == "1.0"
            keep_alive = not http_1_0 and self.parser.should_keep_alive()
            self._call = _Call(self.url.decode("ascii"), self.headers, keep_alive=keep_alive)
            self.cycle = self._running = self._call  # type: ignore[assignment]
            return
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()

    def _is_short(self) -> bool:
        url = self.url
        return (
            url.startswith(_PREFIX)
            and url.endswith(_SUFFIX)
            and b"%" not in url
            and b"?" not in url
            and b"//" not in url
            and (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and self.limit_concurrency is None
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
            and (self.gate is None or self._is_small())
        )

    def _is_small(self) -> bool:
        """Whether so little is announced that it may be read before its caller is known."""
        sizes = [value for name, value in self.headers if name == b"content-length"]
        return len(sizes) == 1 and sizes[0].isdigit() and int(sizes[0]) <= HIGH_WATER_LIMIT

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        call = self._call
        if call is None:
            super().on_body(body)
            return
        call.size += len(body)
        if call.response_complete:
            return  # it was refused; the rest is read and thrown away
        if call.size > self.door().max_body_bytes:
            call.body, call.keep_alive = [], False
            limit = self.door().max_body_bytes
            self._reply(
                call, self.door().refused(TooLarge(f"the body is larger than {limit} bytes"))
            )
        else:
            call.body.append(body)

    def on_message_complete(self) -> None:
        """The request is there: answer it."""
        call = self._call
        if call is None:
            super().on_message_complete()
        elif call.response_complete:
            self.transport.close()
        else:
            body = call.body[0] if len(call.body) == 1 else b"".join(call.body)
            call.body = []
            call.task = task = self.loop.create_task(self._answer(call, body))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, call: _Call, body: bytes) -> None:
        try:
            result = await self._not_let_in(call)
            if result is None:
                result = await self.door().call(call.path, call.headers, body)
        except Exception as exc:  # noqa: BLE001  the edge: a client must not wait for ever
            result = self.door().refused(exc)
        finally:
            self._running = None
        if self.door().leaving:
            call.keep_alive = False  # its client finds another server before this one is gone
        if self.flow.write_paused:
            await self.flow.drain()
        if not call.disconnected:
            self._reply(call, result)

    async def _not_let_in(self, call: _Call) -> Result | None:
        if self.gate is None:
            return None
        fault = await self.gate.refusal("POST", call.path, call.headers)
        return None if fault is None else Result(*answer_of(fault))

    def _reply(self, call: _Call, result: Result) -> None:
        """Write one whole reply and go on with what came behind it."""
        parts = [STATUS_LINE[result.status]]
        for name, value in (*self.server_state.default_headers, *result.headers):
            parts += (name, b": ", value, b"\r\n")
        ending = b"\r\n\r\n" if call.keep_alive else b"\r\nconnection: close\r\n\r\n"
        parts += (b"content-length: ", str(len(result.body)).encode(), ending, result.body)
        self.transport.write(b"".join(parts))
        call.response_complete = True
        if not call.keep_alive and call.task is not None:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or we closed."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.set()
        super().connection_lost(exc)


def install(door: Callable[[], HttpDoor], gate: HttpGate | None = None) -> bool:
    """Let uvicorn serve this process's connections as `Connection`; False where it does not fit.

    Args:
        door: what answers, asked for at each call, because it opens later.
        gate: what asks who calls, before the door; None asks nobody.
    """
    fits = "auto" in HTTP_PROTOCOLS and all(hasattr(HttpToolsProtocol, m) for m in _OVERRIDDEN)
    if not fits:
        log.warning("this uvicorn has other connections: inference calls take the long way")
        return False
    chosen: Any = type(
        "Bounded", (BoundedProtocol, Connection), {"door": staticmethod(door), "gate": gate}
    )
    HTTP_PROTOCOLS["auto"] = chosen
    return True
