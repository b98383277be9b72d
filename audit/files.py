"""The only places where bytes reach the disk, so that tests can put faults between.

Rule: `FileLayer` is what the write path may do to a file; nothing here retries or hides an
OSError. `replace_file` makes a file appear whole or not at all.
Read next: wal.py (the rules of the write path).
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .syncer import Done, Syncer, Written


class FileLayer(Protocol):
    """The system calls of the write path: the seam for fault injection."""

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write at `offset`; the number of bytes written may be short, as pwrite's may."""
        ...

    def fdatasync(self, fd: int) -> None:
        """Make the file's data durable."""
        ...

    def fdatasync_soon(self, syncer: Syncer, pieces: Sequence[Written], done: Done) -> None:
        """As `fdatasync` of each, without waiting; `done` is told the last error, or None."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...


class OsFiles:
    """The real thing."""

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """See FileLayer."""
        return os.pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """See FileLayer."""
        os.fdatasync(fd)

    def fdatasync_soon(self, syncer: Syncer, pieces: Sequence[Written], done: Done) -> None:
        """See FileLayer."""
        syncer.fdatasync(pieces, done)

    def truncate(self, fd: int, size: int) -> None:
        """See FileLayer."""
        os.ftruncate(fd, size)


def write_all(files: FileLayer, fd: int, data: bytes, offset: int) -> None:
    """Write every byte of `data` at `offset`, going on after short writes.

    Raises:
        OSError: the system refused; some bytes may have been written.
    """
    while data:
        written = files.write(fd, data, offset)
        if written <= 0:
            raise OSError(errno.EIO, "the system wrote no bytes and gave no reason")
        data, offset = data[written:], offset + written


def replace_file(path: Path | str, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Put `data` at `path` atomically: a reader sees the old bytes or the new ones, never a mix.

    If we crash before the rename, the old file stands and a `.tmp` is left over; after it, the
    new one does. With `durable`, the bytes and the name are on disk on return.

    Raises:
        OSError: nothing was replaced.
    """
    temporary = f"{path}.tmp"  # text, because thousands of tiles are written so
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(temporary, how | os.O_NONBLOCK, mode)  # a pipe would be waited for
    try:
        write_all(OsFiles(), fd, data, 0)
        if durable:
            os.fsync(fd)
        else:  # begin to: all at once, seconds later, would keep the disk from whoever syncs then
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        os.unlink(temporary)  # noqa: PTH108
        raise
    finally:
        os.close(fd)
    os.replace(temporary, path)  # noqa: PTH105
    if durable:
        fsync_directory(Path(path).parent)


def fsync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(directory: Path, *, mode: int = 0o755) -> None:
    """Make `directory` and its parents, durably."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(mode=mode, exist_ok=True)
        fsync_directory(path.parent)
