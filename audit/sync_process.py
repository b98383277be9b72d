"""The program that syncs: run with a socket's number, it gets descriptors and answers when done.

    asked      uint32 number, beside one descriptor
    answered   uint32 number, int32 errno; 0 for "it is on disk"

Rule: standard library only and little of it, since every process that writes a log has one of these
beside it. It ends when the other end of the socket does, and only then: what is written must still
be synced while everybody else is stopping. A few threads wait side by side, since the files of one
group do.
Used by: syncer.py, which starts it.
"""

import _socket
import _thread
import os
import signal
import struct
import sys

THREADS = 4
ASKED = struct.Struct("=I")
ANSWERED = struct.Struct("=Ii")
_DESCRIPTOR = struct.Struct("=i")
_ROOM = _socket.CMSG_SPACE(_DESCRIPTOR.size)


def serve(sock: _socket.socket) -> None:
    """Sync what is asked for, until nobody is there to ask."""
    while True:
        message, beside, _, _ = sock.recvmsg(ASKED.size, _ROOM)
        if not message:
            return
        (number,) = ASKED.unpack(message)
        sock.send(ANSWERED.pack(number, _sync(_DESCRIPTOR.unpack(beside[0][2])[0])))


def _sync(fd: int) -> int:
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(fd)
    return 0


def main() -> None:
    """Serve on the inherited socket whose number is the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sock = _socket.socket(fileno=int(sys.argv[1]))
    sock.send(ANSWERED.pack(0, 0))  # here I am

    def run() -> None:
        try:
            serve(sock)
        finally:  # one thread learns that it is over; the others may wait for a disk that hangs
            os._exit(0)

    for _ in range(THREADS - 1):
        _thread.start_new_thread(run, ())
    run()


if __name__ == "__main__":
    main()
