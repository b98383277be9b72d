"""Named columns: which facts of the row speak for the label.

Rule: a numeric column is judged by its quarter ("age <= 28"), a categorical one by its value, an
identifier is held fixed. Whole-number columns are asked with whole numbers. Perturbations,
distances and random stream are lime's, so stock lime with the same seed and pseudo columns
gives the same weights; truncated normals come from the same uniforms by their inverse, without
scipy's per-call checks. One lime fault is mended: a quarter that holds a single value is sampled
as that value (lime 0.2.0.1 puts 0 there).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from lime.discretize import QuartileDiscretizer
from lime.lime_tabular import LimeTabularExplainer
from scipy.special import ndtr, ndtri

from .background import Categorical, Column, read_background
from .errors import ExplainError
from .model import Array, Batch, FloatArray, Model
from .result import Feature
from .surrogate import GramBase
from .weights import Local, local_model


class FastQuartiles(QuartileDiscretizer):  # type: ignore[misc]  # lime publishes no types
    """QuartileDiscretizer with direct truncated normals."""

    def get_undiscretize_values(self, feature: int, values: Array) -> FloatArray:
        """A value inside each bin of `values`, by inverse CDF on lime's random stream."""
        low, high = (np.array(ends[feature])[values] for ends in (self.mins, self.maxs))
        mean, std = (np.array(m[feature])[values] for m in (self.means, self.stds))
        found = low.astype(np.float64)
        wide = low != high
        u = self.random_state.uniform(size=int(wide.sum()))
        a, b = (low - mean)[wide] / std[wide], (high - mean)[wide] / std[wide]
        # the mirrored tail keeps precision for bins above the mean
        flip = a >= 0
        below = np.where(flip, ndtr(-b), ndtr(a))
        above = np.where(flip, ndtr(-a), ndtr(b))
        z = ndtri(below + np.where(flip, 1.0 - u, u) * (above - below))
        z = np.clip(np.where(flip, -z, z), a, b)
        found[wide] = np.clip(z * std[wide] + mean[wide], low[wide], high[wide])
        return found


class FastTabularExplainer(LimeTabularExplainer):  # type: ignore[misc]  # lime publishes no types
    """LimeTabularExplainer with the Gram regression and direct truncated normals."""

    base: Any

    def __init__(self, training_data: FloatArray, **options: Any) -> None:
        state = options["random_state"]
        options["discretizer"] = FastQuartiles(
            training_data,
            list(options["categorical_features"]),
            list(options["feature_names"]),
            random_state=state,
        )
        super().__init__(training_data, **options)
        self.base = GramBase(self.base.kernel_fn, random_state=state)


def explain_table(
    row: Batch,
    model: Model,
    *,
    background: Mapping[str, Any],
    target: int,
    seed: int,
    samples: int,
) -> tuple[Local, tuple[Feature, ...], dict[str, Any]]:
    """The local model of a row, a feature for each free column, and nothing more to draw."""
    columns = _columns(row, background)
    table = Table(row, columns)
    explainer = FastTabularExplainer(table.pseudo(), **table.options(np.random.RandomState(seed)))

    def ask(encoded: FloatArray) -> FloatArray:
        return model.ask_many(len(encoded), lambda part: table.decode(encoded[part]))

    local = local_model(
        explainer, table.encoded(), ask, target=target, samples=samples, count=len(columns)
    )
    features = tuple(
        Feature(column.name, table.text(column.name), condition, weight)
        for column, condition, weight in zip(
            columns, table.conditions(explainer), local.weights, strict=True
        )
    )
    return local, features, {}


def _columns(row: Batch, background: Mapping[str, Any]) -> list[Column]:
    for name, array in row.items():
        if array.size != 1:
            raise ExplainError("wrong_shape", f"{name}: expected one element, got {array.shape}")
    known = read_background(background)
    found = [column for name, column in known.items() if name in row]
    if not found:
        raise ExplainError("empty_input", "no column of the row may vary")
    return found


class Table:
    """A row and its columns, to and from lime's matrix of numbers."""

    def __init__(self, row: Batch, columns: list[Column]) -> None:
        self._row = row
        self._columns = [
            c.around(self.text(c.name)) if isinstance(c, Categorical) else c for c in columns
        ]

    def text(self, name: str) -> str:
        """The raw value of a column as text."""
        raw = self._row[name].reshape(-1)[0]
        return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)

    def pseudo(self) -> FloatArray:
        """The training matrix that lime is built from, (rows, columns)."""
        return np.stack([column.pseudo_column() for column in self._columns], axis=1)

    def options(self, state: np.random.RandomState) -> dict[str, Any]:
        """The arguments of a LimeTabularExplainer for this table."""
        named = {
            i: list(c.values) for i, c in enumerate(self._columns) if isinstance(c, Categorical)
        }
        return {
            "feature_names": [column.name for column in self._columns],
            "categorical_features": list(named),
            "categorical_names": named,
            "feature_selection": "none",
            "discretize_continuous": True,
            "random_state": state,
        }

    def encoded(self) -> FloatArray:
        """The row itself, (columns,)."""
        cells = []
        for column in self._columns:
            own = self._row[column.name].reshape(-1)[0]
            if isinstance(column, Categorical):
                cells.append(float(column.values.index(self.text(column.name))))
            elif isinstance(own, bytes | str):
                raise ExplainError("background_invalid", f"input {column.name!r} is not numeric")
            else:
                cells.append(float(own))
        if not np.isfinite(cells).all():
            raise ExplainError("wrong_shape", "the row holds a number that is not finite")
        return np.array(cells)

    def decode(self, encoded: FloatArray) -> dict[str, Array]:
        """Raw inputs for lime's matrix (n, columns); fixed inputs as in the row."""
        n = len(encoded)
        batch = {name: np.repeat(array, n, axis=0) for name, array in self._row.items()}
        for i, column in enumerate(self._columns):
            batch[column.name] = self._decode(column, encoded[:, i], self._row[column.name])
        return batch

    def conditions(self, explainer: LimeTabularExplainer) -> list[str]:
        """What each weight is about: "age <= 28", "education = Bachelors"."""
        bins = explainer.discretizer.discretize(self.encoded())
        names = explainer.discretizer.names
        return [
            f"{column.name} = {self.text(column.name)}"
            if isinstance(column, Categorical)
            else str(names[i][int(bins[i])]).replace(".00", "")
            for i, column in enumerate(self._columns)
        ]

    @staticmethod
    def _decode(column: Column, cells: FloatArray, like: Array) -> Array:
        shape = (len(cells), *like.shape[1:])
        if isinstance(column, Categorical):
            kind = bytes if isinstance(like.reshape(-1)[0], bytes) else str
            values = [v.encode("utf-8") if kind is bytes else v for v in column.values]
            table: Array = np.empty(len(values), dtype=object)
            table[:] = values
            found: Array = table[cells.astype(int)].reshape(shape)
            return found
        whole = np.rint(cells) if np.issubdtype(like.dtype, np.integer) else cells
        return whole.astype(like.dtype).reshape(shape)
