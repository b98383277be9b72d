"""What the log says of subjects: reading it by the group finds what reading each event would."""

import json

from hypothesis import given
from hypothesis import strategies as st

from audit.bundle import Bundle
from audit.erasing import Standing
from audit.events import Carried, Erasure, LegalHold, Pruned
from audit.record import decode, encode, original
from tests.audit.worlds import START_US, decision, uuid

UNITS = [unit * 16 for unit in ("aa", "bb", "cc")]
ODD = ['"type":"erasure"', '"type":"decision","unit_ref":"', "\\", "ü", ""]


class Groups:
    """A log that holds these groups."""

    def __init__(self, groups):
        self.groups = groups

    def first(self):
        return 0

    def size(self):
        return sum(map(len, self.groups))

    def bundles(self, start, end):
        assert end == self.size()
        first = 0
        for group in self.groups:
            if first >= start:
                yield first, Bundle.of(group)
            first += len(group)


def erasure(number, unit, reason):
    return Erasure(
        id=uuid(number), time_us=START_US, unit_ref=unit, actor="a", reason=reason, key_slots=[1]
    )


def hold(number, unit, reason, action):
    return LegalHold(
        id=uuid(number), time_us=START_US, unit_ref=unit, action=action, actor="a", reason=reason
    )


def carried(number, event):
    body = json.loads(encode(event))
    return Carried(
        id=uuid(number), time_us=START_US, was_leaf=0, record=body, first_leaf=256, path=[]
    )


def pruned(number, reason):
    return Pruned(
        id=uuid(number),
        time_us=START_US,
        actor=reason,
        reason=reason,
        from_leaf=0,
        first_leaf=0,
        kept_from=0,
        first_payloads=0,
        tree_size=0,
        root="00" * 32,
        frontier=[],
        segments=1,
        until_us=START_US,
        numbers=[],
    )


def made(kind, number, unit, odd):
    match kind:
        case "decision":
            return decision(number + 1, unit_ref=unit, label=odd)
        case "nobody's":
            return decision(number + 1, unit_ref=None, label=odd)
        case "erasure":
            return erasure(number, unit, odd)
        case "hold" | "release":
            return hold(number, unit, odd, kind)
        case "carried":
            return carried(number, erasure(number + 500, unit, odd))
        case _:
            return pruned(number, odd)


KINDS = ["decision", "nobody's", "erasure", "hold", "release", "carried", "pruned"]
ENTRIES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(UNITS), st.sampled_from(ODD)), max_size=12
).map(lambda chosen: [encode(made(k, n, u, o)) for n, (k, u, o) in enumerate(chosen)])


def event_by_event(entries):
    told, newest, seen = Standing(), {}, set()
    for index, data in enumerate(entries):
        event = decode(data)
        told.take(index, event)
        event = original(event)
        unit = getattr(event, "unit_ref", None)
        if unit is not None:
            seen.add(unit)
            if unit.encode() in newest or isinstance(event, Erasure | LegalHold):
                newest[unit.encode()] = index
    return told, newest, seen


@given(ENTRIES, st.lists(st.integers(1, 4), min_size=12, max_size=12), st.integers(0, 12))
def test_by_the_group_it_is_what_it_is_event_by_event(entries, sizes, first):
    groups, rest = [], entries
    for size in sizes:
        groups, rest = ([*groups, rest[:size]] if rest else groups), rest[size:]
    standing = Standing()
    standing.catch_up(Groups(groups[:first]))
    standing.catch_up(Groups(groups))
    told, newest, seen = event_by_event(entries)
    assert standing.erasures == told.erasures
    assert standing.holds == told.holds
    assert standing.pruned == told.pruned
    assert standing.newest == newest
    assert {unit for unit in UNITS if standing.mentions.perhaps(unit)} == seen
