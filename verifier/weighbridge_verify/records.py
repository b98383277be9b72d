"""The records: canonical, each id once, their numbers complete; and the report counted again.

Source: RFC 8785, without floats. Every figure of report.json is counted from the pack's records.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from . import Broken

_REPORT = {"format": str, "from_us": int, "to_us": int, "first_leaf": int, "end_leaf": int}
_EVENT = {"type": str, "schema": int, "id": str, "time_us": int}
_DECISION = {"instance": str, "seq": int, "model": str, "version": str}
_GAP = {"instance": str, "first_seq": int, "last_seq": int}


def canonical(data: bytes, fields: dict[str, type], what: str = "it") -> dict[str, Any]:
    """The JSON object in `data`, which has `fields`; raises Broken about `what` if it is other."""
    with suppress(ValueError, RecursionError):
        value = json.loads(data, parse_float=int, parse_constant=int, parse_int=_integer)
        if type(value) is dict and _dump(value) == data:
            return _need(value, fields, what)
    raise Broken(f"{what} is not a canonical JSON object")


class Records:
    """Takes the records of a pack in order. Attributes: `problems`, `leaves`, `given` (report)."""

    def __init__(self, report: bytes, origin: str, size: int, most: int) -> None:
        """`report` is the pack's own: it says which leaves and which time; raises Broken."""
        self.given = canonical(report, _REPORT, "report.json")
        self.leaves: tuple[int, int] = self.given["first_leaf"], self.given["end_leaf"]
        if not 0 <= self.leaves[0] < self.leaves[1] <= min(size, self.leaves[0] + 256 * most):
            raise Broken("report.json is about records that the pack or the checkpoint lacks")
        self._own = {"format": "weighbridge-evidence-report/1", "origin": origin, "tree_size": size}
        self.problems, self._ids = list[str](), dict[str, int]()
        self._kinds, self._decisions = Counter[str](), Counter[tuple[str, str, str]]()
        self._spans: dict[str, list[tuple[int, int, bool]]] = {}
        self._lists: dict[str, list[dict[str, Any]]] = {"gaps": [], "erasures": []}

    def add(self, leaf: int, data: bytes) -> None:
        """Check one entry, and count it if it is among the leaves that the report is about."""
        try:
            event = canonical(data, _EVENT)
            if self._ids.setdefault(event["id"], leaf) != leaf:
                raise Broken(f"its id is that of record {self._ids[event['id']]}, too")
            inside = self.given["from_us"] <= event["time_us"] < self.given["to_us"]
            if self.leaves[0] <= leaf < self.leaves[1]:
                self._count(leaf, event, inside)
            elif inside and leaf in (self.leaves[0] - 1, self.leaves[1]):
                raise Broken("it is of the time that the report names, but not in its range")
        except Broken as exc:
            self.problems.append(f"record {leaf}: {exc}")

    def _count(self, leaf: int, event: dict[str, Any], inside: bool) -> None:
        kind = event["type"]
        self._kinds[kind] += inside
        if kind == "decision":
            name, seq, *served = (_need(event, _DECISION)[field] for field in _DECISION)
            self._span(name, seq, seq, decided=True)
            self._decisions[*served, str(event.get("arm_served") or "")] += inside
        elif kind == "gap":
            self._span(*(_need(event, _GAP)[field] for field in _GAP), decided=False)
            said = {"leaf": leaf} | {field: event.get(field) for field in (*_GAP, "reason")}
            self._lists["gaps"].append(said)
        elif kind == "erasure":
            self._lists["erasures"].append({"leaf": leaf, "unit_ref": event.get("unit_ref")})

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
            for seq in sorted((given - Counter(set(given))).keys()):
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
        counts = {name: self.given[name] for name in _REPORT} | {"records": dict(+self._kinds)}
        counts |= {"records_outside_the_time": len(range(*self.leaves)) - self._kinds.total()}
        rows = sorted((*key, n) for key, n in self._decisions.items() if n)
        counts |= {"decisions": [dict(zip(names, row, strict=True)) for row in rows]}
        counts |= self._own | self._lists | {"instances": self._instances()}
        if _dump(self.given) != _dump(counts):
            raise Broken("report.json: counted again, the records give other figures")


def _dump(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _need(event: dict[str, Any], fields: dict[str, type], what: str = "it") -> dict[str, Any]:
    if all(type(event.get(name)) is kind for name, kind in fields.items()):
        return event
    raise Broken(f"{what} does not have {', '.join(fields)}")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= 1 << 53:
        raise ValueError(text)
    return int(text)
