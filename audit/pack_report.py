"""What an evidence pack's report.json says: counted from the entries alone, so that anyone can.

Rule: pure; every figure follows from the entries of the leaves [first_leaf, end_leaf) and the range
asked for, and the reviewer's verifier counts again and compares byte by byte. A number is missing
when it lies between two numbers of its instance that are here, and neither a decision nor a gap
accounts for it.
Read next: pack.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .canonical import JSON

REPORT_FORMAT = "weighbridge-evidence-report/1"


class Span(NamedTuple):
    """Numbers [first, last] of one instance."""

    first: int
    last: int


class Instance:
    """The numbers of one gateway process that were seen."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.decisions = 0
        self.refused = 0

    def missing(self) -> list[Span]:
        """The holes between the lowest and the highest number seen."""
        holes: list[Span] = []
        reached: int | None = None
        for first, last in sorted(self.spans):
            if reached is not None and first > reached + 1:
                holes.append(Span(reached + 1, first - 1))
            reached = last if reached is None else max(reached, last)
        return holes

    def summary(self) -> dict[str, JSON]:
        """As the report shows it."""
        return {
            "first_seq": min(span.first for span in self.spans),
            "last_seq": max(span.last for span in self.spans),
            "decisions": self.decisions,
            "refused": self.refused,
            "missing": [list(span) for span in self.missing()],
        }


class PackReport:
    """Counts entries, given in the order of their leaves."""

    def __init__(self, *, from_us: int, to_us: int) -> None:
        self._range = from_us, to_us
        self._records: Counter[str] = Counter()
        self._decisions: Counter[tuple[str, str, str]] = Counter()
        self._outside = 0
        self._gaps: list[JSON] = []
        self._erasures: list[JSON] = []
        self.instances: dict[str, Instance] = {}

    def add(self, leaf: int, event: Mapping[str, Any]) -> None:
        """Count one entry."""
        kind = str(event["type"])
        if self._range[0] <= event["time_us"] < self._range[1]:
            self._records[kind] += 1
            if kind == "decision":
                arm = event.get("arm_served") or ""
                self._decisions[event["model"], event["version"], arm] += 1
        else:
            self._outside += 1
        numbers = numbers_of(event)
        if numbers is not None:
            self._number(leaf, event, *numbers)
        if kind == "erasure":
            self._erasures.append({"leaf": leaf, "unit_ref": event.get("unit_ref")})

    def _number(self, leaf: int, event: Mapping[str, Any], name: str, span: Span) -> None:
        instance = self.instances.setdefault(name, Instance())
        instance.spans.append(span)
        if event["type"] == "decision":
            instance.decisions += 1
            return
        instance.refused += span.last - span.first + 1
        self._gaps.append(
            {
                "leaf": leaf,
                "instance": name,
                "first_seq": span.first,
                "last_seq": span.last,
                "reason": event.get("reason"),
            }
        )

    def body(self, *, origin: str, tree_size: int, first: int, end: int) -> dict[str, JSON]:
        """The report: JSON types only."""
        return {
            "format": REPORT_FORMAT,
            "origin": origin,
            "tree_size": tree_size,
            "from_us": self._range[0],
            "to_us": self._range[1],
            "first_leaf": first,
            "end_leaf": end,
            "records": dict(self._records),
            "records_outside_the_time": self._outside,
            "decisions": [
                {"model": model, "version": version, "arm": arm, "count": count}
                for (model, version, arm), count in sorted(self._decisions.items())
            ],
            "instances": {name: found.summary() for name, found in self.instances.items()},
            "gaps": self._gaps,
            "erasures": self._erasures,
        }


def numbers_of(event: Mapping[str, Any]) -> tuple[str, Span] | None:
    """Which numbers of which instance an event accounts for; None if it accounts for none."""
    if event["type"] == "decision":
        return event["instance"], Span(event["seq"], event["seq"])
    if event["type"] == "gap":
        return event["instance"], Span(event["first_seq"], event["last_seq"])
    return None


def explains(event: Mapping[str, Any], holes: Mapping[str, Iterable[Span]]) -> bool:
    """Whether an event accounts for a number in one of `holes` (by instance)."""
    numbers = numbers_of(event)
    if numbers is None:
        return False
    name, span = numbers
    return any(span.first <= hole.last and hole.first <= span.last for hole in holes.get(name, ()))
