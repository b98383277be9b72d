"""The records: canonical, each id once, their numbers complete; and the report counted again.

Source: RFC 8785 (the part without floats that the log writes). The report's fields are those of
report.json; every figure is counted from the records of the leaves that the pack is about.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import Broken

_SAFE = 1 << 53
_REPORT = {"format": str, "from_us": int, "to_us": int, "first_leaf": int, "end_leaf": int}
_EVENT = {"type": str, "schema": int, "id": str, "time_us": int}
_DECISION = {"instance": str, "seq": int, "model": str, "version": str}
_GAP = {"instance": str, "first_seq": int, "last_seq": int}


def canonical(data: bytes, fields: dict[str, type]) -> dict[str, Any]:
    """The JSON object in `data`, which has `fields`; raises Broken if it has other bytes."""
    try:
        value = json.loads(data, parse_float=_refuse, parse_constant=_refuse, parse_int=_integer)
        if type(value) is dict and _dump(value) == data:
            return _need(value, fields)
    except (ValueError, RecursionError):
        pass
    raise Broken("it is not a canonical JSON object")


class Records:
    """Takes the records of a pack in order. Attributes: `problems`, in sentences; `leaves`."""

    def __init__(self, report: bytes, origin: str, size: int) -> None:
        """`report` is the pack's own: it says which leaves and which time; raises Broken."""
        self._given = canonical(report, _REPORT)
        self.leaves: tuple[int, int] = self._given["first_leaf"], self._given["end_leaf"]
        if not 0 <= self.leaves[0] < self.leaves[1] <= size:
            raise Broken("report.json is about records that the checkpoint does not cover")
        self._about = {name: self._given[name] for name in _REPORT}
        self._about |= {"origin": origin, "tree_size": size}
        self.problems: list[str] = []
        self._ids: dict[str, int] = {}
        self._kinds: Counter[str] = Counter()
        self._decisions: Counter[tuple[str, str, str]] = Counter()
        self._outside = 0
        self._spans: dict[str, list[tuple[int, int, bool]]] = {}
        self._gaps: list[dict[str, Any]] = []
        self._erasures: list[dict[str, Any]] = []

    def add(self, leaf: int, data: bytes) -> None:
        """Check one entry, and count it if it is among the leaves that the report is about."""
        try:
            event = canonical(data, _EVENT)
            if self._ids.setdefault(event["id"], leaf) != leaf:
                raise Broken(f"its id is that of record {self._ids[event['id']]}, too")
            if self.leaves[0] <= leaf < self.leaves[1]:
                self._count(leaf, event)
        except Broken as exc:
            self.problems.append(f"record {leaf}: {exc}")

    def _count(self, leaf: int, event: dict[str, Any]) -> None:
        kind = event["type"]
        inside = self._given["from_us"] <= event["time_us"] < self._given["to_us"]
        self._outside += not inside
        self._kinds[kind] += inside
        if kind == "decision":
            name, seq, model, version = (_need(event, _DECISION)[field] for field in _DECISION)
            self._span(name, seq, seq, decided=True)
            self._decisions[model, version, str(event.get("arm_served") or "")] += inside
        elif kind == "gap":
            self._span(*(_need(event, _GAP)[field] for field in _GAP), decided=False)
            shown = {field: event.get(field) for field in (*_GAP, "reason")}
            self._gaps.append({"leaf": leaf, **shown})
        elif kind == "erasure":
            self._erasures.append({"leaf": leaf, "unit_ref": event.get("unit_ref")})

    def _span(self, instance: str, first: int, last: int, *, decided: bool) -> None:
        if not 1 <= first <= last:
            raise Broken("its numbers are not numbers of answers")
        self._spans.setdefault(instance, []).append((first, last, decided))

    def numbers(self) -> Iterator[tuple[str, str]]:
        """What was found about each instance's numbers, and what is a problem."""
        for name, found in sorted(self._instances().items()):
            given = Counter(first for first, _, decided in self._spans[name] if decided)
            for first, last in found["missing"]:
                yield "PROBLEM", f"instance {name}: {first} to {last} missing, no gap explains it"
            for seq in sorted(seq for seq, count in given.items() if count > 1):
                yield "PROBLEM", f"instance {name}: number {seq} was given to {given[seq]} answers"
            shown = "numbers {first_seq} to {last_seq}, {decisions} answers, {refused} refused"
            yield "found", f"instance {name}: {shown.format(**found)}"

    def _instances(self) -> dict[str, Any]:
        found = {}
        for name, spans in self._spans.items():
            holes, reached = [], min(spans)[0] - 1
            for first, last, _ in sorted(spans):
                if first > reached + 1:
                    holes.append([reached + 1, first - 1])
                reached = max(reached, last)
            refused = sum(last - first + 1 for first, last, decided in spans if not decided)
            found[name] = {"first_seq": min(spans)[0], "last_seq": reached, "missing": holes}
            found[name] |= {"decisions": sum(span[2] for span in spans), "refused": refused}
        return found

    def agree(self) -> None:
        """Compare the pack's report with what was counted; raises Broken."""
        names = ("model", "version", "arm", "count")
        counted = sorted((*key, n) for key, n in self._decisions.items() if n)
        counts = {
            "records": {kind: count for kind, count in self._kinds.items() if count},
            "records_outside_the_time": self._outside,
            "decisions": [dict(zip(names, row, strict=True)) for row in counted],
            "instances": self._instances(),
            "gaps": self._gaps,
            "erasures": self._erasures,
        }
        if _dump(self._given) != _dump(self._about | counts):
            raise Broken("report.json: counted again, the records give other figures")


def _dump(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _need(event: dict[str, Any], fields: dict[str, type]) -> dict[str, Any]:
    if all(type(event.get(name)) is kind for name, kind in fields.items()):
        return event
    raise Broken(f"it does not have {', '.join(fields)}")


def _refuse(text: str) -> None:
    raise ValueError(text)


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 17 else _SAFE
    if not -_SAFE < number < _SAFE:
        raise ValueError(text)
    return number
