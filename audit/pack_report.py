"""What an evidence pack's report.json says: counted from the entries alone, so that anyone can.

Rule: pure; every figure follows from the entries of the leaves [first_leaf, end_leaf) and the range
asked for, and the reviewer's verifier counts again and compares byte by byte. A number is missing
when it lies between two numbers of its instance that are here, and neither a decision nor a gap
accounts for it. A decision or a gap without the fields for that (of a schema to come, say) is among
the records and accounts for nothing; the verifier counts the same, and names it.
An instance or a type that cannot be a key of canonical JSON is refused with its leaf.
Read next: pack.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .canonical import JSON
from .errors import DecodeError

REPORT_FORMAT = "weighbridge-evidence-report/1"
_MAX_KEY_CHARACTER = "\uffff"  # canonical.py refuses others
# What the verifier wants of them, too.
_DECISION = {"instance": str, "seq": int, "model": str, "version": str}
_GAP = {"instance": str, "first_seq": int, "last_seq": int}


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
        """Count one entry.

        Raises:
            DecodeError: it cannot be counted by its type or instance; names the leaf.
        """
        kind = _key(leaf, event, "type")
        inside = self._range[0] <= event["time_us"] < self._range[1]
        if inside:
            self._records[kind] += 1
        else:
            self._outside += 1
        numbers = numbers_of(event)
        if numbers is not None:
            _key(leaf, event, "instance")
            self._number(leaf, event, *numbers)
            if inside and kind == "decision":
                arm = str(event.get("arm_served") or "")
                self._decisions[event["model"], event["version"], arm] += 1
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
    kind = event.get("type")
    if kind == "decision" and _has(event, _DECISION):
        span = Span(event["seq"], event["seq"])
    elif kind == "gap" and _has(event, _GAP):
        span = Span(event["first_seq"], event["last_seq"])
    else:
        return None
    return (event["instance"], span) if 1 <= span.first <= span.last else None


def _has(event: Mapping[str, Any], fields: Mapping[str, type]) -> bool:
    return all(type(event.get(name)) is kind for name, kind in fields.items())


def _key(leaf: int, event: Mapping[str, Any], name: str) -> str:
    """A value that the report has as a key."""
    value = event.get(name)
    if not isinstance(value, str) or max(value, default="") > _MAX_KEY_CHARACTER:
        raise DecodeError(
            f"could not export: leaf {leaf} cannot be counted, as its {name} is no text or goes "
            "above U+FFFF"
        )
    return value


def explains(event: Mapping[str, Any], holes: Mapping[str, Iterable[Span]]) -> bool:
    """Whether an event accounts for a number in one of `holes` (by instance)."""
    numbers = numbers_of(event)
    if numbers is None:
        return False
    name, span = numbers
    return any(span.first <= hole.last and hole.first <= span.last for hole in holes.get(name, ()))
