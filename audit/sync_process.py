"""The program that syncs: run with a socket's number, it gets descriptors and answers when done.

    asked      uint32 number, uint32 count, then for each file but the first int64 start and length
               of what was written; beside that many descriptors, at most eight
    answered   uint32 number, int32 errno; 0 for "all of them are on disk"

Rule: standard library only and little of it, since every process that writes a log has one of these
beside it. It ends when the other end of the socket does, and only then: what is written must still
be synced while everybody else is stopping. The system is asked to begin writing the later files
before the first is synced: one after the other would take a third longer. Descriptors that did not
arrive (the system drops them where a process may open no more) were not synced, and the answer says
so.
Used by: syncer.py, which starts it.
"""

import _socket
import errno
import os
import signal
import struct
import sys

AT_ONCE = 8
ASKED = struct.Struct("=II")
PIECE = struct.Struct("=qq")
ANSWERED = struct.Struct("=Ii")
_ASKED_BYTES = ASKED.size + AT_ONCE * PIECE.size
_ROOM = _socket.CMSG_SPACE(AT_ONCE * struct.calcsize("=i"))


def serve(sock: _socket.socket) -> None:
    """Sync what is asked for, until nobody is there to ask."""
    fdatasync, close = os.fdatasync, os.close
    while True:
        message, beside, _, _ = sock.recvmsg(_ASKED_BYTES, _ROOM)
        if not message:
            return
        number, count = ASKED.unpack_from(message)
        fds = [fd for _, _, lent in beside for fd in memoryview(lent).cast("i")]
        for place, fd in enumerate(fds[1:]):
            _begin(fd, *PIECE.unpack_from(message, ASKED.size + place * PIECE.size))
        code = 0
        for fd in fds:
            try:
                fdatasync(fd)
            except OSError as error:
                code = error.errno or -1
            close(fd)
        sock.send(ANSWERED.pack(number, errno.EMFILE if len(fds) < count else code))


def _begin(fd: int, start: int, length: int) -> None:
    """Have the system write a piece to the disk without waiting; the sync waits, and tells errors.

    What is on its way to the disk stays in the cache, and pages written in part do as well.
    """
    try:  # noqa: SIM105  contextlib would be the largest part of this program
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass


def main() -> None:
    """Serve on the inherited socket whose number is the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sock = _socket.socket(fileno=int(sys.argv[1]))
    sock.send(ANSWERED.pack(0, 0))  # here I am
    serve(sock)


if __name__ == "__main__":
    main()
