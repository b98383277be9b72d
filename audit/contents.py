"""The entries as a verifier reads them: canonical, well-formed, numbered without holes.

Rule: works on parsed JSON rather than typed events, for speed; an entry of a type that this
version does not know is counted and noted, not condemned.
Read next: completeness.py, verify.py.
"""

import uuid
from typing import Any, NamedTuple

import orjson

from .boundary import Boundary
from .canonical import dumps
from .completeness import Completeness, Missing
from .errors import EventInvalid
from .findings import Collector
from .prunecheck import PruningChecker
from .record import ALL, field_names

_EVENT_STEP, _COMPLETE_STEP = 6, 7
_FIELDS = {(kind.type, kind.schema): field_names(kind) for kind in ALL}


class Erased(NamedTuple):
    """What an erasure record says: whose keys must be gone, and from which slots."""

    leaf: int
    time_us: int
    id: str
    unit_ref: str
    slots: list[int]


class ContentChecker:
    """Takes the entries in order, then `finish`."""

    def __init__(self, found: Collector, boundary: Boundary | None = None) -> None:
        self._found = found
        self.pruning = PruningChecker(found, boundary)
        self._decisions: dict[str, int] = {}
        self.last_time_us = 0
        self.erased: list[Erased] = []
        self.completeness = Completeness()
        self.pruning.resume(self.completeness)

    def entry(self, index: int, data: bytes) -> None:
        """Check one entry."""
        body = _parse(data)
        if body is None:
            self._found.problem(_EVENT_STEP, "the entry is not a canonical event", leaf=index)
            return
        kind = str(body.get("type"))
        fields = _FIELDS.get((kind, body.get("schema", 0)))
        self._found.count(f"{kind} events")
        if fields is None:
            self._found.note(f"events of type {kind!r} are unknown to this version")
        elif body.keys() != fields:
            odd = sorted(body.keys() ^ fields)
            self._found.problem(_EVENT_STEP, f"a {kind} with wrong fields: {odd}", leaf=index)
        elif kind == "decision":
            self._decision(index, body)
        elif kind == "erasure":
            self._erasure(index, body)
        elif kind == "pruned":
            self.pruning.pruned(index, data, body)
        elif kind == "carried":
            self._carried(index, body)
        elif kind == "counters":
            self._number(index, body, ("seq",))
        elif kind == "gap":
            self._number(index, body, ("first_seq", "last_seq"))
        time_us = body.get("time_us")
        if type(time_us) is int:
            self.last_time_us = max(self.last_time_us, time_us)

    def finish(self, in_flight_s: float) -> None:
        """Check that nothing is missing."""
        self.pruning.finish()
        for missing in self.completeness.missing():
            self._missing(missing, in_flight_s)
        for instance, seq in self.completeness.both:
            self._found.note(f"instance {instance}: number {seq} is both recorded and refused")
        self._found.count("instances", len(self.completeness.instances()))
        self._found.count("refused numbers", self.completeness.refused)

    def _decision(self, index: int, body: dict[str, Any]) -> None:
        before = self._decisions.setdefault(str(body["id"]), index)
        if before != index:
            message = f"decision {body['id']} was already recorded as leaf {before}"
            self._found.problem(_EVENT_STEP, message, leaf=index)
        self._number(index, body, ("seq",))

    def _erasure(self, index: int, body: dict[str, Any]) -> None:
        try:
            name, unit_ref = uuid.UUID(body["id"]).hex, bytes.fromhex(body["unit_ref"]).hex()
            slots = [int(slot) for slot in body["key_slots"]]
            self.erased.append(Erased(index, int(body["time_us"]), name, unit_ref, slots))
        except (TypeError, ValueError, AttributeError):
            self._found.problem(_EVENT_STEP, "its id, subject or slots are malformed", leaf=index)

    def _carried(self, index: int, body: dict[str, Any]) -> None:
        record = self.pruning.carried(index, body)
        if record is not None and record.get("type") == "erasure":
            self._erasure(index, record)

    def _number(self, index: int, body: dict[str, Any], names: tuple[str, ...]) -> None:
        instance, numbers = body["instance"], [body[name] for name in names]
        least = 0 if body["type"] == "counters" else 1
        good = all(type(n) is int and n >= least for n in numbers) and type(instance) is str
        if not good or type(body["time_us"]) is not int:
            self._found.problem(
                _EVENT_STEP, "its instance, number or time is malformed", leaf=index
            )
        elif body["type"] == "counters":
            if body["final"] is True:  # else some may have been on their way for ever
                self.completeness.claim(instance, numbers[0], body["time_us"])
        elif len(numbers) == 2:
            self.completeness.gap(instance, *numbers)
        elif not self.completeness.decision(instance, numbers[0], body["time_us"]):
            self._found.problem(
                _COMPLETE_STEP,
                f"instance {instance}: number {numbers[0]} was given to two answers",
                leaf=index,
            )

    def _missing(self, missing: Missing, in_flight_s: float) -> None:
        span = (
            f"{missing.first}"
            if missing.first == missing.last
            else (f"{missing.first} to {missing.last}")
        )
        text = f"instance {missing.instance}: number {span} is missing and no gap explains it"
        age_us = self.last_time_us - missing.next_time_us
        if missing.next_time_us and age_us < in_flight_s * 1_000_000:
            self._found.note(f"{text} (it may still be on its way)")
        else:
            self._found.problem(_COMPLETE_STEP, text)


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(data)
        if isinstance(body, dict) and dumps(body) == data:
            return body
    except (orjson.JSONDecodeError, EventInvalid):
        pass
    return None
