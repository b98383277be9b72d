"""Finding leaves by decision, unit, trace, model, arm, version or time: in a derived SQLite file.

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
Read next: indexfile.py (the file), locate.py (one id, without an index), reader.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from .indexfile import VERSION, IndexFile, arm_of, time_of
from .locate import locate
from .reader import LogReader

_NEAR = 64
_FAR = 50_000
_ALL = 1_000_000


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
        if self.decision is not None and self.decision not in (
            body.get("id"),
            body.get("decision"),
        ):
            return False
        time_us = time_of(body)
        if self.from_us is not None and time_us < self.from_us:
            return False
        if self.to_us is not None and time_us >= self.to_us:
            return False
        said = {**body, "arm": arm_of(body)}
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
        self._reader = LogReader(directory)
        self._file = IndexFile(self._reader, path or directory / "index.sqlite")

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
        far_behind = self._reader.size() - self._file.known() > _FAR
        if far_behind and (leaf := locate(self._reader, event_id)) is not None:
            return leaf
        for _ in range(2):
            leaves = self._file.leaves(["id = ?"], [event_id], 1)
            found = [orjson.loads(data).get("id") for _, data in read_leaves(self._reader, leaves)]
            if found == [event_id] * len(leaves):
                break
            self._file.rebuild()
        return leaves[0] if leaves else None

    def search(self, criteria: Criteria, *, limit: int = 1000) -> list[int]:
        """The newest leaves that meet the criteria, in log order, each checked against the log.

        Args:
            criteria: what they must be about.
            limit: at most so many; at least 1. More than SQLite can count is all.
        """
        where, values = _conditions(criteria)
        for _ in range(2):
            leaves = self._file.leaves(where, values, limit)
            found = [data for _, data in read_leaves(self._reader, leaves)]
            if len(found) == len(leaves) and all(criteria.met_by(orjson.loads(d)) for d in found):
                break
            self._file.rebuild()
        return leaves

    def about(self, decision_id: str) -> list[int]:
        """The leaves that speak of a decision: explanations, outcomes, overrides, in order."""
        return self._file.leaves(["decision = ?"], [decision_id], _ALL)

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
        return self._file.catch_up()

    def rebuild(self) -> int:
        """Throw away what it holds and read the log from its beginning; as `catch_up`."""
        return self._file.rebuild()

    def close(self) -> None:
        """Release the file."""
        self._file.close()


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
