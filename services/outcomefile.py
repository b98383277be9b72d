"""The SQLite file of the outcomes on record: its tables, how it is opened, and what its errors say.

    outcome  (key, leaf, content)   a keyed hash of the event id; the leaf; a keyed hash of what the
                                    outcome said
    fact     (kind, model, version, leaf, value)    see facts.py
    meta     (covered, tip, mark)   all of the leaves below `covered` is in the tables; the hash of
                                    leaf `covered` - 1; a keyed hash of nothing, which tells keys
             (rows, leaves)         how many rows both tables have, and the sum of their leaves
Of outcomes it holds keyed hashes and nothing else: an erasure has nothing to do here. Mode 0600.
Rule: an event id belongs to the first leaf that has it, a fact to the last.
Rule: `covered` moves with the rows, in one transaction. A power cut may take the last transactions
(synchronous=NORMAL), each of them whole.
Rule: a copy of the file and its `-wal` that was made while it was written may have some pages of
before and some of after; `rows` and `leaves` do not fit what is there, then.
Rule: one process has it open, and locks it for as long (locking_mode=EXCLUSIVE). So there is no
`-shm` beside it: that is mapped memory, and a process dies (SIGBUS) of one that somebody cuts off.
Boundary: SQLite only; for one thread at a time. Read next: outcomebook.py (what goes in).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from audit.sqlitefiles import schema_read

from .facts import Fact

__all__ = [
    "FactRow",
    "OutcomeFile",
    "OutcomeRow",
    "Stands",
    "State",
    "is_closed",
    "is_damage",
    "reason",
]

VERSION: Final = 2
# The lock comes first: only so is there never a `-shm`.
_OPENING: Final = (
    "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
)
_SCHEMA: Final = (
    """CREATE TABLE outcome (
        key BLOB PRIMARY KEY, leaf INTEGER NOT NULL, content BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE fact (
        kind TEXT, model TEXT, version TEXT, leaf INTEGER NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (kind, model, version)) WITHOUT ROWID""",
    """CREATE TABLE meta (
        covered INTEGER NOT NULL, tip BLOB NOT NULL, mark BLOB NOT NULL,
        rows INTEGER NOT NULL, leaves INTEGER NOT NULL)""",
    f"PRAGMA user_version = {VERSION}",
)
_PUT: Final = "INSERT INTO outcome VALUES (?, ?, ?)"
_PUT_FACT: Final = (
    "INSERT INTO fact VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, model, version) DO UPDATE"
    " SET leaf = excluded.leaf, value = excluded.value WHERE excluded.leaf >= fact.leaf"
)
_COUNT: Final = "SELECT count(*), coalesce(sum(leaf), 0) FROM"
_ASKED: Final = 500
_BUSY_S: Final = 2.0
_DAMAGE: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_ERROR,  # no such table or column
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    }
)


class OutcomeRow(NamedTuple):
    """One outcome of the log."""

    key: bytes
    leaf: int
    content: bytes


class FactRow(NamedTuple):
    """One fact, and the leaf from which on it holds."""

    kind: str
    model: str
    version: str
    leaf: int
    value: str


class Stands(NamedTuple):
    """What is on record under an event id."""

    leaf: int
    content: bytes


class State(NamedTuple):
    """The row of `meta`."""

    covered: int
    tip: bytes
    mark: bytes


class _Counted(NamedTuple):
    """How many rows, and the sum of their leaves."""

    rows: int
    leaves: int

    def __sub__(self, other: _Counted) -> _Counted:
        return _Counted(self.rows - other.rows, self.leaves - other.leaves)


class OutcomeFile:
    """An open file, or a table in memory where `path` is None. It may be of any version and log."""

    def __init__(self, path: Path | None) -> None:
        """Open it, or create an empty one.

        Raises:
            OSError, sqlite3.DatabaseError: it cannot be used.
        """
        self._path = path
        if path is not None:
            _make_private(path)
        self._db = sqlite3.connect(
            path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            with schema_read():
                self._db.executescript(_OPENING)
                self._db.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.DatabaseError:
            self.close()
            raise
        if path is not None:
            with suppress(OSError):  # of a process that shared it; it is locked, so none is left
                path.with_name(path.name + "-shm").unlink()

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a file that nobody has open.

        Raises:
            OSError: it stays.
        """
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).unlink()

    def create(self, mark: bytes) -> None:
        """Make the tables, where there are none."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES (0, x'', ?, 0, 0)", (mark,))

    def state(self) -> State | None:
        """How far it goes; None if it is of another version, or empty."""
        if self._db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            return None
        found = self._db.execute("SELECT covered, tip, mark FROM meta").fetchone()
        return None if found is None or type(found[0]) is not int else State(*found)

    def is_whole(self) -> bool:
        """Whether all rows are there; reads them all, some 0.1 s for 10^6."""
        told = self._db.execute("SELECT rows, leaves FROM meta").fetchone()
        outcomes, facts = self._counted("outcome"), self._counted("fact")
        there = (outcomes.rows + facts.rows, outcomes.leaves + facts.leaves)
        return there == tuple(told)

    def _counted(self, table: str) -> _Counted:
        return _Counted(*self._db.execute(f"{_COUNT} {table}").fetchone())

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, Stands]]:
        """What there is under these keys."""
        for start in range(0, len(keys), _ASKED):
            asked = keys[start : start + _ASKED]
            marks = ", ".join("?" * len(asked))
            query = f"SELECT key, leaf, content FROM outcome WHERE key IN ({marks})"  # noqa: S608
            for key, leaf, content in self._db.execute(query, asked):
                yield key, Stands(leaf, content)

    def facts(self) -> list[Fact]:
        """What there is about models."""
        found = self._db.execute("SELECT kind, model, version, value FROM fact")
        return [Fact(*row) for row in found]

    def write(
        self, rows: Sequence[OutcomeRow], facts: Iterable[FactRow], *, covered: int, tip: bytes
    ) -> None:
        """Take in what the leaves from the old `covered` to the new one say, in their order.

        Raises:
            sqlite3.DatabaseError: nothing was written.
        """
        # If we crash in here, the transaction never was, and the next start begins there.
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            known = {key for key, _ in self.find([row.key for row in rows])}
            new = {row.key: row for row in reversed(rows) if row.key not in known}
            self._db.executemany(_PUT, sorted(new.values()))
            before = self._counted("fact")
            self._db.executemany(_PUT_FACT, facts)
            more = self._counted("fact") - before
            leaves = sum(row.leaf for row in new.values()) + more.leaves
            self._db.execute(
                "UPDATE meta SET covered = ?, tip = ?, rows = rows + ?, leaves = leaves + ?",
                (covered, tip, len(new) + more.rows, leaves),
            )

    def outlasts(self) -> bool:
        """Have what was written survive a power cut; whether it does. Waits for the disk.

        Raises:
            OSError, sqlite3.DatabaseError: it may not.
        """
        if self._path is None:
            return False
        busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # the file may be a new one
        finally:
            os.close(folder)
        return not busy

    def close(self) -> None:
        """Release it. Safe to call twice."""
        self._db.close()


def is_damage(error: Exception) -> bool:
    """Whether the file is at fault; else it may be sound, and only cannot be used now."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def is_closed(error: Exception) -> bool:
    """Whether the file was not even asked, since it is closed."""
    return isinstance(error, sqlite3.ProgrammingError)


def reason(error: Exception) -> str:
    """An error in one word, which repeats nothing of what it was about."""
    if isinstance(error, OSError):
        return errno.errorcode.get(error.errno or 0, "OSError")
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def _make_private(path: Path) -> None:
    """Have a regular file there, for this user alone.

    Raises:
        OSError: there is something else, or it may not be written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):  # a pipe would be waited for
            raise OSError(errno.EINVAL, "not a file")
        if stat.S_IMODE(mode) != 0o600:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)
