"""Names, modes and leftovers in a log's folder, the index, and who holds the lock.

Rule: a name that is not one of the log's is foreign, and is named; only what holds keys or payloads
must be closed to others, and nothing may be writable by others. Reads only.
Read next: fsck.py (levels and what they mean).
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import orjson

from .boundary import first_leaf
from .errors import LogDamaged
from .filekinds import is_foreign, is_own
from .findings import amount
from .idruns import FOLDER, lost_ids
from .index import VERSION
from .reader import LogReader
from .writerlock import LOCK_NAME, has_writer

__all__ = ["Level", "Seen", "files_seen", "lock_holder", "parquet_seen"]

Level = Literal["fine", "note", "mend", "damage"]

_START: Final = "nothing: the next start mends it"


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
    yield from _ids_seen(directory)
    for folder, folders, files in os.walk(directory):
        base = Path(folder)
        for name in sorted([*folders, *files]):
            yield from _one(directory, base / name, alive=alive)
        if base == directory / "tile":
            folders.clear()  # a million files; `verify` knows each of them
    yield from _index_seen(directory)


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
        yield Seen(name, level, "keys that are to replace others", means, _START)
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


def _ids_seen(directory: Path) -> Iterator[Seen]:
    """Whether the ids of all pruned leaves are there."""
    try:
        noted, found = lost_ids(directory, first_leaf(directory))
    except LogDamaged:
        return  # step 2 names it
    means = "an append whose record was pruned, tried again, is stored a second time"
    for start, end in noted:
        what = f"the ids of the pruned leaves {start} to {end - 1} were lost"
        yield Seen(f"{FOLDER}/lost", "note", what, means, "nothing: they cannot be made again")
    if found is not None:
        what = f"the ids of the pruned leaves {found[0]} to {found[1] - 1} are not there"
        todo = "restore this folder from a copy before the next start, which goes on without"
        yield Seen(FOLDER, "damage", what, means, todo)


def parquet_seen(folder: Path) -> Iterator[Seen]:
    """The Parquet files beside the log: whether an export was interrupted."""
    path = folder / "_manifest.json"
    name = f"{folder.name}/{path.name}"
    try:
        said = orjson.loads(path.read_bytes())
        announced, steps = said["announced"], said["steps"]
    except FileNotFoundError:
        return
    except (orjson.JSONDecodeError, KeyError, TypeError):
        todo = "export to an empty folder"
        yield Seen(name, "mend", "damaged", "derived: Parquet files prove nothing", todo)
        return
    if announced:
        what = f"the leaves {announced[0]} to {announced[1] - 1} are announced, and not yet entered"
        means = "an export is under way, or was interrupted"
        yield Seen(name, "mend", what, means, "the next weighbridge audit parquet finishes it")
    else:
        yield Seen(name, "fine", amount(len(steps), "finished steps"))


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


def _index_seen(directory: Path) -> Iterator[Seen]:
    """The index: whole, of this version, and how far behind."""
    path = directory / "index.sqlite"
    if not path.exists():
        return
    todo = "nothing: whoever asks next makes it anew; --repair does it now"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            checked = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tip = db.execute("SELECT leaf FROM tip").fetchone() if version == VERSION else None
    except sqlite3.DatabaseError as exc:
        yield Seen(path.name, "mend", f"damaged: {exc}", "derived: it proves nothing", todo)
        return
    if checked != "ok" or version != VERSION:
        what = "damaged" if checked != "ok" else f"of version {version}, now it is {VERSION}"
        yield Seen(path.name, "mend", what, "derived: it proves nothing", todo)
        return
    holds = 0 if tip is None else tip[0] + 1
    try:
        size = LogReader(directory).size()
    except LogDamaged:
        size = holds  # fsck says so
    if holds > size:
        yield Seen(
            path.name, "mend", f"knows {amount(holds, 'leaves')} of {size}", "of another log", todo
        )
    elif holds < size:
        what = f"{amount(size - holds, 'leaves')} behind"
        yield Seen(path.name, "note", what, "normal: it catches up when it is asked", "nothing")
    else:
        yield Seen(path.name, "fine", f"knows {amount(holds, 'leaves')}")
