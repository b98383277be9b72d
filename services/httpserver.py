"""The wire side of HTTP: uvicorn's protocol with bounded heads, bounded waits and JSON refusals.

Source: uvicorn 0.5x `HttpToolsProtocol`, whose documented callbacks are those of `httptools`;
`uvicorn.config.HTTP_PROTOCOLS` is the table from which "auto" takes its class. RFC 9110 sections
15.5.9 (408) and RFC 6585 section 5 (431).
Rule 1: what is not HTTP is answered by `{"error": text}`, too, and the connection is closed; a
reply that is under way is never followed by another one that was not asked for.
Rule 2: a request's head has `read_timeout_s`, however it trickles; a body has that long and then
must go on at `_BODY_BYTES_PER_S`. One timer per connection looks a few times in that span; no
request sets a timer or reads a clock, so the wait may be longer by the time between two looks.
Boundary: bytes in, ASGI out; knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import httptools
import orjson
from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["BoundedProtocol", "install"]

log = logging.getLogger("weighbridge")

_BODY_BYTES_PER_S = 16 << 10
_INVALID = (400, "the request is not HTTP/1.1 as RFC 9112 has it")
_LOOKS = 4


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    read_timeout_s: ClassVar[float] = 30.0
    max_head_bytes: ClassVar[int] = 64 << 10

    def __init__(self, *args: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **options)
        self._waiting = True  # for the rest of a request, or for the first one
        self._looks = 0  # since it began
        self._in_head = True
        self._bytes = 0  # of the head, or of the body
        self._refusal = _INVALID
        self._timer: asyncio.TimerHandle | None = None
        self._deaf = False
        self._whole: object = self.headers  # of the last whole request; each request has a new list

    def connection_made(self, transport: Any) -> None:
        """Begin to look at the clock."""
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._stop_looking()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """The connection is somebody else's from now on."""
        self._stop_looking()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Read on, within the limits."""
        if self._deaf:
            return
        self._waiting = True
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > self.max_head_bytes and self._in_head and not self._closing():
            self._refusal = _too_large(self.max_head_bytes)
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        """A head is whole; what came with it in one piece may still be too large.

        Raises:
            ValueError: it is; httptools turns this into its own error.
        """
        if self._bytes > self.max_head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.max_head_bytes:
                self._refusal = _too_large(self.max_head_bytes)
                raise ValueError("the head is too large")
        self._in_head = False
        self._bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole: nothing is waited for.

        What came behind it in the same piece of data is not counted for the next head, so that one
        may be larger than the limit by one piece, which asyncio bounds.
        """
        self._waiting, self._in_head = False, True
        self._looks = self._bytes = 0
        self._whole = self.headers
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's text is not ours
        """Refuse and close; a request that is being answered keeps its answer."""
        if self._answering():
            self._deaf = True
            self.pipeline.clear()
            return
        cycle = self.cycle
        begun = cycle is not None and getattr(cycle, "response_started", False)
        if begun and not cycle.response_complete:
            self.transport.close()
            return
        status, text = self._refusal
        body = orjson.dumps({"error": text})
        head = (
            b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            % len(body)
        )
        self.transport.write(b"".join((STATUS_LINE[status], head, body)))
        self.transport.close()

    def on_response_complete(self) -> None:
        """A reply is out; after a refusal that had to wait for it, nothing follows."""
        super().on_response_complete()
        if self._deaf:
            self.transport.close()

    def _answering(self) -> bool:
        """Whether a whole request is being answered; what comes behind it has to wait."""
        running = self.cycle is not None and not self.cycle.response_complete
        return bool(self.pipeline) or (running and self._in_head)

    def _closing(self) -> bool:
        return self._deaf or self.transport.is_closing()

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self.read_timeout_s / _LOOKS, self._look)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Refuse a request that has been coming for too long."""
        if self._closing():
            return
        self._look_later()
        if self._answering():
            self._looks = 0  # reading rests
            return
        # Behind a whole request, in the same piece of data, the head of the next may have begun.
        if not self._waiting and self.headers is self._whole:
            return
        self._looks += 1
        allowed_s = self.read_timeout_s
        if not self._in_head:
            allowed_s += self._bytes / _BODY_BYTES_PER_S
        if self._looks * self.read_timeout_s > allowed_s * _LOOKS:
            self._refusal = 408, f"the request did not arrive within {self.read_timeout_s:g} s"
            self.send_400_response("")


def _too_large(limit: int) -> tuple[int, str]:
    return 431, f"the request line and the headers are larger than {limit} bytes"


def install(*, read_timeout_s: float, max_head_bytes: int) -> None:
    """Make uvicorn take our protocol wherever it would choose one itself.

    BentoML's worker names no protocol, so uvicorn looks "auto" up. Where that table is not as
    expected, uvicorn's own class stays, and a warning says what is lost.
    """
    BoundedProtocol.read_timeout_s = read_timeout_s
    BoundedProtocol.max_head_bytes = max_head_bytes
    table = getattr(uvicorn_config, "HTTP_PROTOCOLS", None)
    if not isinstance(table, dict) or "auto" not in table or not hasattr(httptools, "parse_url"):
        log.warning("this uvicorn has another table of protocols: heads and slow clients unbounded")
        return
    table["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
