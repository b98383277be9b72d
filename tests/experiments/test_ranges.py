from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import InputError, Range
from experiments.ranges import least_moved, moved, owners, plan, replan

ARMS = ("a", "b", "c", "d")


@st.composite
def weights(draw):
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=3, max_size=3)))
    edges = [0, *cuts, 10_000]
    widths = [b - a for a, b in pairwise(edges)]
    return dict(zip(draw(st.permutations(ARMS)), widths, strict=True))


def test_planned_ranges_follow_the_weights_in_order():
    assert plan({"a": 5000, "b": 0, "c": 5000}) == (Range(0, 4999, "a"), Range(5000, 9999, "c"))


@given(weights(), weights(), weights())
def test_a_replan_gives_the_weights_and_moves_exactly_half_the_change(first, second, third):
    before = plan(first)
    for old, new in ((first, second), (second, third)):
        after = replan(before, new)
        assert Counter(owners(after)) == Counter({k: v for k, v in new.items() if v})
        assert moved(before, after) == least_moved(old, new)
        assert replan(before, new) == after
        before = after


@given(weights())
def test_the_same_weights_move_nothing(first):
    assert replan(plan(first), first) == plan(first)


def test_arms_may_come_and_go():
    before = plan({"a": 5000, "b": 5000})
    after = replan(before, {"a": 5000, "c": 5000})
    assert after == (Range(0, 4999, "a"), Range(5000, 9999, "c"))


def test_three_arms_move_less_than_contiguous_ranges_would():
    old = {"a": 3300, "b": 3300, "c": 3400}
    new = {"a": 1000, "b": 3300, "c": 5700}
    assert moved(plan(old), replan(plan(old), new)) == 2300
    assert moved(plan(old), plan(new)) == 4600


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([], "gap at bucket 0"),
        ([Range(0, 9998, "a")], "gap at bucket 9999"),
        ([Range(0, 5000, "a"), Range(5000, 9999, "b")], "overlap at bucket 5000"),
        ([Range(0, 4998, "a"), Range(5000, 9999, "b")], "gap at bucket 4999"),
        ([Range(0, 10_000, "a")], "not within"),
        ([Range(0, 4, "a"), Range(5, 3, "b")], "not within"),
    ],
)
def test_ranges_that_do_not_tile_are_refused(ranges, problem):
    with pytest.raises(InputError, match=problem):
        owners(ranges)


@pytest.mark.parametrize("bad", [{"a": 9999}, {"a": -1, "b": 10_001}, {}])
def test_weights_that_are_no_split_are_refused(bad):
    with pytest.raises(InputError, match="weights"):
        plan(bad)
