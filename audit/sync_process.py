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
from array import array

AT_ONCE = 8
ASKED = struct.Struct("=I")
ANSWERED = struct.Struct("=Ii")
_ROOM = _socket.CMSG_SPACE(AT_ONCE * array("i").itemsize)


def serve(sock: _socket.socket) -> None:
    """Sync what is asked for, until nobody is there to ask."""
    while True:
        message, beside, _, _ = sock.recvmsg(ASKED.size, _ROOM)
        if not message:
            return
        (number,) = ASKED.unpack(message)
        lent = array("i", b"".join([data for _, _, data in beside]))
        sock.send(ANSWERED.pack(number, _sync(lent)))


def _sync(lent: "array[int]") -> int:
    failed = 0
    for fd in lent:
        try:
            os.fdatasync(fd)
        except OSError as error:
            failed = failed or error.errno or -1
        finally:
            os.close(fd)
    return failed


def main() -> None:
    """Serve on the inherited socket whose number is the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sock = _socket.socket(fileno=int(sys.argv[1]))
    sock.send(ANSWERED.pack(0, 0))  # here I am
    serve(sock)


if __name__ == "__main__":
    main()
