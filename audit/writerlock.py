"""Who is the writer of a log: two locks, and a look now and then whether they still mean it.

    <log>/lock    held (flock) by the writer while it lives
    <log>         the folder itself, held likewise

Rule 1: a lock is on an inode, not on a name. Were the file the only one, deleting it beside a
living writer would let a second one in, and each would write over the other's records. So the
folder is locked, too, and first: then who comes second is refused whatever became of the file.
Rule 2: some file systems lock no folders (NFS), a folder can be moved away and another put in its
place, and programs of before know the file alone. So a writer looks whether the file's name still
leads to its own inode: before a group if it has not looked for `LOOK_S`, and before signing. If
not, it is the writer no more, for good, even if the file comes back: another may have written
meanwhile. It takes no further record, and neither cuts nor clears a file that may be another's by
now (OwnFiles); the records it acknowledged are durable as before. The second one goes on.
What is left: where no folder can be locked, records of both within `LOOK_S` of the second one's
opening. Readers and fsck ask `has_writer`, which believes either lock.
Read next: log.py (who holds it).
"""

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import LogLocked, LogUnavailable
from .files import FileLayer
from .syncer import Done, Syncer, Written

__all__ = ["LOCK_NAME", "OwnFiles", "WriterLock", "has_writer", "take_lock"]

LOCK_NAME = "lock"
LOOK_S = 0.1
_ATTEMPTS, _AGAIN_S = 3, 0.01
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class WriterLock:
    """The hold of one writer; made by `take_lock`.

    Attributes:
        lost: whether it is the writer no more.
    """

    def __init__(self, path: Path, file: int, folder: int | None) -> None:
        self._path = path
        self._held = [file] if folder is None else [file, folder]
        found = os.fstat(file)
        self._inode = found.st_dev, found.st_ino
        self._next = 0.0
        self.lost = False
        self.look()

    def hold(self) -> None:
        """As `look`, which is done where the last time was `LOOK_S` ago; else 0.1 µs."""
        if self.lost or time.monotonic() >= self._next:
            self.look()

    def look(self) -> None:
        """Be sure to be the writer still.

        Raises:
            LogUnavailable: it is not any more, or that cannot be told now.
        """
        if not self.lost:
            try:
                found = os.stat(self._path)  # noqa: PTH116  half the time of Path.stat
                self.lost = (found.st_dev, found.st_ino) != self._inode
            except OSError as exc:
                if exc.errno not in _GONE:
                    raise LogUnavailable(
                        f"could not look at {self._path}, which says who writes the log: "
                        f"{exc.strerror}"
                    ) from exc
                self.lost = True
        if self.lost:
            raise LogUnavailable(
                f"could not go on writing the log: {self._path} was removed or replaced, so "
                "another process may write it; end all that do, then start one"
            )
        self._next = time.monotonic() + LOOK_S

    def close(self) -> None:
        """Let others in."""
        while self._held:
            os.close(self._held.pop())


class OwnFiles:
    """The system calls of a writer: once the lock is lost, nothing is written or cut any more."""

    def __init__(self, files: FileLayer, lock: WriterLock) -> None:
        self._files = files
        self._lock = lock

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """See FileLayer."""
        if self._lock.lost:
            raise _not_ours()
        return self._files.write(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """See FileLayer."""
        self._files.fdatasync(fd)

    def fdatasync_soon(self, syncer: Syncer, pieces: Sequence[Written], done: Done) -> None:
        """See FileLayer."""
        self._files.fdatasync_soon(syncer, pieces, done)

    def truncate(self, fd: int, size: int) -> None:
        """See FileLayer."""
        if self._lock.lost:
            raise _not_ours()
        self._files.truncate(fd, size)


def _not_ours() -> OSError:
    return OSError(errno.ESTALE, "this process is the writer of the log no more")


def take_lock(directory: Path) -> WriterLock:
    """Become the writer of the log.

    Whoever asks `has_writer` holds the locks for an instant: so it is tried again, shortly.

    Raises:
        LogLocked: another process is.
        OSError: the file cannot be made.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(LogLocked):
            return _take_lock(directory)
        time.sleep(_AGAIN_S)
    return _take_lock(directory)


def _take_lock(directory: Path) -> WriterLock:
    held: list[int] = []
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.append(folder)
        locked = _lock_folder(folder)
        file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        held.append(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the file between these two lines is found out here.
        lock = WriterLock(directory / LOCK_NAME, file, folder if locked else None)
    except (BlockingIOError, LogUnavailable) as exc:
        for fd in held:
            os.close(fd)
        raise LogLocked(
            f"could not open the log in {directory} for writing: another process is its writer"
        ) from exc
    except OSError:
        for fd in held:
            os.close(fd)
        raise
    if not locked:
        os.close(folder)
    return lock


def _lock_folder(folder: int) -> bool:
    """Lock it; whether its file system can."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # each file system refuses in its own words
        return False
    return True


def has_writer(directory: Path) -> bool:
    """Whether a process holds the log for writing at this moment."""
    return _is_locked(directory / LOCK_NAME) or _is_locked(directory)


def _is_locked(path: Path) -> bool:
    try:
        # Without waiting: in a log's copy anything may lie there, and a pipe never opens.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, PermissionError):
        return False  # a writer could open it; filekinds.py names one that cannot be read
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it cannot be locked here, so nobody holds it
        return False
    finally:
        os.close(fd)
    return False
