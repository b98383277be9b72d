"""The entries as a verifier reads them: canonical, well-formed, numbered without holes.

Rule: works on parsed JSON rather than typed events, for speed, and on decisions without parsing
them at all where their form says everything (grammar.py). An entry of a type that this version does
not know is counted and noted, not condemned.
Read next: grammar.py, completeness.py, verify.py.
"""

import uuid
from collections.abc import Sequence
from itertools import chain, islice
from operator import lt
from typing import Any, NamedTuple

import orjson

from .boundary import Boundary
from .bundle import Bundle
from .canonical import dumps
from .completeness import Completeness, LogEnd, Missing
from .errors import EventInvalid
from .findings import Collector
from .grammar import DecisionForms
from .prunecheck import PruningChecker
from .record import ALL, field_names
from .sealedpart import is_sealed

_EVENT_STEP, _COMPLETE_STEP = 6, 7
_AT_ONCE = 256
_OF_ALL = {"id": str, "schema": int, "time_us": int, "type": str}
_FIELDS = {(kind.type, kind.schema): field_names(kind) for kind in ALL}


class Erased(NamedTuple):
    """What an erasure record says: whose keys must be gone, and from which slots."""

    leaf: int
    time_us: int
    id: str
    unit_ref: str
    slots: list[int]


class ContentChecker:
    """Takes the entries in order, then `finish`.

    Attributes:
        last_time_us: the time that the last record names.
        erased: what the erasures say.
        rotated: the old and the new key of each `key_rotation` record, by leaf.
        sealed: whether a decision has a part that is sealed under its subject's key.
        completeness: the numbers of each instance.
    """

    def __init__(self, found: Collector, boundary: Boundary | None = None) -> None:
        self._found = found
        self._forms = DecisionForms()
        self._decisions = _Ids()
        self._held: list[tuple[int, Bundle]] = []
        self._next = 0
        self.pruning = PruningChecker(found, boundary)
        self.last_time_us = 0
        self.erased: list[Erased] = []
        self.rotated: dict[int, tuple[str, str]] = {}
        self.sealed = False
        self.completeness = Completeness()
        self.pruning.resume(self.completeness)

    def entries(self, first: int, entries: Bundle) -> None:
        """Take the next entries, the first of which is this leaf; `finish` checks the last ones."""
        if self._held and first != self._next:
            self._check_held()
        self._held.append((first, entries))
        self._next = first + len(entries)
        if self._next - self._held[0][0] >= _AT_ONCE:
            self._check_held()

    def _check_held(self) -> None:
        """Check some hundred entries: each kind of work then finds the caches as it left them."""
        held, self._held = self._held, []
        if not held:
            return
        bundles = [entries for _, entries in held]
        self.sealed = self.sealed or any(map(is_sealed, chain(*bundles)))
        found, first, start = self._forms.match(bundles), held[0][0], 0
        if None not in found:
            self._plain_decisions(first, found)
            return
        entries = list(chain.from_iterable(bundles))
        while start < len(found):
            end = found.index(None, start) if None in found[start:] else len(found)
            if start < end:
                self._plain_decisions(first + start, found[start:end])
            if end < len(found):
                self._entry(first + end, entries[end])
            start = end + 1

    def _plain_decisions(self, first: int, said: list[Any]) -> None:
        """Check decisions of good form, of which id, instance, number and time are given."""
        ids, instances, seqs, times = zip(*said, strict=True)
        self._found.count("decision events", len(ids))
        self.last_time_us = int(times[-1])
        if not self._decisions.add(first, ids):
            for leaf, event_id in enumerate(ids, first):
                self._once(leaf, event_id)
        numbers: list[int] = orjson.loads(b"[" + b",".join(seqs) + b"]")
        for instance in dict.fromkeys(instances):
            places: Sequence[int] = range(len(ids))
            own = numbers
            if instances.count(instance) < len(ids):
                places = [place for place in places if instances[place] == instance]
                own = [numbers[place] for place in places]
            name = instance.decode()
            if not self.completeness.decisions_of(name, own):
                for place in places:
                    self._numbered(first + place, name, numbers[place], int(times[place]))

    def _entry(self, index: int, data: bytes) -> None:
        body = _parse(data)
        if body is None:
            self._found.problem(_EVENT_STEP, "the entry is not a canonical event", leaf=index)
            return
        kind: str = body["type"]
        fields = _FIELDS.get((kind, body["schema"]))
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
        elif kind == "key_rotation":
            self.rotated[index] = (str(body["old_key"]), str(body["new_key"]))
        elif kind == "pruned":
            self.pruning.pruned(index, data, body)
        elif kind == "carried":
            self._carried(index, body)
        elif kind == "counters":
            self._number(index, body, ("seq",))
        elif kind == "gap":
            self._number(index, body, ("first_seq", "last_seq"))
        self.last_time_us = body["time_us"]

    def finish(self, in_flight_s: float) -> LogEnd:
        """Check what is left, and that nothing is missing; from where on something may be late."""
        self._check_held()
        end = LogEnd(self.last_time_us, in_flight_s)
        self.pruning.finish()
        for missing in self.completeness.missing():
            self._missing(missing, end)
        for instance, seq in self.completeness.both:
            self._found.note(f"instance {instance}: number {seq} is both recorded and refused")
        self._found.count("instances", len(self.completeness.instances()))
        self._found.count("refused numbers", self.completeness.refused)
        return end

    def _decision(self, index: int, body: dict[str, Any]) -> None:
        self._once(index, str(body["id"]).encode())
        self._number(index, body, ("seq",))

    def _once(self, index: int, event_id: bytes) -> None:
        before = self._decisions.leaf_of(event_id, index)
        if before != index:
            message = f"decision {event_id.decode()} was already recorded as leaf {before}"
            self._found.problem(_EVENT_STEP, message, leaf=index)

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
        if not good:
            self._found.problem(_EVENT_STEP, "its instance or number is malformed", leaf=index)
        elif body["type"] == "counters":
            if body["final"] is True:  # else some may have been on their way for ever
                self.completeness.claim(instance, numbers[0], body["time_us"])
        elif len(numbers) == 2:
            self.completeness.gap(instance, *numbers)
        else:
            self._numbered(index, instance, numbers[0], body["time_us"])

    def _numbered(self, index: int, instance: str, number: int, time_us: int) -> None:
        if not self.completeness.decision(instance, number, time_us):
            self._found.problem(
                _COMPLETE_STEP,
                f"instance {instance}: number {number} was given to two answers",
                leaf=index,
            )

    def _missing(self, missing: Missing, end: LogEnd) -> None:
        span = (
            f"{missing.first}"
            if missing.first == missing.last
            else (f"{missing.first} to {missing.last}")
        )
        text = f"instance {missing.instance}: number {span} is missing and no gap explains it"
        if missing.next_time_us and end.near(missing.next_time_us):
            self._found.note(f"{text} (it may still be on its way)")
        else:
            self._found.problem(_COMPLETE_STEP, text)


