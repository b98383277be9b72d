"""The SQLite file of the index: made from the log, caught up, made again where it is not of it.

Rules: index.py's 2 to 4, which are kept here.
Boundary: one thread; several processes may build and ask the same file.
Read next: index.py (what is asked), reader.py.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson

from .errors import LogUnavailable
from .merkle import leaf_hash
from .reader import LogReader
from .sqlitefiles import schema_read

__all__ = ["VERSION", "IndexFile", "arm_of", "time_of"]

VERSION = 3
_TEXTS = ("id", "type", "decision", "unit_ref", "trace_id", "model", "version", "arm")
_SCHEMA = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS leaf;
DROP TABLE IF EXISTS tip;
CREATE TABLE leaf (
    leaf INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, id TEXT, type TEXT,
    decision TEXT, unit_ref TEXT, trace_id TEXT, model TEXT, version TEXT, arm TEXT);
CREATE TABLE tip (one INTEGER PRIMARY KEY CHECK (one = 1), leaf INTEGER, hash BLOB);
CREATE INDEX leaf_id ON leaf (id);
CREATE INDEX leaf_decision ON leaf (decision) WHERE decision IS NOT NULL;
CREATE INDEX leaf_unit ON leaf (unit_ref) WHERE unit_ref IS NOT NULL;
CREATE INDEX leaf_trace ON leaf (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX leaf_model ON leaf (model, version, arm) WHERE model IS NOT NULL;
CREATE INDEX leaf_arm ON leaf (arm) WHERE arm IS NOT NULL;
CREATE INDEX leaf_time ON leaf (time_us);
PRAGMA user_version = {VERSION};
COMMIT;
"""
_INSERT = f"INSERT INTO leaf (leaf, time_us, {', '.join(_TEXTS)}) VALUES ({'?, ' * 9}?)"  # noqa: S608
_BATCH = 5000
_ATTEMPTS = 20
_MAX_INTEGER = 1 << 63
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM}
)


