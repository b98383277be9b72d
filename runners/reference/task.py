"""What a reference task is: its served signature, its data and its pipeline.

Rule: rows are kept as a caller would send them; only `Pipeline.before` turns them into numbers.
Rule: the split is made once, from a fixed seed, before anything is learnt, and duplicates are
removed before it, so that no held-out row was ever trained on.
Boundary: no framework and no IO here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..manifest import Protected
from ..pipeline import Pipeline
from ..tensor import Array, Signature, TensorSpec

__all__ = ["SPLIT_SEED", "Dataset", "Rows", "Task", "column", "stratified", "table_signature"]

SPLIT_SEED: Final = 20_240_607
_PARTS: Final = (0.7, 0.1, 0.2)


@dataclass(frozen=True)
class Rows:
    """Some rows: `batch` as served, `labels` (n,) INT64, and what else is known of each row."""

    batch: Mapping[str, Array]
    labels: NDArray[np.int64]
    ratings: NDArray[np.float32] | None = None
    groups: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64] | slice) -> Rows:
        """The rows at `index`, in that order."""
        return Rows(
            batch={name: values[index] for name, values in self.batch.items()},
            labels=self.labels[index],
            ratings=None if self.ratings is None else self.ratings[index],
            groups=None if self.groups is None else self.groups[index],
        )


@dataclass(frozen=True)
class Dataset:
    """The three parts of a task's data, and where it came from (manifest `training_data`).

    `valences` is what a published lexicon says of words beforehand; empty but for texts.
    """

    train: Rows
    valid: Rows
    test: Rows
    source: Mapping[str, str | int]
    valences: Mapping[str, float] = field(default_factory=dict)

    def smaller(self, train_rows: int) -> Dataset:
        """The same held-out rows, fewer to train on."""
        return replace(
            self,
            train=self.train.take(slice(train_rows)),
            valid=self.valid.take(slice(max(train_rows // 4, 1))),
        )


@dataclass(frozen=True)
class Task:
    """One reference model: everything about it that does not change between versions."""

    name: str
    kind: str
    modality: str
    signature: Signature
    labels: tuple[str, ...]
    positive_label: str | None
    threshold: str | None
    protected: Mapping[str, Protected]
    fast_rows: int
    load: Callable[[Path], Dataset]
    pipeline: Callable[[str, Dataset], Pipeline]
    ids: frozenset[str] = field(default=frozenset())
    rating: bool = False

    def after(self) -> dict[str, Any]:
        """The `after` part of the pipeline of every version."""
        outputs = {"probabilities": "probabilities"}
        if self.rating:
            outputs["rating"] = "rating"
        return {
            "outputs": outputs,
            "label": {"from": "probabilities", "threshold": self.threshold},
        }


def table_signature(inputs: Sequence[tuple[str, str]], *, rating: bool = False) -> Signature:
    """A signature of (name, datatype) columns, each (n, 1), with two classes."""
    outputs = [TensorSpec("probabilities", "FP32", (-1, 2)), TensorSpec("label", "INT64", (-1, 1))]
    if rating:
        outputs.append(TensorSpec("rating", "FP32", (-1, 1)))
    columns = tuple(TensorSpec(name, datatype, (-1, 1)) for name, datatype in inputs)
    return Signature(inputs=columns, outputs=tuple(outputs))


def column(values: Sequence[object], datatype: str) -> Array:
    """One served column, (n, 1): text is encoded to bytes, numbers become INT64."""
    if datatype != "BYTES":
        return np.asarray(values, dtype=np.int64).reshape(-1, 1)
    cells = np.empty((len(values), 1), dtype=object)
    cells[:, 0] = [str(value).encode() for value in values]
    return cells


def stratified(
    rows: Rows,
    strata: Sequence[object],
    source: Mapping[str, str | int],
    *,
    together: Sequence[object] | None = None,
) -> Dataset:
    """Split 70/10/20 within each stratum, shuffled; the same for the same rows, for ever.

    Args:
        rows: all rows.
        strata: one value per row; each part gets its share of each.
        source: where the rows came from; the rows and the seed are added.
        together: one value per row; rows with equal values land in the same part (and count as
            one, of the stratum of the first of them).
    """
    random = np.random.default_rng(SPLIT_SEED)
    _, first, unit_of = np.unique(
        np.arange(len(rows)) if together is None else np.asarray([repr(key) for key in together]),
        return_index=True,
        return_inverse=True,
    )
    keys = np.asarray([str(item) for item in strata])[first]  # the stratum of each unit
    part_of = np.empty(len(first), dtype=np.int64)
    for key in sorted(set(keys.tolist())):
        members = random.permutation(np.flatnonzero(keys == key))
        cuts = [round(len(members) * share) for share in np.cumsum(_PARTS)[:2]]
        for part, piece in enumerate(np.split(members, cuts)):
            part_of[piece] = part
    order = random.permutation(len(rows))
    train, valid, test = (rows.take(order[part_of[unit_of[order]] == part]) for part in range(3))
    return Dataset(train, valid, test, {**source, "rows": len(rows), "split_seed": SPLIT_SEED})
