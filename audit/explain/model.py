"""How a model is asked: in bounded batches, and never believed unchecked.

Rule: at most `BATCH_ROWS` rows a call; each answer must be finite, of shape (rows, labels).
Errors of the model itself are not caught: they are the caller's, who knows what they mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ExplainError

Array: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float64]
Batch: TypeAlias = Mapping[str, Array]
Predict: TypeAlias = Callable[[Batch], Array]

BATCH_ROWS = 256
MAX_CLASSES = 1_000


class Model:
    """`predict` with its answers checked."""

    def __init__(self, predict: Predict, *, classes: int) -> None:
        if not 1 <= classes <= MAX_CLASSES:
            raise ExplainError("too_many_classes", f"{classes} labels, 1 to {MAX_CLASSES} allowed")
        self._predict = predict
        self._classes = classes

    def ask(self, batch: Batch) -> FloatArray:
        """Probabilities of one batch, (rows, labels) in double precision.

        Raises:
            ExplainError: `wrong_shape` or `not_finite`.
        """
        rows = len(next(iter(batch.values())))
        found = np.asarray(self._predict(batch))
        if found.shape != (rows, self._classes):
            raise ExplainError(
                "wrong_shape", f"expected {(rows, self._classes)}, the model gave {found.shape}"
            )
        answer = found.astype(np.float64)
        if not np.isfinite(answer).all():
            raise ExplainError("not_finite", "the model gave NaN or infinity")
        return answer

    def ask_many(self, rows: int, batch: Callable[[slice], Batch]) -> FloatArray:
        """Probabilities of `rows` rows, built and asked `BATCH_ROWS` at a time."""
        starts = range(0, rows, BATCH_ROWS)
        return np.concatenate(
            [self.ask(batch(slice(i, min(i + BATCH_ROWS, rows)))) for i in starts]
        )


def one_row(row: Batch) -> None:
    """Refuse anything but a batch of exactly one row."""
    if not row:
        raise ExplainError("wrong_shape", "the row has no inputs")
    for name, array in row.items():
        if array.ndim < 1 or array.shape[0] != 1:
            raise ExplainError("wrong_shape", f"{name}: expected a batch of 1, got {array.shape}")


def only_input(row: Batch, modality: str) -> tuple[str, Array]:
    """The name and array of a row's one input."""
    if len(row) != 1:
        raise ExplainError("wrong_shape", f"{modality}: expected one input, got {len(row)}")
    return next(iter(row.items()))