class IndexFile:
    """One file with a row for each leaf. Close it.

    Args:
        reader: of the log.
        path: where it lies. One that cannot be written is replaced by one in memory.
    """

    def __init__(self, reader: LogReader, path: Path) -> None:
        self._path = path
        self._reader = reader
        self._db = self._open()

    def catch_up(self) -> int:
        """Take in what was committed since the last time; returns how many leaves it now has.

        Raises:
            LogDamaged: the log cannot be read.
            LogUnavailable: another process is building the index; try again.
        """
        try:
            try:
                return self._catch_up()
            except sqlite3.DatabaseError as error:
                self._replace(error)
                return self._catch_up()
        except sqlite3.DatabaseError as error:
            raise LogUnavailable(f"could not use the index {self._path}: {error}") from error

    def rebuild(self) -> int:
        """Throw away what it holds and read the log from its beginning; as `catch_up`."""
        try:
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._replace(error)
        return self.catch_up()

    def known(self) -> int:
        """How many leaves it has read, damaged or not; `catch_up` mends that."""
        try:
            return self._count()
        except sqlite3.DatabaseError:
            return 0

    def leaves(self, where: list[str], values: list[Any], limit: int) -> list[int]:
        """The newest leaves, at most `limit`, of the rows that meet all conditions, in order.

        Args:
            where: conditions in SQL over the columns; constants, never a caller's text.
            values: for their question marks.
            limit: at least 1; more than SQLite can count is all.

        Raises:
            LogDamaged, LogUnavailable: as `catch_up`.
        """
        query = (
            f"SELECT leaf FROM leaf WHERE {' AND '.join(where) or '1'} "  # noqa: S608
            "ORDER BY leaf DESC LIMIT ?"
        )
        limit = min(limit, _MAX_INTEGER - 1)
        for _ in range(_ATTEMPTS):
            size = self.catch_up()
            try:
                with self._db:
                    self._db.execute("BEGIN")
                    if self._count() < size:
                        continue  # another process empties it, to build it anew
                    with closing(self._db.execute(query, (*values, limit))) as rows:
                        return [int(row[0]) for row in rows][::-1]
            except sqlite3.DatabaseError as error:
                self._replace(error)
        raise LogUnavailable(f"could not use the index {self._path}: it is always being rebuilt")

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def _catch_up(self) -> int:
        size = self._reader.size()
        self._forget_pruned()
        holds = self._tip_holds()
        if holds and self._count() == size:
            return size
        while True:
            # If we crash in here, the transaction never was, and the next run begins there.
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                start = self._count() or self._reader.first()
                if not self._reader.first() <= start <= size or not holds:
                    raise sqlite3.DatabaseError("the index is of another log")
                stop = min(start + _BATCH, size)
                self._take(start, stop)
            if stop == size:
                return size

    def _take(self, start: int, stop: int) -> None:
        last = b""

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal last
            for leaf, data in self._reader.raw(start, stop):
                last = data
                yield _row(leaf, data)

        self._db.executemany(_INSERT, rows())
        if start < stop:
            tip = (stop - 1, leaf_hash(last))
            self._db.execute("INSERT OR REPLACE INTO tip VALUES (1, ?, ?)", tip)

    def _forget_pruned(self) -> None:
        """Take out the leaves that the log does not hold any more."""
        first = self._reader.first()
        if not first:
            return
        oldest = self._db.execute("SELECT min(leaf) FROM leaf").fetchone()[0]
        if oldest is not None and oldest < first:
            with self._db:  # secure_delete: the bytes do not stay behind in free pages
                self._db.execute("PRAGMA secure_delete = ON")
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("DELETE FROM leaf WHERE leaf < ?", (first,))

    def _tip_holds(self) -> bool:
        tip = self._db.execute("SELECT leaf, hash FROM tip").fetchone()
        if tip is None:
            return self._db.execute("SELECT 1 FROM leaf LIMIT 1").fetchone() is None
        last = self._db.execute("SELECT max(leaf), count(*) FROM leaf WHERE leaf >= ?", (tip[0],))
        if last.fetchone() != (tip[0], 1):
            return False
        if tip[0] < self._reader.first():
            return False
        return any(leaf_hash(data) == tip[1] for _, data in self._reader.raw(tip[0], tip[0] + 1))

    def _count(self) -> int:
        row = self._db.execute("SELECT leaf FROM tip").fetchone()
        if row is not None and type(row[0]) is not int:
            raise sqlite3.DatabaseError("the index names no leaf as its last one")
        return 0 if row is None else int(row[0]) + 1

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if _code(error) in _BUSY:
                raise LogUnavailable(f"could not open the index {self._path}: {error}") from error
            if _code(error) not in _UNWRITABLE:
                with suppress(sqlite3.DatabaseError, OSError):  # what cannot be removed stays
                    self._remove()
                    return _connect(self._path)
        return _connect(Path(":memory:"))

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """After an error: wait for others, empty it, give up writing, or throw the file away."""
        if _code(error) in _BUSY:
            raise LogUnavailable(f"could not use the index {self._path}: {error}") from error
        if not _code(error):
            # Sound, but of another log: emptied in place, since others may have it open.
            with suppress(sqlite3.DatabaseError):
                self._db.executescript(_SCHEMA)
                return
        self._db.close()
        if _code(error) in _UNWRITABLE:
            self._path = Path(":memory:")
        else:
            with suppress(OSError):
                self._remove()
        self._db = self._open()

    def _remove(self) -> None:
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        # WAL: readers and the one who catches up do not wait for one another, and a power cut
        # loses whole transactions only.
        with schema_read():
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                db.executescript(_SCHEMA)
            db.execute("SELECT leaf, hash FROM tip").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code; 0 for what this module raises itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def arm_of(body: Mapping[str, Any]) -> Any:
    """The arm that answered, where a record names one."""
    served = body.get("arm_served")
    return body.get("arm") if served is None else served


def time_of(body: Mapping[str, Any]) -> int:
    """The time of a record in Unix microseconds; 0 where it says none that SQLite can hold."""
    time_us = body.get("time_us")
    return time_us if type(time_us) is int and -_MAX_INTEGER <= time_us < _MAX_INTEGER else 0


def _row(leaf: int, data: bytes) -> tuple[Any, ...]:
    body = orjson.loads(data)
    body["arm"] = arm_of(body)
    texts = (body.get(name) for name in _TEXTS)
    # A record of a newer version may use a name for something else.
    return (
        leaf,
        time_of(body),
        *(text if isinstance(text, str) else None for text in texts),
    )
