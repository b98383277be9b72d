"""What the log says of subjects: reading it by the group finds what reading each event would."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import mentions
from audit.bundle import Bundle
from audit.events import Carried, Erasure, LegalHold, Pruned
from audit.record import decode, encode, original
from audit.standing import Standing
from tests.audit.worlds import START_US, decision, uuid

UNITS = [unit * 16 for unit in ("aa", "bb", "cc")]
ODD = ['"type":"erasure"', '"type":"decision","unit_ref":"', "\\", "ü", ""]


class Groups:
    """A log that holds these groups."""

    def __init__(self, groups):
        self.groups = groups
        self.read = 0

    def first(self):
        return 0

    def size(self):
        return sum(map(len, self.groups))

    def raw(self, start, end):
        leaves = [data for group in self.groups for data in group]
        return list(enumerate(leaves))[start:end]

    def bundles(self, start, end):
        assert end == self.size()
        self.read += end - start
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
        found = decode(data)
        told.take(index, found)
        event = original(found)
        unit = getattr(event, "unit_ref", None)
        if unit is not None:
            seen.add(unit)
            if isinstance(event, Erasure | LegalHold):
                newest.setdefault(unit.encode(), index)
            if unit.encode() in newest and not isinstance(found, Carried):
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
    assert standing.erased_at == told.erased_at
    assert standing.holds == told.holds
    assert standing.pruned == told.pruned
    assert standing.newest == newest
    assert {unit for unit in UNITS if standing.mentions.perhaps(unit)} == seen


@pytest.mark.parametrize("ids", [(1, 2, 3), (2, 1, 3), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("pruned", [False, True])
def test_a_release_ends_the_hold_that_was_recorded_first_whatever_the_clock_said(ids, pruned):
    one, two, release = ids
    first, second = hold(one, UNITS[0], "one", "hold"), hold(two, UNITS[0], "two", "hold")
    log = {0: first, 300: second}
    if pruned:
        log = {300: second, 301: carried(9, first)}
    told = Standing()
    for leaf, event in (log | {400: hold(release, UNITS[0], "is over", "release")}).items():
        told.take(leaf, event)
    assert [*told.holds[UNITS[0]].values()] == [second]
    assert told.same_from(200) == pruned  # else the release would seem to end the second
    assert told.same_from(400)


def same(one, other):
    assert one.erasures == other.erasures
    assert one.erased_at == other.erased_at
    assert one.holds == other.holds
    assert one.pruned == other.pruned
    assert one.newest == other.newest
    asked = [*UNITS, "00" * 16]
    assert [*map(one.mentions.perhaps, asked)] == [*map(other.mentions.perhaps, asked)]


def read_whole(groups):
    standing = Standing()
    standing.catch_up(Groups(groups))
    return standing


@pytest.fixture(autouse=True)
def few_bits(monkeypatch):
    """32 KiB of mentions in place of 32 MiB."""
    monkeypatch.setattr(mentions, "_BITS", 18)
    monkeypatch.setattr(mentions, "_MASK", (1 << 18) - 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES, st.lists(st.booleans(), min_size=12, max_size=12))
def test_over_restarts_it_is_what_it_is_without_and_nothing_is_read_twice(
    tmp_path_factory, entries, restarts
):
    file = tmp_path_factory.mktemp("standing") / "standing"
    standing, read = Standing(file), 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("audit.standing._KEEP_AFTER", 1)
        for end, restart in zip(range(1, len(entries) + 1), restarts, strict=False):
            standing = Standing(file) if restart else standing
            log = Groups([[data] for data in entries[:end]])
            standing.catch_up(log)
            read += log.read
            same(standing, read_whole(log.groups))
    assert read == len(entries)
    assert not file.exists() or file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Groups, and the file that was written when they were read."""
    monkeypatch.setattr("audit.standing._KEEP_AFTER", 2)
    entries = [encode(made(kind, n, UNITS[n % 3], "")) for n, kind in enumerate(KINDS * 2)]
    groups = [entries[:5], entries[5:]]
    Standing(tmp_path / "standing").catch_up(Groups(groups))
    return groups, tmp_path / "standing"


@pytest.mark.parametrize("size", [0, 7, 8, 41, 60, 300])
def test_a_file_that_was_cut_is_passed_over_and_made_again(kept, size) -> None:
    groups, file = kept
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    standing = Standing(file)
    standing.catch_up(Groups(groups))
    same(standing, read_whole(groups))
    assert file.read_bytes() == whole


def test_so_is_one_with_any_byte_changed_and_one_of_another_log(kept) -> None:
    groups, file = kept
    whole = file.read_bytes()
    for place in range(0, len(whole), 41):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        log = Groups(groups)
        Standing(file).catch_up(log)
        assert log.read == log.size()
    file.write_bytes(whole)
    for other in ([groups[0]], [groups[0], groups[1][::-1]]):
        standing = Standing(file)
        standing.catch_up(Groups(other))
        same(standing, read_whole(other))
        file.write_bytes(whole)


def test_what_was_pruned_leaves_no_text_in_it(kept, monkeypatch) -> None:
    groups, file = kept
    assert b'"reason"' in file.read_bytes().replace(b"\\", b"")
    standing, log = Standing(file), Groups(groups)
    standing.catch_up(log)
    more = [encode(decision(100 + n, unit_ref=UNITS[0])) for n in range(4)]
    pruned_log = Groups([*groups, more])
    monkeypatch.setattr(pruned_log, "first", log.size)
    standing.catch_up(pruned_log)
    assert b'"reason' not in file.read_bytes().replace(b"\\", b"")
    again = Standing(file)
    again.catch_up(pruned_log)
    assert not again.erasures


def test_where_it_cannot_be_written_the_log_is_read(tmp_path, kept) -> None:
    groups, _ = kept
    standing = Standing(tmp_path / "nowhere" / "standing")
    standing.catch_up(Groups(groups))
    same(standing, read_whole(groups))
