"""Token buckets and places: the laws, with a clock in hand."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.access.limits import Concurrency, RateLimits, parse_concurrency
from services.access.principal import ANONYMOUS, Principal, Rate
from services.faults import RateLimited

NOBODY: frozenset = frozenset()


def admitted(limits: RateLimits, who: Principal = ANONYMOUS) -> bool:
    try:
        limits.take(who)
    except RateLimited as refused:
        wait = refused.retry_after_s
    else:
        return True
    assert wait is not None
    assert 1 <= wait <= 3600
    return False


STEPS = st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200)
RATES = st.floats(0.01, 1000, allow_nan=False)


@given(RATES, st.integers(1, 20), STEPS)
def test_a_bucket_never_gives_more_than_its_rate_and_burst(per_s, burst, steps) -> None:
    """In every interval of the run, not only from its start."""
    now = [0.0]
    limits = RateLimits(Rate(per_s, burst), clock=lambda: now[0])
    times = []
    for step in steps:
        now[0] += step
        if admitted(limits):
            times.append(now[0])
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            count, span = last - first + 1, times[last] - begin
            assert count <= per_s * span + burst + 1e-6 * (1 + per_s)


@given(RATES, st.integers(1, 20), STEPS)
def test_a_bucket_never_gives_less_than_a_plain_one_would(per_s, burst, steps) -> None:
    """The same decisions as a bucket that counts tokens, wherever rounding does not decide."""
    now, tokens, before = [0.0], float(burst), 0.0
    limits = RateLimits(Rate(per_s, burst), clock=lambda: now[0])
    for step in steps:
        now[0] += step
        tokens = min(float(burst), tokens + (now[0] - before) * per_s)
        before = now[0]
        found = admitted(limits)
        if abs(tokens - 1) > 1e-6 * (1 + per_s):
            assert found == (tokens > 1)
        tokens -= found


def test_after_the_named_wait_a_call_passes() -> None:
    now = [0.0]
    limits = RateLimits(Rate(0.1, 2), clock=lambda: now[0])
    assert admitted(limits)
    assert admitted(limits)
    with pytest.raises(RateLimited) as found:
        limits.take(ANONYMOUS)
    assert found.value.retry_after_s == 10
    now[0] += 10
    assert admitted(limits)
    assert not admitted(limits)


def test_principals_do_not_share_and_may_have_their_own() -> None:
    limits = RateLimits(Rate(1, 1), clock=lambda: 0.0)
    alice, bob = Principal("key:a", NOBODY), Principal("key:b", NOBODY, Rate(1, 3))
    assert [admitted(limits, alice) for _ in range(2)] == [True, False]
    assert [admitted(limits, bob) for _ in range(4)] == [True, True, True, False]


def test_no_limit_remembers_nobody() -> None:
    limits = RateLimits()
    assert all(admitted(limits, Principal(f"key:{n}", NOBODY)) for n in range(100))
    assert limits.size == 0


def test_the_memory_of_principals_is_bounded_and_keeps_the_busy_ones() -> None:
    limits = RateLimits(Rate(0.001, 1), clock=lambda: 0.0, remembered=10)
    busy = Principal("key:busy", NOBODY, Rate(0.001, 1000))
    for number in range(100):
        assert admitted(limits, busy)
        assert admitted(limits, Principal(f"key:{number}", NOBODY))
        assert limits.size <= 10
    limits.take(busy._replace(rate=Rate(0.001, 101)))
    assert not admitted(limits, busy._replace(rate=Rate(0.001, 101)))


def test_places_are_given_back_whatever_happens() -> None:
    limits = Concurrency({"m": 2})
    with limits.place("m"), limits.place("m"):
        with pytest.raises(RateLimited, match="2 calls at once"), limits.place("m"):
            pass
        with limits.place("other"), limits.place("other"), limits.place("other"):
            pass
    for _ in range(3):
        with pytest.raises(KeyError), limits.place("m"):
            raise KeyError
        with (
            limits.place("m"),
            limits.place("m"),
            pytest.raises(RateLimited),
            limits.place("m"),
        ):
            pass


async def test_a_cancelled_call_gives_its_place_back() -> None:
    limits = Concurrency({"m": 1})

    async def call() -> None:
        with limits.place("m"):
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(call()) for _ in range(8)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(item, asyncio.CancelledError) for item in found) == 1
    assert sum(isinstance(item, RateLimited) for item in found) == 7
    with limits.place("m"):
        pass


def test_limits_are_written_as_a_list() -> None:
    assert parse_concurrency("") == {}
    assert parse_concurrency(" income = 64 , digits=8, ") == {"income": 64, "digits": 8}


@pytest.mark.parametrize("text", ["income", "=3", "a=0", "a=-1", "a=x", "a=1=2", "a=1,a=2", "a=٣"])
def test_a_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_concurrency(text)
