"""A file that grows by whole durable pieces, and returns to the last good one after a fault.

Rules:
1. `size` counts only bytes that an fdatasync has covered; nothing else is ever believed.
2. After any OSError the file is spoilt: the next append first mends it (reopens it, cuts it back
   to `size`, syncs, and has its tail checked) and only then writes. A failed fdatasync must not be
   repeated: Linux reports a lost write once, and then calls the pages clean.
3. Room is reserved ahead: zeros are written and synced, `reserve` bytes at a time, so that the sync
   of an append need not make a new file size durable, which costs several times the data. Where
   little more is free, nothing is reserved: whatever else lies on that disk needs it more. Closing
   cuts the rest of the room off; after a crash it stays, as zeros behind the end.
4. Nothing here waits or retries by itself; the caller's next append is the retry.
5. A file that somebody removed takes no more: the system would accept every byte and keep none. It
   stays open, so that it can be copied back; once another is in its place, that one is mended. One
   that was cut short takes no more, either: what follows a hole is never read.
Read next: wal.py and blobs.py, which are made of such files.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .files import FileLayer, write_all
from .syncer import Written

_ZEROS = bytes(1 << 17)
_AT_FIRST_BYTES = 1 << 18
_FREE_RESERVES = 32  # as many times what is reserved must be free


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
        self._begun = self._times_opened = 0
        self._fd: int | None = None
        self._reopen()

    def ready(self, length: int) -> bool:
        """Whether `begin` can take so many bytes without waiting for the disk."""
        return self._fd is not None and self.size + length <= self._room

    def check_there(self) -> None:
        """Be sure that the file still has its name and its length; about 1 µs.

        Raises:
            OSError: it was removed, or cut.
        """
        if (fd := self._fd) is None:
            return
        found = os.fstat(fd)
        if found.st_nlink:
            self._check_length(found.st_size)
            return
        if not self.path.exists() or self.path.stat().st_size < self.size:
            copy = f"/proc/{os.getpid()}/fd/{fd}"
            raise OSError(errno.ENOENT, f"it was removed; copy it back from {copy}", str(self.path))
        self.spoil()

    def begin(self, data: bytes) -> Written:
        """Write `data` at the end; returns the piece that a sync makes durable.

        `commit` or `spoil` must follow, as the sync did or did not succeed.

        Raises:
            OSError: nothing was added; if the piece did reach the disk, the mend cuts it off.
        """
        fd = self._mended()
        if self._reserve and self.size + len(data) > self._room:
            ahead = min(self._reserve, _AT_FIRST_BYTES)  # the rest need not be waited for
            start, end = max(self._room, self.size), self.size + len(data) + ahead
            if self._fill(fd, start, end):
                self._room = end
        try:
            write_all(self._files, fd, data, self.size)
        except OSError:
            self.spoil()
            raise
        self._begun = len(data)
        return Written(fd, self.size, self._begun)

    def commit(self) -> int:
        """Believe what `begin` wrote, now that it is durable; returns where it begins."""
        start = self.size
        self.size += self._begun
        self._begun = 0
        return start

    @property
    def sound(self) -> bool:
        """Whether the file ends where `size` says."""
        return self._fd is not None

    @property
    def begun(self) -> bool:
        """Whether a piece is written and neither committed nor given up."""
        return self._begun > 0

    @property
    def end(self) -> int:
        """Where the file ends with that piece."""
        return self.size + self._begun

    def roll_back(self, size: int) -> None:
        """Forget the bytes after `size`: the next append cuts them off first."""
        if size != self.size or self._begun:
            self.size = size
            self.spoil()

    def overwrite(self, data: bytes, offset: int) -> None:
        """Replace bytes in place, durably.

        Raises:
            OSError: the old or the new bytes are there; calling again is safe.
        """
        fd = self._mended()
        write_all(self._files, fd, data, offset)
        self._files.fdatasync(fd)

    def spoil(self) -> None:
        """Close the descriptor, so that the next use mends the file first."""
        fd, self._fd = self._fd, None
        self._begun = 0
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

    def more_room(self) -> Callable[[], None] | None:
        """What to run, in a thread, to have room ahead again; None if not now: appends do without.

        Appends that are `ready` may go on meanwhile: they end where the new room begins. Others
        must wait for it.
        """
        if self._fd is None or not 0 < self._room - self.size < self._reserve // 2:
            return None
        # A descriptor of its own, since a fault may close the other one; and a fault may cut the
        # file back meanwhile, after which the new zeros are no room, and harm no reader.
        start, times = self._room, self._times_opened
        try:
            fd = os.dup(self._fd)
        except OSError:
            return None

        def fill() -> None:
            try:
                if self._times_opened == times and self._fill(fd, start, start + self._reserve):
                    self._room = start + self._reserve
            finally:
                os.close(fd)

        return fill

    def _fill(self, fd: int, start: int, end: int) -> bool:
        """Write zeros and sync; whether the disk took them. If not, the append will find out."""
        try:
            disk = os.fstatvfs(fd)
            if disk.f_bavail * disk.f_frsize < _FREE_RESERVES * self._reserve:
                return False
            while start < end:
                zeros = _ZEROS[: end - start]
                write_all(self._files, fd, zeros, start)
                self._files.fdatasync(fd)
                start += len(zeros)
        except OSError:
            return False
        return True

    def _check_length(self, found: int) -> None:
        if found < self.size:
            said = f"it has {found} bytes, and {self.size} were acknowledged; restore the log"
            raise OSError(errno.EIO, said, str(self.path))

    def _mended(self) -> int:
        return self._reopen() if self._fd is None else self._fd

    def _reopen(self) -> int:
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            found = os.fstat(fd).st_size
            self._check_length(found)
            if found > self.size:
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
        self._times_opened += 1
        return fd
