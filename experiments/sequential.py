"""Intervals that stay valid however often one looks.

Implements the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences" (arXiv 2103.06476),
Theorem 2.2, for an estimate with a standard error, and its use for the difference of two
randomised arms (section 3: the difference of means is asymptotically linear).
Rule: pure functions of the data so far. "Asymptotic" is meant: below `MINIMUM` units in an arm
the answer is None, insufficient evidence, and not a number.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from .errors import InputError

FloatArray = NDArray[np.float64]
MINIMUM = 30  # units an arm needs before an asymptotic interval means anything
TUNED_FOR = 1_000  # units at which the interval is tightest; any value is valid


class Interval(NamedTuple):
    """`low <= estimate <= high`, at confidence 1 - alpha."""

    low: float
    high: float


class Moments(NamedTuple):
    """Size, mean and variance of an arm's values."""

    n: int
    mean: float
    variance: float


def rho_squared(*, tuned_for: int, alpha: float) -> float:
    """The mixture parameter whose boundary is tightest at `tuned_for` units (appendix B.2).

    With u = n rho^2 + 1, the boundary is least where log(u / alpha^2) = u - 1, which is
    u = -W(-alpha^2 / e) on the lower branch of Lambert's W.
    """
    _check_alpha(alpha)
    u = -float(special.lambertw(-(alpha**2) / math.e, -1).real)
    return (u - 1.0) / tuned_for


def boundary(n: int, *, alpha: float, rho2: float) -> float:
    """How many standard errors the interval reaches to each side after `n` units.

    This is sqrt((n rho^2 + 1) / (n rho^2) * log((n rho^2 + 1) / alpha^2)), Theorem 2.2 with the
    standard error sigma / sqrt(n) taken out.
    """
    _check_alpha(alpha)
    scaled = n * rho2
    return math.sqrt((scaled + 1.0) / scaled * math.log((scaled + 1.0) / alpha**2))


def confidence_sequence(
    x: FloatArray, *, alpha: float = 0.05, tuned_for: int = TUNED_FOR
) -> Interval | None:
    """Time-uniform interval for the mean of `x`, valid at every stopping time.

    Args:
        x: one value per unit, shape (n,), in order of arrival.
        alpha: total error over all looks, 0 < alpha < 1.
        tuned_for: the n at which the interval is tightest; fixed before looking.

    Returns:
        The interval in the units of `x`, or None below `MINIMUM` values; O(n).

    Raises:
        InputError: a value is not finite, or alpha is outside (0, 1).

    Source: arXiv 2103.06476, Theorem 2.2.
    """
    m = moments(x, bounded=False)
    if m.n < MINIMUM:
        return None
    reach = boundary(m.n, alpha=alpha, rho2=rho_squared(tuned_for=tuned_for, alpha=alpha))
    half = reach * math.sqrt(m.variance / m.n)
    return Interval(m.mean - half, m.mean + half)


def difference_sequence(
    treatment: FloatArray,
    control: FloatArray,
    *,
    alpha: float = 0.05,
    tuned_for: int = TUNED_FOR,
) -> Interval | None:
    """Time-uniform interval for mean(treatment) - mean(control), values in [0, 1].

    Returns:
        The interval, cut to [-1, 1], or None while an arm has fewer than `MINIMUM` values.

    Raises:
        InputError: a value is not finite or lies outside [0, 1].

    Source: arXiv 2103.06476, Theorem 2.2 and section 3, n = n1 + n0 units. The variances are
    smoothed by one imagined 0 and one imagined 1, which vanishes as n grows and keeps an arm
    without a single failure from claiming certainty.
    """
    one, two = moments(treatment, bounded=True), moments(control, bounded=True)
    if min(one.n, two.n) < MINIMUM:
        return None
    n = one.n + two.n
    reach = boundary(n, alpha=alpha, rho2=rho_squared(tuned_for=tuned_for, alpha=alpha))
    half = reach * math.sqrt(one.variance / one.n + two.variance / two.n)
    return _around(one.mean - two.mean, half)


def fixed_horizon(
    treatment: FloatArray, control: FloatArray, *, alpha: float = 0.05
) -> Interval | None:
    """Welch's interval for the difference: right only if n was fixed beforehand.

    Not for stopping: looked at again and again it will exclude the truth sooner or later.

    Source: B. L. Welch (1947), Biometrika 34, 28-35; values in [0, 1], smoothed as above.
    """
    _check_alpha(alpha)
    one, two = moments(treatment, bounded=True), moments(control, bounded=True)
    if min(one.n, two.n) < MINIMUM:
        return None
    a, b = one.variance / one.n, two.variance / two.n
    freedom = (a + b) ** 2 / (a**2 / (one.n - 1) + b**2 / (two.n - 1))
    half = float(stats.t.ppf(1.0 - alpha / 2.0, freedom)) * math.sqrt(a + b)
    return _around(one.mean - two.mean, half)


def moments(x: FloatArray, *, bounded: bool) -> Moments:
    """Size, mean and variance; with `bounded`, values are in [0, 1] and the variance smoothed.

    Raises:
        InputError: a value is not finite, or outside [0, 1] where that was promised.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("values must be finite numbers in one dimension")
    if not bounded:
        return Moments(values.size, float(values.mean()) if values.size else math.nan,
                       float(values.var()) if values.size else math.nan)  # fmt: skip
    if ((values < 0) | (values > 1)).any():
        raise InputError("values must lie in [0, 1]")
    padded = np.concatenate([values, [0.0, 1.0]])
    mean = float(values.mean()) if values.size else math.nan
    return Moments(values.size, mean, float(padded.var()))


def _around(middle: float, half: float) -> Interval:
    return Interval(max(-1.0, middle - half), min(1.0, middle + half))


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha must be between 0 and 1, not {alpha}")
