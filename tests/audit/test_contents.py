"""What a verifier says of entries: which are no event, come twice, or are missing by number."""

import random

import pytest

from audit.complete import check_complete
from audit.completeness import Completeness
from audit.files import OsFiles
from audit.frames import Watermark
from audit.log import Log
from audit.record import Gap, encode
from audit.steps import drive
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, START_US, decision, make_keyring, uuid


def small_log(tmp_path, *entries):
    ring = make_keyring(tmp_path / "keys")
    log = Log.open(tmp_path / "log", ring, origin=ORIGIN)
    drive(log._wal.steps(list(entries), Watermark(0, 16, 0)), OsFiles())
    log.publish()
    log.close()
    return verify_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def gap(number, instance, first, last):
    return encode(
        Gap(
            id=uuid(number + (1 << 40)),
            time_us=START_US,
            instance=instance,
            first_seq=first,
            last_seq=last,
            reason="log_unavailable",
        )
    )


def test_a_missing_number_is_a_problem_and_a_gap_explains_it(tmp_path):
    three = [encode(decision(seq)) for seq in (1, 2, 5)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = small_log(tmp_path / "a", *three)
    assert [str(p) for p in found.problems] == [
        "step 7: instance 0000000a: number 3 to 4 is missing and no gap explains it"
    ]
    assert small_log(tmp_path / "b", *three, gap(1, "0000000a", 3, 4)).ok


def test_a_missing_number_may_be_on_its_way_if_the_caller_says_so(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    small_log(tmp_path, *[encode(decision(seq)) for seq in (1, 3)])
    findings = verify_log(tmp_path / "log", ring.verifier_key(ORIGIN), in_flight_s=60)
    assert findings.ok
    assert any("on its way" in note for note in findings.notes)


YEAR_US = 365 * 86_400 * 1_000_000


@pytest.mark.parametrize("ahead_us", [YEAR_US, -YEAR_US])
def test_a_clock_that_was_wrong_for_a_while_does_not_keep_a_hole_on_its_way(tmp_path, ahead_us):
    ring = make_keyring(tmp_path / "keys")
    wrong = [decision(seq, time_us=START_US + ahead_us + seq) for seq in (1, 3)]
    small_log(tmp_path, *map(encode, [*wrong, decision(4)]))
    key = ring.verifier_key(ORIGIN)
    assert [p.step for p in verify_log(tmp_path / "log", key, in_flight_s=60).problems] == [7]
    assert not check_complete(tmp_path / "log", key, in_flight_s=60).ok


def test_what_is_on_its_way_is_that_also_after_a_clock_was_ahead(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    ahead = decision(1, time_us=START_US + YEAR_US)
    small_log(tmp_path, *map(encode, [ahead, decision(2), decision(4)]))
    key = ring.verifier_key(ORIGIN)
    assert verify_log(tmp_path / "log", key, in_flight_s=60).ok
    assert check_complete(tmp_path / "log", key, in_flight_s=60).ok


def test_a_number_given_twice_is_a_problem(tmp_path):
    twice = [encode(decision(1)), encode(decision(1, id=uuid(77)))]
    found = small_log(tmp_path, *twice)
    assert [(p.step, p.leaf) for p in found.problems] == [(7, 1)]


def test_a_decision_recorded_twice_is_a_problem(tmp_path):
    found = small_log(tmp_path, encode(decision(1)), encode(decision(2, id=decision(1).id)))
    assert [(p.step, p.leaf) for p in found.problems] == [(6, 1)]


@pytest.mark.parametrize(
    "entry",
    [
        b"not json",
        b'{"type": "gap"}',
        b'{"id":"a","schema":1,"time_us":1,"type":"gap"}',
        b'{"schema":1,"time_us":1,"type":"later"}',
        b'{"id":"a","schema":1,"time_us":"noon","type":"later"}',
        b'{"id":"a","schema":1,"time_us":1,"type":7}',
        b'{"id":"a","time_us":1,"type":"later"}',
        encode(decision(1)).replace(b'"seq":1,', b'"seq":0,'),
        encode(decision(1)).replace(b'"seq":1,', b'"seq":"1",'),
        encode(decision(1)).replace(b'"instance":"0000000a"', b'"instance":7'),
    ],
)
def test_an_entry_that_is_no_event_is_named(tmp_path, entry):
    found = small_log(tmp_path, entry)
    assert [(p.step, p.leaf) for p in found.problems if p.step == 6] == [(6, 0)]


def test_an_event_of_a_newer_version_is_noted_and_no_problem(tmp_path):
    found = small_log(tmp_path, b'{"id":"a","schema":3,"time_us":1,"type":"decision"}')
    assert found.ok
    assert any("unknown to this version" in note for note in found.notes)


def test_numbers_may_arrive_in_any_order():
    state = Completeness()
    numbers = list(range(1, 200))
    random.Random(3).shuffle(numbers)
    state.gap("a", 200, 210)
    for number in [*numbers, 211]:
        assert state.decision("a", number, 0)
    assert state.missing() == []
    assert state.instances() == {"a": 211}


def test_a_number_both_recorded_and_refused_is_no_hole():
    state = Completeness()
    assert state.decision("a", 1, 0)
    state.gap("a", 1, 2)
    assert state.decision("a", 3, 0)
    assert state.missing() == []
    assert state.both == [("a", 1)]


def test_a_gap_of_any_size_costs_nothing():
    state = Completeness()
    state.gap("a", 2, 2**52)
    assert state.decision("a", 1, 0)
    assert state.decision("a", 2**52 + 2, 0)
    assert [(m.first, m.last) for m in state.missing()] == [(2**52 + 1, 2**52 + 1)]
