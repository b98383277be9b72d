"""Finding leaves by decision, unit, trace or model: a SQLite file, derived and disposable.

Rule: the index proves nothing and is never trusted alone: `find` compares with the log, and an
index that disagrees or is damaged is thrown away and built again. It catches up from a reader
before each question, so it is as fresh as the committed log.
Read next: reader.py.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from .reader import LogReader

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leaf (
    leaf INTEGER PRIMARY KEY, id TEXT NOT NULL, type TEXT NOT NULL, time_us INTEGER NOT NULL,
    decision TEXT, unit_ref TEXT, trace_id TEXT, model TEXT);
CREATE INDEX IF NOT EXISTS leaf_id ON leaf (id);
CREATE INDEX IF NOT EXISTS leaf_decision ON leaf (decision) WHERE decision IS NOT NULL;
CREATE INDEX IF NOT EXISTS leaf_unit ON leaf (unit_ref) WHERE unit_ref IS NOT NULL;
CREATE INDEX IF NOT EXISTS leaf_trace ON leaf (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS leaf_model ON leaf (model, leaf) WHERE model IS NOT NULL;
"""
_COLUMNS = ("id", "type", "time_us", "decision", "unit_ref", "trace_id", "model")
_INSERT = "INSERT OR REPLACE INTO leaf VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_BATCH = 5000


class Index:
    """An index over one log. A context manager; for one thread.

    Args:
        directory: the log's directory.
        path: where the index lies; `index.sqlite` in the log's directory by default.
    """

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        self._path = path or directory / "index.sqlite"
        self._reader = LogReader(directory)
        self._db = self._open()

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def find(self, event_id: str) -> int | None:
        """The leaf of the event with this id, checked against the log; None if there is none."""
        leaves = self._leaves("id = ?", (event_id,))
        if leaves and self._reader.entry(leaves[0]).event.id == event_id:
            return leaves[0]
        if leaves:
            self._rebuild()
            leaves = self._leaves("id = ?", (event_id,))
        return leaves[0] if leaves else None

    def about(self, decision_id: str) -> list[int]:
        """The leaves that speak of a decision: explanations, outcomes, overrides, in order."""
        return self._leaves("decision = ?", (decision_id,))

    def by_unit_ref(self, unit_ref: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves about a unit, in log order."""
        return self._leaves("unit_ref = ?", (unit_ref,), limit)

    def by_trace_id(self, trace_id: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves of a trace, in log order."""
        return self._leaves("trace_id = ?", (trace_id,), limit)

    def by_model(self, model: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves about a model, in log order."""
        return self._leaves("model = ?", (model,), limit)

    def catch_up(self) -> int:
        """Take in what was committed since the last time; returns how many leaves it now has.

        Raises:
            LogDamaged: the log cannot be read.
        """
        try:
            return self._catch_up()
        except sqlite3.DatabaseError:
            self._rebuild()
            return self._catch_up()

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def _leaves(self, where: str, values: tuple[str, ...], limit: int = 1_000_000) -> list[int]:
        self.catch_up()
        # `where` is one of the constants above, never a caller's text.
        query = f"SELECT leaf FROM leaf WHERE {where} ORDER BY leaf DESC LIMIT ?"  # noqa: S608
        with closing(self._db.execute(query, (*values, limit))) as rows:
            return [int(row[0]) for row in rows][::-1]

    def _catch_up(self) -> int:
        size = self._reader.size()
        while True:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                start = self._count()
                if start > size:
                    raise sqlite3.DatabaseError("the index is ahead of its log")
                stop = min(start + _BATCH, size)
                self._db.executemany(_INSERT, self._rows(start, stop))
            if stop == size:
                return size

    def _count(self) -> int:
        row = self._db.execute("SELECT max(leaf) FROM leaf").fetchone()
        return 0 if row[0] is None else int(row[0]) + 1

    def _rows(self, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        for leaf, data in self._reader.raw(start, stop):
            body = orjson.loads(data)
            yield (leaf, *(body.get(column) for column in _COLUMNS))

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)
        except sqlite3.DatabaseError:
            db.close()
            self._remove()
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)
        return db

    def _rebuild(self) -> None:
        self._db.close()
        self._remove()
        self._db = self._open()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()
