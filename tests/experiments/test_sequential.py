import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from experiments import InputError
from experiments.sequential import (
    MINIMUM,
    boundary,
    confidence_sequence,
    difference_sequence,
    fixed_horizon,
    moments,
    rho_squared,
)

GOLD = json.loads(
    (Path(__file__).parents[1] / "vectors" / "confidence_sequences.json").read_text("utf-8")
)


def ones(count, n):
    return np.r_[np.ones(count), np.zeros(n - count)]


def test_rho_is_where_the_boundary_is_tightest():
    rho2 = rho_squared(tuned_for=1000, alpha=0.05)
    assert rho2 == pytest.approx(GOLD["rho2"]["value"], rel=1e-12)
    best = optimize.minimize_scalar(
        lambda r: boundary(1000, alpha=0.05, rho2=r), bounds=(1e-4, 1), method="bounded",
        options={"xatol": 1e-12},
    )  # fmt: skip
    assert rho2 == pytest.approx(best.x, rel=1e-4)


def test_the_mean_interval_has_the_golden_width():
    gold = GOLD["mean"]
    found = confidence_sequence(ones(gold["ones"], gold["n"]), alpha=gold["alpha"])
    rho2 = rho_squared(tuned_for=1000, alpha=0.05)
    assert boundary(400, alpha=0.05, rho2=rho2) == pytest.approx(gold["boundary"], abs=1e-11)
    assert found.high - 0.55 == pytest.approx(gold["half"], abs=1e-11)
    assert 0.55 - found.low == pytest.approx(gold["half"], abs=1e-11)


def test_the_difference_interval_has_the_golden_ends():
    gold = GOLD["difference"]
    found = difference_sequence(ones(*gold["treatment"]), ones(*gold["control"]))
    assert found == pytest.approx((gold["low"], gold["high"]), abs=1e-11)


def test_the_fixed_interval_is_welchs_on_the_smoothed_variances():
    a, b = ones(180, 200), ones(160, 200)
    # ttest_ind_from_stats wants the sample deviation: statistic and p-value give its interval back
    spread = [moments(x, bounded=True).variance ** 0.5 for x in (a, b)]
    found = fixed_horizon(a, b)
    for end in found:
        test = stats.ttest_ind_from_stats(
            0.9 - end, spread[0], 200, 0.8, spread[1], 200, equal_var=False
        )
        assert test.pvalue == pytest.approx(0.05, abs=1e-9)


def test_looking_often_costs_width_but_not_much():
    found = difference_sequence(ones(180, 200), ones(160, 200))
    fixed = fixed_horizon(ones(180, 200), ones(160, 200))
    assert 1.3 < (found.high - found.low) / (fixed.high - fixed.low) < 1.7


def test_too_few_units_are_insufficient_evidence():
    few, many = ones(20, MINIMUM - 1), ones(20, MINIMUM)
    assert difference_sequence(few, many) is None
    assert fixed_horizon(many, few) is None
    assert confidence_sequence(few) is None
    assert difference_sequence(many, many) is not None


def test_an_arm_without_a_failure_claims_no_certainty():
    found = difference_sequence(np.ones(40), np.ones(40))
    assert found.low < -0.05
    assert found.high > 0.05


@pytest.mark.parametrize("bad", [[0.5, np.nan], [0.2, 1.5], [-0.1], [[0.1]]])
def test_values_outside_their_domain_are_refused(bad):
    with pytest.raises(InputError):
        difference_sequence(np.array(bad), np.ones(40))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(InputError, match="alpha"):
        difference_sequence(np.ones(40), np.ones(40), alpha=alpha)


def ever_excluded(rng, runs, n, interval):
    """How many of `runs` equal-armed experiments exclude 0 at any of many looks."""
    looks = np.unique(np.geomspace(MINIMUM, n, 60).astype(int))
    wrong = 0
    for _ in range(runs):
        a, b = (rng.random((2, n)) < 0.3).astype(float)
        found = (interval(a[:k], b[:k]) for k in looks)
        wrong += any(f.low > 0 or f.high < 0 for f in found)
    return wrong


def test_peeking_does_not_exclude_the_truth_too_often():
    wrong = ever_excluded(np.random.default_rng(1), 120, 2000, difference_sequence)
    assert stats.binom.sf(wrong - 1, 120, 0.05) > 1e-6


@pytest.mark.slow
def test_coverage_over_all_looks_is_at_least_nominal_and_fixed_intervals_fail():
    rng = np.random.default_rng(2)
    runs = 2000
    wrong = ever_excluded(rng, runs, 5000, difference_sequence)
    assert stats.binom.sf(wrong - 1, runs, 0.05) > 1e-6
    fixed = ever_excluded(rng, runs, 5000, fixed_horizon)
    assert stats.binom.sf(fixed - 1, runs, 0.05) < 1e-6  # why it is labelled "not for stopping"
