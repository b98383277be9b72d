"""Sample ratio mismatch: do the arms get the shares they were promised?

Implements the sequential multinomial test of Lindon & Malek, "Anytime-Valid Inference for
Multinomial Count Data", NeurIPS 2022 (arXiv 2011.03567), section 3: the Bayes factor of a
Dirichlet(concentration * shares) mixture against the promised shares is a nonnegative martingale
under the null, so 1 / (its running maximum) is a p-value at every look.
Rule: counts units, not requests, in the order in which they were first exposed.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

CONCENTRATION = 1_000.0  # prior units; large values look for small departures
ALPHA = 0.001  # a mismatch voids the comparison, so the alarm is a strict one


class Srm(NamedTuple):
    """The verdict on the split of one epoch."""

    counts: tuple[int, ...]  # units per arm
    expected: tuple[float, ...]  # units per arm, by the promised shares
    log_e: float  # natural logarithm of the e-value now
    p_value: float  # anytime-valid, 0..1
    alpha: float
    verdict: Literal["ok", "mismatch", "no_data"]


def srm(
    arms: Sequence[int] | NDArray[np.int64],
    shares: Sequence[float],
    *,
    alpha: float = ALPHA,
    concentration: float = CONCENTRATION,
) -> Srm:
    """Test the split after every unit at once.

    Args:
        arms: the arm index of each unit, in order of first exposure, shape (n,).
        shares: the promised probability of each arm; > 0, sum 1.
        alpha: a p-value at or below it is a mismatch.
        concentration: weight of the prior around `shares`, in units; > 0.

    Returns:
        `Srm`; O(n) time and memory.

    Raises:
        InputError: shares are not a distribution, or an arm index is not one of theirs.

    >>> srm([0] * 600 + [1] * 400, [0.5, 0.5]).verdict
    'mismatch'
    """
    share = np.asarray(shares, dtype=np.float64)
    index = np.asarray(arms, dtype=np.int64)
    if share.size == 0 or (share <= 0).any() or not np.isclose(share.sum(), 1.0):
        raise InputError(f"shares must be positive and sum to 1: {list(shares)}")
    if index.size and (index.min() < 0 or index.max() >= share.size):
        raise InputError(f"arm indices must be within 0..{share.size - 1}")
    counts = np.bincount(index, minlength=share.size)
    expected = tuple(float(e) for e in share * index.size)
    steps = log_e_path(index, share, concentration)
    p_value = float(np.exp(-max(0.0, steps.max()))) if steps.size else 1.0
    verdict: Literal["ok", "mismatch", "no_data"] = "mismatch" if p_value <= alpha else "ok"
    return Srm(
        counts=tuple(int(c) for c in counts),
        expected=expected,
        log_e=float(steps[-1]) if steps.size else 0.0,
        p_value=p_value,
        alpha=alpha,
        verdict=verdict if index.size else "no_data",
    )


def log_e_path(
    index: NDArray[np.int64], share: NDArray[np.float64], concentration: float
) -> NDArray[np.float64]:
    """The logarithm of the e-value after each unit, shape (n,).

    Each step multiplies by (posterior predictive of the arm seen) / (its promised share), which
    telescopes to the ratio of Dirichlet normalisers of the paper.
    """
    n = index.size
    before = np.empty(n, dtype=np.float64)  # units of the same arm seen before this one
    for arm in range(share.size):
        here = index == arm
        before[here] = np.arange(int(here.sum()))
    predictive = (concentration * share[index] + before) / (concentration + np.arange(n))
    return np.cumsum(np.log(predictive) - np.log(share[index]))