class _Ids:
    """The ids of decisions; the leaf of each is only looked for once one comes again.

    While each is greater than the one before, as those of one gateway mostly are, none can have
    come before, and no set of them is needed.
    """

    def __init__(self) -> None:
        self._known: set[bytes] | None = None
        self._greatest = b""
        self._runs: list[tuple[int, tuple[bytes, ...]]] = []
        self._leaves: dict[bytes, int] = {}
        self._again = False

    def add(self, first: int, ids: tuple[bytes, ...]) -> bool:
        """Take the ids of leaves that follow one another; False, and none, if one is not new."""
        if not self._again:
            if self._all_new(ids):
                self._runs.append((first, ids))
                return True
            # From here on each is looked up: a log in which one comes twice is not worth haste.
            self._again = True
            for start, run in self._runs:
                self._leaves.update(zip(run, range(start, start + len(run)), strict=True))
        return False

    def _all_new(self, ids: tuple[bytes, ...]) -> bool:
        if self._known is None:
            if self._greatest < ids[0] and all(map(lt, ids, islice(ids, 1, None))):
                self._greatest = ids[-1]
                return True
            self._known = set(chain.from_iterable(run for _, run in self._runs))
        before = len(self._known)
        self._known.update(ids)
        return len(self._known) == before + len(ids)

    def leaf_of(self, event_id: bytes, leaf: int) -> int:
        """The leaf where this id was first, which is this one if it is new."""
        if self.add(leaf, (event_id,)):
            return leaf
        return self._leaves.setdefault(event_id, leaf)


def _parse(data: bytes) -> dict[str, Any] | None:
    """The fields of an event; None if these are not the canonical bytes of one (record.py)."""
    try:
        body = orjson.loads(data)
        if isinstance(body, dict) and dumps(body) == data:
            said = {name: type(body.get(name)) for name in _OF_ALL}
            return body if said == _OF_ALL else None
    except (orjson.JSONDecodeError, EventInvalid):
        pass
    return None
