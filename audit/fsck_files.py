"""Names, modes and leftovers in a log's folder, and who holds the lock.

Rule: a name that is not one of the log's is foreign, and is named; only what holds keys or payloads
must be closed to others, and nothing may be writable by others. Reads only.
Read next: fsck.py (levels and what they mean), fsck_derived.py (what is in derived files).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from .filekinds import is_foreign, is_own
from .writerlock import LOCK_NAME, has_writer

__all__ = ["START", "Level", "Seen", "files_seen", "lock_holder"]

Level = Literal["fine", "note", "mend", "damage"]

START: Final = "nothing: the next start mends it"
"""What to do about what a start mends."""


class Seen(NamedTuple):
    """One thing in the folder.

    Attributes:
        path: relative to the log.
        level: see fsck.py.
        what: what is there.
        means: what that says about the log.
        todo: what to do.
    """

    path: str
    level: Level
    what: str
    means: str = ""
    todo: str = ""


def files_seen(directory: Path, *, alive: bool) -> Iterator[Seen]:
    """Everything about the files that needs no log to be read."""
    yield _lock_seen(directory, alive=alive)
    for folder, folders, files in os.walk(directory):
        base = Path(folder)
        for name in sorted([*folders, *files]):
            yield from _one(directory, base / name, alive=alive)
        if base == directory / "tile":
            folders.clear()  # a million files; `verify` knows each of them


def _one(directory: Path, path: Path, *, alive: bool) -> Iterator[Seen]:
    name = str(path.relative_to(directory))
    level: Level = "note" if alive else "mend"
    if name.endswith(".tmp") and is_own(name.removesuffix(".tmp")):
        means = "a file that is being replaced" if alive else "left over from a crash"
        todo = "nothing" if alive else "nothing; weighbridge audit fsck --repair removes it"
        yield Seen(name, level, "a file that never got its name", means, todo)
        return
    if name.endswith(".new"):
        means = "an erasure is under way" if alive else "an erasure was interrupted"
        yield Seen(name, level, "keys that are to replace others", means, START)
    if is_foreign(name):
        means = "not part of the log; nothing reads it"
        yield Seen(name, "note", "a foreign file", means, "remove it if you know what it is")
        return
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            means = "it does not belong there: the program makes none, and its target may go"
            todo = f"put {'the folder' if path.is_dir() else 'the file'} itself in its place"
            yield Seen(name, "mend", f"a link to {path.readlink()}", means, todo)
            return
        mode = stat.S_IMODE(mode)
        private = name == "blobs" or name.startswith("blobs/")
        if mode & (0o077 if private else 0o022):
            what = f"mode {mode:04o}"
            means = "others may read keys or payloads" if private else "others may write to it"
            todo = f"chmod {'go-rwx' if private else 'go-w'} {path}"
            yield Seen(name, "mend", what, means, todo)


def _lock_seen(directory: Path, *, alive: bool) -> Seen:
    if not alive:
        return Seen("lock", "fine", "free: no process writes the log")
    if not (directory / LOCK_NAME).exists():
        means = "its process writes no further record: another one could have come in"
        todo = "end every process that writes this log, then start one"
        return Seen(LOCK_NAME, "mend", "removed while the log is being written", means, todo)
    holder = lock_holder(directory)
    who = "another process" if holder is None else f"process {holder}"
    return Seen("lock", "note", f"held by {who}", "the log is being written", "nothing")


def lock_holder(directory: Path) -> int | None:
    """The process that writes the log, if the system tells (proc(5), "locks")."""
    if not has_writer(directory):
        return None
    with suppress(OSError, ValueError, IndexError):
        inode = (directory / LOCK_NAME).stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
                return int(words[4])
    return None
