"""The client's end of one HTTP request: its body, its headers, and whether it is still there.

Source: ASGI 3, HTTP connection scope.
Rule 1: a body is read up to the limit and no further.
Rule 2: a client that goes away cancels its work. Work of a few milliseconds is not worth a second
task, so watching begins a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, TypeVar

from .claims import refuse_repeated
from .faults import TooLarge

__all__ = [
    "ClientGone",
    "Headers",
    "Message",
    "Receive",
    "header",
    "read_body",
    "read_headers",
    "while_connected",
]

_T = TypeVar("_T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = dict[bytes, bytes]

_WATCH_AFTER_S = 0.05


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers by name; one that stands twice is joined by a comma (RFC 9110 section 5.3).

    Raises:
        BadRequest: a header that decides something stands twice.
    """
    found: Headers = {}
    for name, value in pairs:
        if name in found:
            refuse_repeated(name.decode("latin-1"))
            found[name] += b", " + value
        else:
            found[name] = value
    return found


def header(headers: Headers, name: str) -> str | None:
    """A header's text, UTF-8 if it is that, else Latin-1; None when it is absent or empty.

    Blanks around it are no part of it (RFC 9110 section 5.5).
    """
    value = headers.get(name.encode(), b"").strip(b" \t")
    if not value:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body as it was sent.

    Raises:
        ClientGone: the client went away before its request was complete.
        TooLarge: more than `limit` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def while_connected(work: Coroutine[Any, Any, _T], receive: Receive) -> _T:
    """Await `work`, after the whole body was read.

    Raises:
        ClientGone: the client went away, and the work was cancelled.
    """
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    watchers: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if own is not None:
            own.cancel()

    timer = loop.call_later(_WATCH_AFTER_S, lambda: watchers.append(loop.create_task(watch())))
    try:
        return await work
    except asyncio.CancelledError as exc:
        if not gone or own is None or own.uncancel():
            raise
        raise ClientGone from exc
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()
