"""From a lime explanation to plain numbers: one weight per feature, and the fit.

Rule: a target whose probability does not move over the whole neighbourhood has no explanation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import ExplainError
from .model import FloatArray

FLAT = 1e-6  # a probability that moves less than this does not move


class Local(NamedTuple):
    """A fitted local model."""

    weights: tuple[float, ...]  # one per feature, in the order of the row
    intercept: float
    fit_r2: float
    surrogate: float  # g(x)
    probability: float  # f(x)


def local_model(
    explainer: Any,
    instance: Any,
    ask: Callable[[Any], FloatArray],
    *,
    target: int,
    samples: int,
    count: int,
    **options: Any,
) -> Local:
    """Run a lime explainer on `instance` for one target, over all `count` features."""
    watched = _Watched(ask, target)
    found = explainer.explain_instance(
        instance, watched, labels=(target,), top_labels=None,
        num_features=count, num_samples=samples, **options,
    )  # fmt: skip
    if watched.spread < FLAT:
        raise ExplainError("flat_prediction", "hiding parts of the row never changes the answer")
    by_feature = dict(found.local_exp[target])
    return Local(
        weights=tuple(float(by_feature.get(i, 0.0)) for i in range(count)),
        intercept=float(found.intercept[target]),
        fit_r2=float(found.score),
        surrogate=float(found.local_pred[0]),
        probability=watched.first,
    )


class _Watched:
    """Passes questions on, remembering f(x) and how much the target moved."""

    def __init__(self, ask: Callable[[Any], FloatArray], target: int) -> None:
        self._ask = ask
        self._target = target
        self._low = math.inf
        self._high = -math.inf
        self._first: float | None = None

    def __call__(self, asked: Any) -> FloatArray:
        answer = self._ask(asked)
        column = answer[:, self._target]
        if self._first is None:  # lime asks about the row itself first
            self._first = float(column[0])
        self._low = min(self._low, float(column.min()))
        self._high = max(self._high, float(column.max()))
        return answer

    @property
    def first(self) -> float:
        return self._first if self._first is not None else math.nan

    @property
    def spread(self) -> float:
        return self._high - self._low
