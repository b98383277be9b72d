"""The gate in front of everything that speaks HTTP, BentoML's own endpoints included.

Source: ASGI 3; RFC 9110 section 11 (401 and WWW-Authenticate), RFC 6750.
Rule 1: a refused call's body is not read.
Rule 2: refusals have the protocol's form, `{"error": text}`.
Rule 3: WebSockets are refused while authentication is on; nothing here speaks them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

from ..faults import Fault, TryLater, fault_of
from .caller import CALLER
from .credential import read_said
from .guard import Guard
from .needs import ANYBODY, http_need

__all__ = ["HttpGate", "answer_of"]

Scope = MutableMapping[str, Any]
Send = Callable[[Scope], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

_CHALLENGE = (b"www-authenticate", b'Bearer realm="weighbridge"')


class HttpGate:
    """An ASGI application that lets calls through to another one."""

    def __init__(self, app: App, guard: Callable[[], Guard | None]) -> None:
        """`guard` is asked for at each call, because it opens after the application is built."""
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Let one call through, or refuse it."""
        kind = scope["type"]
        if kind == "http":
            fault = await self.refusal(scope["method"], scope["path"], scope["headers"])
            if fault is not None:
                status, headers, body = answer_of(fault)
                headers.append((b"content-length", b"%d" % len(body)))
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def refusal(self, method: str, path: str, headers: Headers) -> Fault | None:
        """None when the call may go on; otherwise what its caller is told."""
        need = http_need(method, path)
        if need == ANYBODY:
            return None
        guard = self._guard()
        if guard is None:
            return fault_of(TryLater("the server is starting; try again"))
        try:
            CALLER.set(await guard.admit(read_said(headers), need))
        except Exception as exc:  # noqa: BLE001  the edge: whatever it is, the call does not pass
            return guard.refuse(exc, "http")
        return None


def answer_of(fault: Fault) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """A refusal's status, headers and body."""
    headers = [(b"content-type", b"application/json")]
    if fault.status == 401:
        headers.append(_CHALLENGE)
    if fault.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % fault.retry_after_s))
    return fault.status, headers, orjson.dumps({"error": fault.message})
