"""What the leaves say that was answered: numbers and counters of each gateway process, counted.

Steps 2 to 5 of complete.py, whose rules these are.
Rule: takes parsed events as they are; a malformed field raises KeyError, TypeError or ValueError,
which the caller reports.
Read next: completeness.py (the numbers), complete.py.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .boundary import read_boundary
from .completeness import Completeness, LogEnd, Missing
from .findings import amount
from .record import ALL

__all__ = ["InstanceCount", "LeafCount"]

_NUMBERED = {"decision", "gap", "counters"}
_TYPES = {kind.type for kind in ALL}
_COUNTED = ("seq", "recorded", "refused", "answered", "traced", "final")


@dataclass(slots=True)
class InstanceCount:
    """One gateway process between the two checkpoints.

    Attributes:
        first, last: the lowest and highest number seen; 0 where there is none.
        decisions, refused: leaves and gap numbers between the checkpoints.
        counted: its last `counters` record, by field; None if there is none.
        missing: ranges of numbers that nothing accounts for.
    """

    instance: str
    first: int = 0
    last: int = 0
    decisions: int = 0
    refused: int = 0
    counted: dict[str, Any] | None = None
    missing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the process said that nothing was on its way."""
        return bool(self.counted and self.counted["final"])


class LeafCount:
    """Takes all leaves in order, then `finish`; counts those from `start` on.

    Attributes:
        start: the first leaf that is counted.
        records: how many of each type there are.
        instances: by name, in order of appearance.
        problems: what does not agree.
        notes: what cannot be known.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.start = start
        self.records: Counter[str] = Counter()
        self.instances: dict[str, InstanceCount] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._numbers = Completeness()
        self._decisions: Counter[str] = Counter()  # from the log's beginning, as far as known
        self._through: dict[str, int] | None = None
        self._last_us = 0
        boundary = read_boundary(directory)
        for said in boundary.record.numbers if boundary else ():
            name, through, ahead = str(said["instance"]), int(str(said["through"])), said["ahead"]
            spans: Any = ahead
            self._numbers.resume(name, through, [(first, last) for first, last in spans])
            self._decisions[name] = through + sum(last - first + 1 for first, last in spans)

    def entry(self, leaf: int, body: dict[str, Any]) -> None:
        """Count one leaf."""
        if leaf >= self.start and self._through is None:
            self._through = self._numbers.instances()
        kind, inside = str(body.get("type")), leaf >= self.start
        if inside:
            self.records[kind if kind in _TYPES else "unknown"] += 1
        self._last_us = int(body.get("time_us", 0))
        if kind not in _NUMBERED:
            return
        name = str(body["instance"])
        one = self.instances.setdefault(name, InstanceCount(name)) if inside else None
        if kind == "decision":
            self._numbers.decision(name, body["seq"], body["time_us"])
            self._decisions[name] += 1
            self._seen(one, body["seq"], body["seq"])
            if one is not None:
                one.decisions += 1
        elif kind == "gap":
            self._numbers.gap(name, body["first_seq"], body["last_seq"])
            self._seen(one, body["first_seq"], body["last_seq"])
            if one is not None:
                one.refused += body["last_seq"] - body["first_seq"] + 1
        else:
            self._counters(leaf, body, one)

    def _counters(self, leaf: int, body: dict[str, Any], one: InstanceCount | None) -> None:
        name, seq, recorded = str(body["instance"]), body["seq"], body["recorded"]
        if body["final"]:  # else some may have been on their way for ever
            self._numbers.claim(name, seq, body["time_us"])
        if one is None:
            return
        one.counted = {field: body[field] for field in _COUNTED}
        where = f"instance {name}, counters at leaf {leaf}"
        if recorded > self._decisions[name]:
            there = self._decisions[name]
            self.problems.append(f"{where}: {amount(recorded, 'answers')} recorded, {there} there")
        handed = recorded + body["refused"]
        if handed > seq or (body["final"] and handed != seq):
            self.problems.append(
                f"{where}: {amount(seq, 'numbers')}, but {handed} recorded or refused"
            )
        if body["answered"] > recorded:
            more = amount(body["answered"] - recorded, "answers")
            self.problems.append(f"{where}: {more} given without a record")
        if body["traced"] > body["answered"]:
            self.problems.append(f"{where}: more traces ({body['traced']}) than answers")

    @staticmethod
    def _seen(one: InstanceCount | None, first: int, last: int) -> None:
        if one is not None:
            one.first = min(one.first or first, first)
            one.last = max(one.last, last)

    def finish(
        self, in_flight_s: float, metrics: Mapping[str, int], unsigned: Mapping[str, int]
    ) -> None:
        """Judge what is missing; `unsigned` decisions are in the log, but were not counted."""
        end = LogEnd(self._last_us, in_flight_s)
        for missing in self._numbers.missing():
            self._missing(missing, end)
        for name, one in self.instances.items():
            if not one.ended:
                self.notes.append(
                    f"instance {name} did not say that it ended: it is running, or was killed; "
                    f"what it answered after number {one.last} cannot be known from the log"
                )
        for name, counted in metrics.items():
            there = self._decisions[name]
            if there < counted <= there + unsigned.get(name, 0):
                self.notes.append(
                    f"instance {name}: {counted - there} of {counted} recorded answers are in the "
                    "log, and no checkpoint covers them yet: ask again in a moment"
                )
            elif counted > there:
                self.problems.append(
                    f"instance {name}: the gateway counts {counted} recorded answers, the log has "
                    f"{there}"
                )

    def _missing(self, missing: Missing, end: LogEnd) -> None:
        through = (self._through or {}).get(missing.instance, 0)
        first = max(missing.first, through + 1)
        if first > missing.last:
            return
        name = missing.instance
        span = f"{first}" if first == missing.last else f"{first} to {missing.last}"
        if missing.next_time_us and end.near(missing.next_time_us):
            self.notes.append(f"instance {name}: number {span} may still be on its way")
            return
        self.instances.setdefault(name, InstanceCount(name)).missing.append((first, missing.last))
        self.problems.append(f"instance {name}: number {span} is missing and no gap explains it")
