"""Ids that say which process made them: UUIDv7, never twice, in the order of their making."""

import uuid
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from audit.nodeids import NodeIds
from audit.record import id_time_us
from tests.audit.worlds import START_US


def test_an_id_is_a_uuid_of_version_7_that_holds_its_time() -> None:
    made = NodeIds(clock=lambda: START_US + 7, random=lambda n: b"\xff" * n).new()
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert id_time_us(made) == START_US // 1000 * 1000
    assert made == str(parsed)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=300))
def test_none_is_made_twice_and_they_sort_as_they_were_made(steps) -> None:
    """Even if the random bits were always the same, and many are made within a microsecond."""
    now = [START_US]
    ids = NodeIds(clock=lambda: now[0], random=bytes)
    made = []
    for step in steps:
        now[0] += step // 10
        made.append(ids.new())
    assert len(set(made)) == len(made)
    assert made == sorted(made)


def test_a_clock_that_is_set_back_is_followed() -> None:
    hours = iter([5, 5, 1, 1])
    ids = NodeIds(clock=lambda: START_US + next(hours) * 3_600_000_000)
    times = [id_time_us(ids.new()) for _ in range(4)]
    assert [round((time - START_US) / 3.6e9) for time in times] == [5, 5, 1, 1]


def test_a_process_knows_its_own() -> None:
    numbers = count(1)
    one, other = (NodeIds(random=lambda n: next(numbers).to_bytes(n, "big")) for _ in range(2))
    assert one.made(one.new())
    assert not one.made(other.new())
    assert not one.made(one.new()[:-1] + "g")
