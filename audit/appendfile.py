"""A file that grows by whole durable pieces, and returns to the last good one after a fault.

Rules:
1. `size` counts only bytes that an fdatasync has covered; nothing else is ever believed.
2. After any OSError the file is spoilt: the next append first mends it (reopens it, cuts it back
   to `size`, syncs, and has its tail checked) and only then writes. A failed fdatasync must not be
   repeated: Linux reports a lost write once, and then calls the pages clean.
3. Room is reserved ahead: zeros are written and synced once per `reserve` bytes, so that the sync
   of an append need not make a new file size durable, which costs several times the data. A disk
   without room for that is used as it is. Closing cuts the rest of the room off; after a crash it
   stays, as zeros behind the end.
4. Nothing here waits or retries by itself; the caller's next append is the retry.
Read next: wal.py and blobs.py, which are made of such files.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .files import FileLayer, write_all

_ZEROS = bytes(1 << 18)


class AppendFile:
    """One open file, appended to by one thread.

    Args:
        path: an existing file.
        size: how much of it is believed; the rest is cut off now.
        files: the system calls.
        check_tail: called with the descriptor after a mend; raises if the durable bytes are not
            what was written.
        reserve: bytes of room to have ready; 0 for none.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        files: FileLayer,
        check_tail: Callable[[int], None] | None = None,
        *,
        reserve: int = 0,
    ) -> None:
        self.path = path
        self.size = size
        self._files = files
        self._check_tail = check_tail
        self._reserve = reserve
        self._room = size
        self._fd: int | None = None
        self._reopen()

    def append(self, data: bytes, on_written: Callable[[], None] | None = None) -> int:
        """Write `data` at the end and make it durable; returns where it begins.

        Args:
            data: the piece.
            on_written: called when the bytes are with the system but not yet on disk.

        Raises:
            OSError: nothing was added; if the piece did reach the disk, the mend cuts it off.
        """
        fd = self._mended()
        if self._reserve and self.size + len(data) > self._room:
            self._make_room(fd, self.size + len(data) + self._reserve)
        try:
            if on_written is None:
                write_all(self._files, fd, data, self.size, durably=True)
            else:
                write_all(self._files, fd, data, self.size)
                on_written()
                self._files.fdatasync(fd)
        except OSError:
            self.spoil()
            raise
        start = self.size
        self.size += len(data)
        return start

    @property
    def sound(self) -> bool:
        """Whether the file ends where `size` says."""
        return self._fd is not None

    def roll_back(self, size: int) -> None:
        """Forget the durable bytes after `size`: the next append cuts them off first."""
        if size != self.size:
            self.size = size
            self.spoil()

    def overwrite(self, data: bytes, offset: int) -> None:
        """Replace bytes in place, durably.

        Raises:
            OSError: the old or the new bytes are there; calling again is safe.
        """
        fd = self._mended()
        write_all(self._files, fd, data, offset, durably=True)

    def spoil(self) -> None:
        """Close the descriptor, so that the next use mends the file first."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Release the descriptor; nothing is pending, since every append was durable."""
        if self._fd is not None and self._room > self.size:
            with suppress(OSError):  # zeros behind the end mean nothing to any reader
                self._files.truncate(self._fd, self.size)
        self.spoil()

    def mend(self) -> None:
        """Cut a spoilt file back now, if it is spoilt.

        Raises:
            OSError: it could not be; it stays spoilt.
        """
        self._mended()

    def _make_room(self, fd: int, end: int) -> None:
        start = max(self._room, self.size)
        try:
            while start < end:
                zeros = _ZEROS[: end - start]
                write_all(self._files, fd, zeros, start)
                start += len(zeros)
            self._files.fdatasync(fd)
        except OSError:
            return  # the append itself will find out whether the disk takes anything
        self._room = end

    def _mended(self) -> int:
        return self._reopen() if self._fd is None else self._fd

    def _reopen(self) -> int:
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != self.size:
                self._files.truncate(fd, self.size)
            # Bytes of a process that died between write and sync may be whole but not durable.
            self._files.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if self._check_tail is not None:
                self._check_tail(fd)
        except BaseException:  # re-raised: only the descriptor must not leak
            os.close(fd)
            raise
        self._fd, self._room = fd, self.size
        return fd
