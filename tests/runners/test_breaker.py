"""The breaker: opens after failures in a row, lets one call try, and comes back."""

from hypothesis import given
from hypothesis import strategies as st

from runners.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock, limit=3, cool_s=2, longest_s=7)
    for _ in range(3):
        assert breaker.admit()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not() -> None:
    breaker = Breaker(Clock(), limit=3)
    for ends in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        assert breaker.admit()
        ends()
    assert breaker.state == "closed"
    breaker.failed()
    assert (breaker.state, breaker.admit()) == ("open", False)


def test_one_call_tries_when_it_has_cooled() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 1.9
    assert not breaker.admit()
    clock.now = 2.0
    assert (breaker.state, breaker.admit(), breaker.admit()) == ("half-open", True, False)
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.admit()


def test_a_failed_try_waits_twice_as_long_up_to_a_limit() -> None:
    clock = Clock()
    breaker = opened(clock)
    for wait in (2, 4, 7, 7):
        clock.now += wait - 0.1
        assert not breaker.admit()
        clock.now += 0.1
        assert breaker.admit()
        breaker.failed()


def test_a_caller_who_leaves_hands_the_try_on() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 2
    assert breaker.admit()
    breaker.dropped()
    assert breaker.admit()


@given(st.lists(st.sampled_from(["ok", "bad", "gone", "wait"]), max_size=60))
def test_it_is_never_stuck(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock, limit=2, cool_s=1, longest_s=4)
    for step in steps:
        if step == "wait":
            clock.now += 1
        elif breaker.admit():
            {"ok": breaker.succeeded, "bad": breaker.failed, "gone": breaker.dropped}[step]()
    clock.now += 4
    assert breaker.admit(), "after the longest wait somebody may try"
