"""Frames out of a connection, and limits on what its other end may cost.

Rule 1: a frame of an impossible length, or one that is begun and not ended within `FRAME_S`, ends
the connection; between frames it may be silent for as long as it likes.
Rule 2: what is written in one turn of the loop leaves in one piece.
Rule 3: where the other end reads nothing, nothing more is read from it.
Rule 4: all connections of a server together hold at most `ALL_BYTES` of frames that are not whole
yet; whoever brings more than his share beyond that is hung up on, and may come again.
Boundary: asyncio's transports; the same over a Unix socket and over TLS.
Read next: wire.py (the bytes), link_server.py and link_client.py (the two ends).
"""

import asyncio
from abc import ABC, abstractmethod
from typing import cast

from .wire import HEAD, MAX_FRAME_BYTES

__all__ = ["FRAME_S", "Begun", "FrameStream"]

FRAME_S = 30.0
_WRITE_BYTES = 1 << 20
ALL_BYTES = 512 << 20
_SHARE_BYTES = 1 << 20


class Begun:
    """How many bytes of frames that are not whole yet some connections hold together."""

    def __init__(self) -> None:
        self.total = 0


class FrameStream(asyncio.Protocol, ABC):
    """One end of a connection. A subclass handles `greeted`, `frame` and `ended`."""

    transport: asyncio.Transport

    def __init__(self, *, frame_s: float = FRAME_S, begun: Begun | None = None) -> None:
        """`frame_s`: how long one may take to arrive; `begun`: shared with other connections."""
        self._loop = asyncio.get_running_loop()
        self._frame_s = frame_s
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._begun = 0.0
        self._all, self._held = begun or Begun(), 0
        self._overdue: asyncio.TimerHandle | None = None
        self._stopped = 0
        self._read_there = asyncio.Event()
        self._read_there.set()
        self.open = False

    # --- for subclasses -----------------------------------------------------------------------

    def preamble(self, buffer: bytearray) -> int | None:  # noqa: ARG002  the server's end has none
        """How many bytes at the start of `buffer` precede the frames; None if more must come.

        Raises:
            ValueError: this is not our protocol.
        """
        return 0

    @abstractmethod
    def frame(self, number: int, kind: int, body: bytes) -> None:
        """Take one frame.

        Raises:
            ValueError: it makes no sense; the connection ends.
        """

    @abstractmethod
    def ended(self, reason: str) -> None:
        """The connection is over."""

    def send(self, data: bytes) -> None:
        """Write, at the end of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    async def sent(self) -> None:
        """Wait until at most a megabyte of what was written waits for the other end, or it ended.

        Whoever makes long answers waits for this between them, so that few of them are in memory.
        """
        await asyncio.sleep(0)  # what this turn writes leaves at its end
        await self._read_there.wait()

    def hang_up(self) -> None:
        """End the connection at once, without waiting for the other end."""
        self.transport.abort()

    def stop_reading(self) -> None:
        """Read nothing until `go_on_reading` was called as often as this."""
        self._stopped += 1
        if self._stopped == 1 and not self.transport.is_closing():
            self.transport.pause_reading()
            self._watch()

    def go_on_reading(self) -> None:
        """Take one `stop_reading` back."""
        self._stopped -= 1
        if not self._stopped and not self.transport.is_closing():
            self.transport.resume_reading()
            self._watch()

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_WRITE_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.open = False
        self._out.clear()
        self._buffer.clear()
        self._count()
        self._read_there.set()
        self._watch()
        why = getattr(exc, "reason", None) or type(exc).__name__
        self.ended(str(why) if exc is not None else "the other end hung up")

    def data_received(self, data: bytes) -> None:
        """Take every frame that is whole."""
        self._buffer += data
        try:
            self._take()
        except ValueError:
            self.hang_up()
        self._count()
        if self._all.total > ALL_BYTES and self._held > _SHARE_BYTES:
            self.hang_up()
        self._watch()

    def pause_writing(self) -> None:
        """The other end does not read."""
        self._read_there.clear()
        self.stop_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._read_there.set()
        self.go_on_reading()

    def _flush(self) -> None:
        if self._out and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def _take(self) -> None:
        buffer, position = self._buffer, 0
        if not self.open:
            length = self.preamble(buffer)
            if length is None:
                return
            position, self.open = length, True
        while position + HEAD.size <= len(buffer) and not self.transport.is_closing():
            length, number, kind = HEAD.unpack_from(buffer, position)
            if not 5 <= length <= MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = position + 4 + length
            if end > len(buffer):
                break
            body = bytes(memoryview(buffer)[position + HEAD.size : end])
            position = end
            self.frame(number, kind, body)
        if position:
            del buffer[:position]
            self._begun = self._loop.time()

    def _count(self) -> None:
        """Say how much of the frame at hand is there."""
        self._all.total += len(self._buffer) - self._held
        self._held = len(self._buffer)

    def _watch(self) -> None:
        """A clock runs while a frame is begun and its rest may come."""
        waiting = bool(self._buffer) and not self._stopped
        if waiting and self._overdue is None:
            self._begun = self._loop.time()
            self._overdue = self._loop.call_later(self._frame_s, self._look)
        elif not waiting and self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _look(self) -> None:
        self._overdue = None
        left = self._begun + self._frame_s - self._loop.time()
        if left <= 0:
            self.hang_up()
        else:
            self._overdue = self._loop.call_later(left, self._look)
