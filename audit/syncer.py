"""fdatasync without a thread: a small process beside this one syncs, and the event loop is told.

A sync in a thread needs the interpreter again when it ends, which a busy loop keeps for up to five
milliseconds. Linux's asynchronous IO (io_submit) does it on a kernel worker that is bound to the
processor which asked, and beside a busy loop that worker gets its turn at the next tick: 4 ms where
a sync takes 0.2. Another process runs wherever there is room: ADR 0019.
Rule 1: descriptors travel with each request (SCM_RIGHTS): they are the same open files, so an error
of earlier writes is told there, once, as here. A group's files are one request.
Rule 2: every sync that was begun calls back once, on the loop, unless `close` comes first. When the
process ends before it answered, the sync failed; another process is started.
Rule 3: until it has said that it is there, or where none can be started, `ready` is false, and
whoever asks syncs in a thread.
Read next: sync_process.py (the other end), groups.py (who asks).
"""

import asyncio
import errno
import logging
import os
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from . import sync_process
from .sync_process import ANSWERED, ASKED, PIECE

__all__ = ["Done", "Syncer", "Written"]

_LOGGER = logging.getLogger("weighbridge.audit")
_AGAIN_S = 5.0
_END_S = 1.0

Done = Callable[[OSError | None], None]


class Written(NamedTuple):
    """Bytes of an open file that the system has, and the disk perhaps not."""

    fd: int
    start: int
    length: int


class Syncer:
    """The asynchronous syncs of one event loop, on which it must be made.

    Attributes:
        ready: whether `fdatasync` may be called.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, Done] = {}
        self._number = 0
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._closed = False
        self.ready = False
        self._here = asyncio.Event()
        self._start()

    async def started(self, timeout_s: float) -> bool:
        """Wait until the process is there, at most so long; whether it is."""
        if self._socket is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._here.wait()
        return self.ready

    def fdatasync(self, pieces: Sequence[Written], done: Done) -> None:
        """Make all data of some files durable, at most eight; `done` is told the error, or None.

        What was written to each by the caller says where to begin.

        Raises:
            OSError: it could not even be begun.
        """
        if self._socket is None:
            raise OSError(errno.EIO, "the process that syncs is gone")
        self._number = self._number % 0xFFFFFFFF + 1
        fds = array("i", [piece.fd for piece in pieces])
        asked = ASKED.pack(self._number, len(pieces))
        for piece in pieces[1:]:
            asked += PIECE.pack(piece.start, piece.length)
        self._socket.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        self._waiting[self._number] = done

    def close(self) -> None:
        """Listen no more; what is under way goes on, and nobody is told."""
        self._closed = True
        self._waiting.clear()
        self._hang_up()

    def _start(self) -> None:
        self._started = time.monotonic()
        with ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                with theirs:
                    self._process = _spawn(theirs.fileno())
            except OSError as exc:
                _LOGGER.info("the log syncs in a thread: no process could be started (%s)", exc)
                return
            undo.pop_all()
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._answered)

    def _answered(self) -> None:
        """Take one answer; the loop calls again while there are more."""
        if self._socket is None:
            return
        try:
            raw = self._socket.recv(ANSWERED.size)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if not raw:
            self._lost()
            return
        number, code = ANSWERED.unpack(raw)
        if number == 0:
            self.ready = True
            self._here.set()
        elif (done := self._waiting.pop(number, None)) is not None:
            done(OSError(code, os.strerror(code)) if code else None)

    def _lost(self) -> None:
        """The process ended. What it had not answered failed, and is tried again with another."""
        self._hang_up()
        _LOGGER.warning("the process that syncs the log ended")
        self._here.set()  # there is nothing to wait for
        waiting, self._waiting = self._waiting, {}
        if time.monotonic() - self._started > _AGAIN_S:
            self._start()
        else:
            self._loop.call_later(_AGAIN_S, self._start_again)
        for done in waiting.values():
            done(OSError(errno.EIO, "the process that syncs ended"))

    def _start_again(self) -> None:
        if not self._closed and self._socket is None:
            self._start()

    def _hang_up(self) -> None:
        self.ready = False
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # its disk hangs; it ends when that does
                self._process.wait(_END_S)
            self._process = None


def _spawn(fd: int) -> subprocess.Popen[bytes]:
    """Start the program on an inherited socket.

    Raises:
        OSError: the system or the sandbox does not allow it.
    """
    return subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-IS", str(Path(sync_process.__file__)), str(fd)],
        pass_fds=(fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
