"""The program that syncs: run with a socket's number, it gets descriptors and answers when done.

    asked      uint32 number, beside one to eight descriptors
    answered   uint32 number, int32 errno; 0 for "all of them are on disk"

Rule: standard library only and little of it, since every process that writes a log has one of these
beside it. It ends when the other end of the socket does, and only then: what is written must still
be synced while everybody else is stopping.
Used by: syncer.py, which starts it.
"""

import _socket
import os
import signal
import struct
import sys

AT_ONCE = 8
ASKED = struct.Struct("=I")
ANSWERED = struct.Struct("=Ii")
_CODE = struct.Struct("=i")
_DONE = _CODE.pack(0)
_ROOM = _socket.CMSG_SPACE(AT_ONCE * _CODE.size)


def serve(sock: _socket.socket) -> None:
    """Sync what is asked for, until nobody is there to ask."""
    fdatasync, close = os.fdatasync, os.close
    while True:
        number, beside, _, _ = sock.recvmsg(ASKED.size, _ROOM)
        if not number:
            return
        answer = _DONE
        for _, _, lent in beside:
            for fd in memoryview(lent).cast("i"):
                try:
                    fdatasync(fd)
                except OSError as error:
                    answer = _CODE.pack(error.errno or -1)
                close(fd)
        sock.send(number + answer)


def main() -> None:
    """Serve on the inherited socket whose number is the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sock = _socket.socket(fileno=int(sys.argv[1]))
    sock.send(ANSWERED.pack(0, 0))  # here I am
    serve(sock)


if __name__ == "__main__":
    main()
