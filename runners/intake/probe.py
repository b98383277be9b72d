"""Do rows know of one another? Asked of the graph first, then of the model itself.

Rule 1: rows may share a run only if the first dimension of every input and output is one size that
the caller chooses, and that size occurs nowhere else.
Rule 2: and only if random rows get the same answers alone, together and in reverse order. What
cannot be told apart (a model that always answers the same) does not count as the same.
Rule 3: when in doubt, no: a request of a model that is not batched never meets another.
Limits: an influence smaller than the tolerance, or one that random rows do not show, is not seen;
`--batch no` is for whoever knows of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from ..errors import InputInvalid, ModelFailed
from ..tensor import Array, Batch
from .draft import Port
from .example import Infer

__all__ = ["TOLERANCES", "Finding", "close", "may_batch", "probe_rows"]

# Relative and absolute tolerance by datatype: room for another order of the same additions.
TOLERANCES: Final[Mapping[str, tuple[float, float]]] = {
    "FP64": (1e-6, 1e-9),
    "FP32": (1e-3, 1e-5),
    "FP16": (2e-2, 1e-2),
    "BF16": (5e-2, 5e-2),
}
_COUNTS: Final = (2, 3, 5)


class Finding(NamedTuple):
    """`apart`: rows do not know of one another; None when it could not be told."""

    apart: bool | None
    why: str


def may_batch(inputs: Sequence[Port], outputs: Sequence[Port], *, strict: bool) -> Finding:
    """Whether the declared shapes allow rows.

    Args:
        inputs: what the model takes.
        outputs: what it gives.
        strict: whether sizes of different names are different sizes.
    """
    for port in (*inputs, *outputs):
        if not port.dims:
            return Finding(apart=False, why=f"'{port.name}' is a scalar")
        if not isinstance(port.dims[0], str):
            return Finding(apart=False, why=f"the first dimension of '{port.name}' is fixed")
    names = {str(port.dims[0]) for port in (*inputs, *outputs)} - {""}
    if strict and len(names) > 1:
        listed = ", ".join(f"'{name}'" for name in sorted(names))
        return Finding(apart=False, why=f"the first dimensions are different sizes: {listed}")
    for port in (*inputs, *outputs):
        if names & set(port.dims[1:]):
            return Finding(apart=False, why=f"'{port.name}' has its rows in another dimension, too")
    return Finding(apart=True, why="every first dimension is the rows")


def probe_rows(
    draw: Callable[[int, np.random.Generator], Batch], infer: Infer, outputs: Sequence[Port]
) -> Finding:
    """Ask the model: rows alone, together, and in reverse.

    Args:
        draw: makes a batch of so many rows.
        infer: the loaded model.
        outputs: what it gives; their datatypes choose the tolerance.
    """
    differs = False
    for count in _COUNTS:
        batch = draw(count, np.random.default_rng(count))
        try:
            alone = [infer(_rows(batch, slice(row, row + 1))) for row in range(count)]
            together, reverse = infer(batch), infer(_rows(batch, slice(None, None, -1)))
        except (ModelFailed, InputInvalid):
            return Finding(apart=False, why=f"it does not answer one row as it answers {count}")
        for port in outputs:
            parts = [answer[port.name] for answer in alone]
            if any(part.shape[:1] != (1,) for part in parts):
                return Finding(apart=False, why=f"'{port.name}' has no row for each row sent")
            if any(part.shape != parts[0].shape for part in parts):
                return Finding(apart=False, why=f"the shape of '{port.name}' depends on the row")
            whole = np.concatenate(parts)
            for answer, order in ((together, 1), (reverse, -1)):
                if not close(answer[port.name][::order], whole, port.datatype):
                    return Finding(
                        apart=False, why=f"rows change one another's '{port.name}' when they meet"
                    )
            differs = differs or any(not close(p, parts[0], port.datatype) for p in parts)
    if not differs:
        return Finding(apart=None, why="random rows all get the same answer, which tells nothing")
    return Finding(apart=True, why="random rows get the same answers alone and together")


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: np.ascontiguousarray(data[rows]) for name, data in batch.items()}


def close(found: Array, expected: Array, datatype: str) -> bool:
    """Equal shapes, and values equal within the datatype's tolerance; NaN equals NaN."""
    if found.shape != expected.shape:
        return False
    tolerance = TOLERANCES.get(datatype)
    if tolerance is None:
        return bool(np.array_equal(found, expected))
    relative, absolute = tolerance
    left, right = found.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(left, right, rtol=relative, atol=absolute, equal_nan=True))
