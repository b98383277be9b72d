"""Finding leaves by decision, unit, trace, model, arm, version or time: a SQLite file, derived.

Rules:
1. The index proves nothing and is never trusted alone: what it finds is compared with the log, and
   an index that disagrees, is damaged, or was made by an older version is made again.
2. It holds the hash of its last leaf. A log that does not have this leaf there (it was rolled back,
   or is another log) gets a new index.
3. It catches up from a reader before each question, in transactions: after a crash it has the
   leaves of those that were committed. The log's writer never waits for it.
4. Where no file can be written (a reviewer's read-only copy) it is made in memory.
What it cannot know of itself is a missing row in a file that somebody changed: `rebuild` makes it
anew.
Read next: locate.py (one id, without an index), reader.py.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from .errors import LogUnavailable
from .locate import locate
from .merkle import leaf_hash
from .reader import LogReader

VERSION = 2
_TEXTS = ("id", "type", "decision", "unit_ref", "trace_id", "model", "version", "arm")
_SCHEMA = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS leaf;
DROP TABLE IF EXISTS tip;
CREATE TABLE leaf (
    leaf INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL,
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
_NEAR = 64
_FAR = 50_000
_ATTEMPTS = 20
_MAX_INTEGER = 1 << 63
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a leaf must be about; what is None is not asked.

    `decision` means the decision itself and what speaks of it; `arm` is the arm that answered;
    times are Unix microseconds, `from_us` included, `to_us` not.
    """

    decision: str | None = None
    unit_ref: str | None = None
    trace_id: str | None = None
    model: str | None = None
    version: str | None = None
    arm: str | None = None
    type: str | None = None
    from_us: int | None = None
    to_us: int | None = None

    def met_by(self, body: Mapping[str, Any]) -> bool:
        """Whether a record (its fields by name) is what is asked for."""
        if self.decision is not None and self.decision not in (body["id"], body.get("decision")):
            return False
        time_us = body["time_us"]
        if self.from_us is not None and time_us < self.from_us:
            return False
        if self.to_us is not None and time_us >= self.to_us:
            return False
        said = {**body, "arm": _arm(body)}
        return all(
            wanted is None or said.get(name) == wanted
            for name, wanted in asdict(self).items()
            if name not in ("decision", "from_us", "to_us")
        )


class Index:
    """An index over one log. A context manager; for one thread.

    Args:
        directory: the log's directory.
        path: where the index lies; `index.sqlite` in the log's directory by default. One that
            cannot be written is replaced by one in memory.
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
        """The leaf of the event with this id, checked against the log; None if there is none.

        Where the index is far behind, the log is first looked into at the id's time (locate.py).
        """
        if self._is_far_behind() and (leaf := locate(self._reader, event_id)) is not None:
            return leaf
        for _ in range(2):
            leaves = self._leaves(["id = ?"], [event_id], limit=1)
            found = [orjson.loads(data)["id"] for _, data in read_leaves(self._reader, leaves)]
            if found == [event_id] * len(leaves):
                break
            self.rebuild()
        return leaves[0] if leaves else None

    def search(self, criteria: Criteria, *, limit: int = 1000) -> list[int]:
        """The newest leaves that meet the criteria, in log order, each checked against the log.

        Args:
            criteria: what they must be about.
            limit: at most so many; at least 1. More than SQLite can count is all.
        """
        where, values = _conditions(criteria)
        for _ in range(2):
            leaves = self._leaves(where, values, limit)
            found = [data for _, data in read_leaves(self._reader, leaves)]
            if len(found) == len(leaves) and all(criteria.met_by(orjson.loads(d)) for d in found):
                break
            self.rebuild()
        return leaves

    def about(self, decision_id: str) -> list[int]:
        """The leaves that speak of a decision: explanations, outcomes, overrides, in order."""
        return self._leaves(["decision = ?"], [decision_id])

    def by_unit_ref(self, unit_ref: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves about a unit, in log order."""
        return self.search(Criteria(unit_ref=unit_ref), limit=limit)

    def by_trace_id(self, trace_id: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves of a trace, in log order."""
        return self.search(Criteria(trace_id=trace_id), limit=limit)

    def by_model(self, model: str, *, limit: int = 1000) -> list[int]:
        """The newest leaves about a model, in log order."""
        return self.search(Criteria(model=model), limit=limit)

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

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def _leaves(self, where: list[str], values: list[Any], limit: int = 1_000_000) -> list[int]:
        # `where` holds constants of this module, never a caller's text.
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

    def _is_far_behind(self) -> bool:
        try:
            known = self._count()
        except sqlite3.DatabaseError:
            known = 0  # `catch_up` replaces it
        return self._reader.size() - known > _FAR

    def _count(self) -> int:
        row = self._db.execute("SELECT leaf FROM tip").fetchone()
        return 0 if row is None else int(row[0]) + 1

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if _code(error) in _BUSY:
                raise LogUnavailable(f"could not open the index {self._path}: {error}") from error
            if _code(error) not in _UNWRITABLE:
                self._remove()
                with suppress(sqlite3.DatabaseError):
                    return _connect(self._path)
        except OSError:
            pass  # nothing can be removed there either
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


def read_leaves(reader: LogReader, leaves: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of those of the leaves (ascending) that the log has; neighbours at once."""
    start = 0
    for place, leaf in enumerate(leaves, start=1):
        if place < len(leaves) and leaves[place] - leaf <= _NEAR:
            continue
        wanted = set(leaves[start:place])
        for found in reader.raw(leaves[start], leaf + 1):
            if found[0] in wanted:
                yield found
        start = place


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        # WAL: readers and the one who catches up do not wait for one another, and a power cut
        # loses whole transactions only.
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


def _arm(body: Mapping[str, Any]) -> Any:
    served = body.get("arm_served")
    return body.get("arm") if served is None else served


def _row(leaf: int, data: bytes) -> tuple[Any, ...]:
    body = orjson.loads(data)
    body["arm"] = _arm(body)
    time_us = body.get("time_us")
    fits = type(time_us) is int and -_MAX_INTEGER <= time_us < _MAX_INTEGER
    texts = (body.get(name) for name in _TEXTS)
    # A record of a newer version may use a name for something else.
    return (
        leaf,
        time_us if fits else 0,
        *(text if isinstance(text, str) else None for text in texts),
    )


def _conditions(criteria: Criteria) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    for name, wanted in asdict(criteria).items():
        if wanted is None:
            continue
        if name == "decision":
            where.append("(id = ? OR decision = ?)")
            values += [wanted, wanted]
        elif name in ("from_us", "to_us"):
            where.append("time_us >= ?" if name == "from_us" else "time_us < ?")
            values.append(wanted)
        else:
            where.append(f"{name} = ?")
            values.append(wanted)
    return where, values


__all__ = ["VERSION", "Criteria", "Index", "read_leaves"]
