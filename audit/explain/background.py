"""background.json: what a table's columns usually hold, without a single raw row.

Form, as runners/reference writes it: {"inputs": [...]} in the order of the model's inputs, each
    {"name", "quantiles": {"0": minimum, "5": ..., "50": median, ..., "100": maximum}}
    {"name", "values": [...], "frequencies": [...]}
    {"name", "id": true, ...}   - an identifier: held fixed, never a reason
Also read: "inputs" as a map from name to the rest; quantiles keyed by probabilities up to 1, or a
list at even steps; values as a map to frequencies. What is neither kind of column is held fixed.
Rule: `pseudo_column` turns statistics into a small column with the same distribution, so that
stock lime can be built from it; no row of it is a person's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import ExplainError
from .model import FloatArray

PSEUDO_ROWS = 1_001  # steps of 0.001, ends included, so that quarters are hit exactly
OWN_SHARE = 0.5  # a row's own category is drawn at least this often, however rare it is


class Numeric(NamedTuple):
    """A numeric input."""

    name: str
    probabilities: tuple[float, ...]  # rising, from 0 to 1
    quantiles: tuple[float, ...]  # beside them

    def pseudo_column(self) -> FloatArray:
        """`PSEUDO_ROWS` values at evenly spaced probabilities."""
        at = np.arange(PSEUDO_ROWS) / (PSEUDO_ROWS - 1)
        return np.interp(at, self.probabilities, self.quantiles)


class Categorical(NamedTuple):
    """A categorical input."""

    name: str
    values: tuple[str, ...]
    frequencies: tuple[float, ...]  # beside them, sum 1

    def around(self, own: str) -> "Categorical":
        """The same input with `own` among its values, at least `OWN_SHARE` of the draws."""
        share = dict(zip(self.values, self.frequencies, strict=True))
        before = share.get(own, 0.0)
        if before >= OWN_SHARE:
            return self
        others = (1.0 - OWN_SHARE) / (1.0 - before)
        share = {v: f * others for v, f in share.items()} | {own: OWN_SHARE}
        return Categorical(self.name, tuple(share), tuple(share.values()))

    def pseudo_column(self) -> FloatArray:
        """`PSEUDO_ROWS` indices into `values`, by largest remainders; each value once at least."""
        exact = np.array(self.frequencies) / sum(self.frequencies) * PSEUDO_ROWS
        counts = np.maximum(np.floor(exact), 1).astype(int)
        order = np.argsort(-(exact - np.floor(exact)), kind="stable")
        counts[order[: max(0, PSEUDO_ROWS - counts.sum())]] += 1
        counts[int(np.argmax(counts))] -= counts.sum() - PSEUDO_ROWS
        return np.repeat(np.arange(len(counts)), counts).astype(np.float64)


Column = Numeric | Categorical


def read_background(background: Mapping[str, Any]) -> dict[str, Column]:
    """The free columns by name, in order; identifiers and unknown inputs are left out.

    Raises:
        ExplainError: `background_invalid`.
    """
    found: dict[str, Column] = {}
    for name, entry in _entries(background):
        if entry.get("id") is True:
            continue
        try:
            column = _column(name, entry)
        except (KeyError, TypeError, ValueError) as exc:
            raise ExplainError("background_invalid", f"input {name!r}: {exc!r}") from exc
        if column is not None:
            found[name] = column
    return found


def _entries(background: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    inputs = background.get("inputs")
    if isinstance(inputs, Mapping):
        return inputs.items()
    if isinstance(inputs, Sequence) and all(isinstance(i, Mapping) for i in inputs):
        return [(str(entry.get("name")), entry) for entry in inputs]
    raise ExplainError("background_invalid", "no inputs in background.json")


def _column(name: str, entry: Mapping[str, Any]) -> Column | None:
    if "values" in entry:
        return _categorical(name, entry["values"], entry.get("frequencies"))
    if "quantiles" not in entry:
        return None
    quantiles = entry["quantiles"]
    if isinstance(quantiles, Mapping):
        pairs = sorted((float(p), float(q)) for p, q in quantiles.items())
    else:
        pairs = [(float(p), float(q)) for p, q in enumerate(quantiles)]
    scale = pairs[-1][0] if pairs[-1][0] > 1.0 else 1.0  # percent, or the steps of a list
    inner = [(p / scale, q) for p, q in pairs if 0.0 < p < scale]
    low, high = float(entry.get("min", pairs[0][1])), float(entry.get("max", pairs[-1][1]))
    pairs = [(0.0, low), *inner, (1.0, high)]
    points = np.array(pairs)
    if not np.isfinite(points).all() or (np.diff(points[:, 1]) < 0).any():
        raise ValueError("quantiles must be finite and rising")
    return Numeric(name, tuple(points[:, 0]), tuple(points[:, 1]))


def _categorical(name: str, values: Any, frequencies: Any) -> Categorical:
    if isinstance(values, Mapping):
        values, frequencies = list(values), list(values.values())
    shares = np.array([float(f) for f in frequencies])
    if len(shares) != len(values) or not len(shares) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("values and frequencies do not go together")
    return Categorical(name, tuple(map(str, values)), tuple(shares / shares.sum()))
