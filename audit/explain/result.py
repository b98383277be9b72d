"""What an explanation says: public figures for the log, and a private body.

Rule: `summary()` holds no personal data and goes into the `explanation` event; `body()` holds the
row's words, values or pixels and is stored encrypted. Cost is in the summary only, so that the
body of a replay is equal byte for byte; weights are rounded to six significant digits there,
far above what a different summation order could change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..canonical import decimal, dumps

SCHEMA = 1
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Feature:
    """One part of the row and its weight towards the target label.

    `weight` is in probability: hiding the part lowers the target's probability by about that much.
    """

    name: str  # "superpixel 7", the word, "age"
    value: str  # "" for a superpixel, the word, the raw value
    condition: str  # what the weight is about: "age <= 28", the word, "ink here"
    weight: float
    spans: tuple[tuple[int, int], ...] = ()  # text only: character positions [start, end)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A local linear model around one row, and how far it can be trusted."""

    kind: str  # "image" | "text" | "table"
    explainer: str  # "lime-image", ...
    explainer_version: str
    target: int
    target_label: str
    seed: int
    samples: int
    probability: float  # f(x), the model's probability of the target
    surrogate: float  # g(x), the local model's
    intercept: float
    fit_r2: float  # weighted R squared over the samples, at most 1
    local_error: float  # |g(x) - f(x)|
    low_fit: bool
    cost_ms: int
    features: tuple[Feature, ...]  # in the order of the row
    details: Mapping[str, Any] = field(default_factory=dict)  # plain JSON for the drawing

    @property
    def reasons(self) -> tuple[Feature, ...]:
        """The features by falling absolute weight; none when the fit is low."""
        if self.low_fit:
            return ()
        return tuple(sorted(self.features, key=lambda f: -abs(f.weight)))

    def summary(self) -> dict[str, Any]:
        """The explainer's fields of the `explanation` event; no personal data."""
        return {
            "kind": self.kind,
            "target_label": self.target_label,
            "explainer": self.explainer,
            "explainer_version": self.explainer_version,
            "seed": str(self.seed),
            "samples": self.samples,
            "fit_r2": rounded(self.fit_r2),
            "local_error": rounded(self.local_error),
            "stability": None,
            "cost_ms": self.cost_ms,
            "low_fit": self.low_fit,
            "n_features": len(self.features),
        }

    def body(self) -> bytes:
        """Canonical JSON with words, values or pixels: to be stored encrypted."""
        public = self.summary()
        del public["cost_ms"]
        return dumps(
            public
            | {
                "schema": SCHEMA,
                "target": self.target,
                "probability": rounded(self.probability),
                "surrogate": rounded(self.surrogate),
                "intercept": rounded(self.intercept),
                "features": [_feature(f) for f in self.features],
                "reasons": [self.features.index(f) for f in self.reasons],
                "details": dict(self.details),
            }
        )


def _feature(feature: Feature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "value": feature.value,
        "condition": feature.condition,
        "weight": rounded(feature.weight),
        "spans": [list(span) for span in feature.spans],
    }


def rounded(number: float) -> str:
    """Six significant digits as the shortest decimal text; "0" for what is nothing."""
    value = float(f"{number:.{DIGITS}g}")
    return decimal(0.0 if abs(value) < 1e-9 else value)  # dust of the arithmetic
