from fractions import Fraction
from math import exp, prod

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from experiments import InputError
from experiments.srm import log_e_path, srm


def closed_form(counts, shares, concentration):
    """Lindon & Malek (2022), equation 9: the ratio of Dirichlet normalisers."""
    a, n, s = concentration * np.array(shares), np.array(counts), np.array(shares)
    return (
        gammaln(a.sum()) - gammaln(a.sum() + n.sum()) + (gammaln(a + n) - gammaln(a)).sum()
        - (n * np.log(s)).sum()
    )  # fmt: skip


def test_the_path_ends_at_the_closed_form():
    rng = np.random.default_rng(0)
    shares = np.array([0.2, 0.3, 0.5])
    arms = rng.choice(3, 500, p=[0.25, 0.25, 0.5])
    path = log_e_path(arms, shares, 50.0)
    for n in (1, 2, 17, 500):
        counts = np.bincount(arms[:n], minlength=3)
        assert path[n - 1] == pytest.approx(closed_form(counts, shares, 50.0), abs=1e-9)


def test_a_small_case_in_exact_fractions():
    # concentration 2 on halves is a uniform prior: E(3 zeros) = (1/2 * 2/3 * 3/4) / (1/2)^3 = 2
    expected = prod([Fraction(1, 2), Fraction(2, 3), Fraction(3, 4)]) / Fraction(1, 8)
    assert expected == 2
    found = srm([0, 0, 0], [0.5, 0.5], concentration=2.0)
    assert exp(found.log_e) == pytest.approx(2.0)
    assert found.p_value == pytest.approx(0.5)
    assert (found.counts, found.expected) == ((3, 0), (1.5, 1.5))


def test_the_e_value_is_a_martingale_under_the_null():
    shares = np.array([0.3, 0.7])
    for history in ([], [0], [1, 1, 0], [0] * 9):
        before = log_e_path(np.array(history, dtype=int), shares, 5.0)
        start = exp(before[-1]) if history else 1.0
        after = [exp(log_e_path(np.array([*history, k]), shares, 5.0)[-1]) for k in (0, 1)]
        assert float(shares @ after) == pytest.approx(start)


def test_the_p_value_keeps_the_worst_look():
    arms = [0] * 60 + [1] * 60
    found = srm(arms, [0.5, 0.5], concentration=2.0)
    assert found.log_e < 0
    assert found.p_value < 1e-6
    assert found.verdict == "mismatch"


def test_an_even_split_is_ok_and_nothing_is_no_data():
    assert srm([0, 1] * 500, [0.5, 0.5]).verdict == "ok"
    empty = srm([], [0.5, 0.5])
    assert (empty.verdict, empty.p_value, empty.counts) == ("no_data", 1.0, (0, 0))


def test_a_lost_tenth_of_one_arm_is_found():
    rng = np.random.default_rng(3)
    arms = rng.choice(2, 20_000, p=[0.4737, 0.5263])
    assert srm(arms, [0.5, 0.5]).verdict == "mismatch"


def test_false_alarms_stay_below_alpha_over_all_looks():
    rng = np.random.default_rng(4)
    alarms = sum(
        srm(rng.integers(0, 2, 2000), [0.5, 0.5], alpha=0.05).verdict == "mismatch"
        for _ in range(400)
    )
    assert stats.binom.sf(alarms - 1, 400, 0.05) > 1e-6


@pytest.mark.parametrize(
    ("arms", "shares"), [([0], [0.5, 0.6]), ([0], [1.0, 0.0]), ([2], [0.5, 0.5]), ([0], [])]
)
def test_impossible_input_is_refused(arms, shares):
    with pytest.raises(InputError):
        srm(arms, shares)
