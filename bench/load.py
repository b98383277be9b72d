"""Closed-loop load over plain sockets: HTTP/1.1 and gRPC, as little Python per request as can be.

Rule: a client that is slower than its server measures itself. So the requests are bytes that were
made once, and a reply is only cut at its end and looked at for success.
Source: RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2) and RFC 7541 (HPACK literals without indexing; the
table size is set to 0, so replies have no state either); the gRPC wire protocol.
Boundary: latency is from writing a request to reading the end of its reply, in seconds.
"""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field

__all__ = ["Load", "grpc_request", "http_request", "load_grpc", "load_http"]

_END_STREAM, _END_HEADERS = 0x1, 0x4
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_WIDE = (1 << 31) - 1


@dataclass(slots=True)
class Load:
    """What one period of load gave."""

    seconds: float = 0.0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Successful replies per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency that `share` of the replies did not exceed, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def http_request(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One POST as bytes."""
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{said}\r\n".encode() + body


class _Http(asyncio.Protocol):
    """One connection: a request, its reply, the next request."""

    def __init__(self, request: bytes, load: Load, stop: float) -> None:
        self.request, self.load, self.stop = request, load, stop
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer = data = self.buffer + data if self.buffer else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        place = data.lower().find(b"content-length:", 0, head)
        size = int(data[place + 15 : data.find(b"\r", place)])
        if len(data) < head + 4 + size:
            return
        self.buffer = b""
        now = time.perf_counter()
        if data.startswith(b"HTTP/1.1 200"):
            self.load.latencies.append(now - self.sent)
        else:
            self.load.failed += 1
        if now < self.stop:
            self.send()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.load.failed += 1
            self.done.set_result(None)


async def load_http(port: int, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send `request` over and over on every connection for `seconds`."""
    load, loop = Load(), asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Http(request, load, began + seconds), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    load.seconds = time.perf_counter() - began
    return load


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing; both strings plain (RFC 7541 section 6.2.2)."""
    parts = [b"\x00"]
    for text in (name.encode(), value.encode()):
        size = len(text)
        parts.append(bytes([size]) if size < 127 else bytes([127, size - 127]))
        parts.append(text)
    return b"".join(parts)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """The two parts of a call that stay the same."""

    headers: bytes
    data: bytes

    def frames(self, stream: int) -> bytes:
        """The call on one stream."""
        return _frame(_HEADERS, _END_HEADERS, stream, self.headers) + _frame(
            _DATA, _END_STREAM, stream, self.data
        )


def grpc_request(port: int, path: str, message: bytes, metadata: dict[str, str]) -> GrpcRequest:
    """One unary call as bytes; `message` is at most one frame long (16 KiB)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": f"127.0.0.1:{port}",
        "te": "trailers",
        "content-type": "application/grpc",
        **metadata,
    }
    headers = b"".join(_literal(name, value) for name, value in fields.items())
    return GrpcRequest(headers, struct.pack("!BI", 0, len(message)) + message)


class _Grpc(asyncio.Protocol):
    """One HTTP/2 connection with a fixed number of calls in flight."""

    def __init__(self, request: GrpcRequest, in_flight: int, load: Load, stop: float) -> None:
        self.request, self.in_flight, self.load, self.stop = request, in_flight, load, stop
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.next_stream, self.received = 1, 0
        self.sent: dict[int, float] = {}
        self.answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        settings = struct.pack("!HIHIHI", 1, 0, 2, 0, 4, _WIDE)
        hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings)
        hello += _frame(_WINDOW, 0, 0, struct.pack("!I", _WIDE - 65_535))
        calls = b"".join(self.call() for _ in range(self.in_flight))
        self.transport.write(hello + calls)  # type: ignore[attr-defined]

    def call(self) -> bytes:
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.sent[stream] = time.perf_counter()
        return self.request.frames(stream)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        place, end, out = 0, len(data), []
        while end - place >= 9:
            size = int.from_bytes(data[place : place + 3], "big")
            if end - place < 9 + size:
                break
            kind, flags = data[place + 3], data[place + 4]
            stream = int.from_bytes(data[place + 5 : place + 9], "big")
            self.take(kind, flags, stream, data[place + 9 : place + 9 + size], out)
            place += 9 + size
        self.buffer = data[place:]
        if out and not self.transport.is_closing():
            self.transport.write(b"".join(out))  # type: ignore[attr-defined]

    def take(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        if kind == _DATA:
            self.answered.add(stream)
            self.received += len(payload)
            if self.received > 1 << 24:
                out.append(_frame(_WINDOW, 0, 0, struct.pack("!I", self.received)))
                self.received = 0
        elif kind == _SETTINGS and not flags & 1:
            out.append(_frame(_SETTINGS, 1, 0, b""))
        elif kind == _PING and not flags & 1:
            out.append(_frame(_PING, 1, 0, payload))
        elif kind == _AWAY:
            self.transport.close()
        over = (kind in (_DATA, _HEADERS) and flags & _END_STREAM) or kind == _RESET
        if over:
            self.finish(stream, out)

    def finish(self, stream: int, out: list[bytes]) -> None:
        now, sent = time.perf_counter(), self.sent.pop(stream)
        if stream in self.answered:  # a refused call has trailers and no message
            self.answered.discard(stream)
            self.load.latencies.append(now - sent)
        else:
            self.load.failed += 1
        if now < self.stop:
            out.append(self.call())
        elif not self.sent:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.load.failed += len(self.sent)
        if not self.done.done():
            self.done.set_result(None)


async def load_grpc(
    port: int, request: GrpcRequest, *, connections: int, in_flight: int, seconds: float
) -> Load:
    """Keep `in_flight` calls going, spread over `connections`, for `seconds`."""
    load, loop = Load(), asyncio.get_running_loop()
    began = time.perf_counter()
    each = in_flight // connections
    made = [
        await loop.create_connection(
            lambda: _Grpc(request, each, load, began + seconds), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    load.seconds = time.perf_counter() - began
    return load
