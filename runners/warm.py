"""What a version is run with before anybody may call it.

Rule: a registered artefact brings `example.bin`, the very inputs that it answered when it was
registered; a reference artefact is warmed with neutral rows. A model that batches rows is run with
one row and with eight.
Boundary: reads one checked file; runs nothing itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .errors import InputInvalid
from .registry import Artefact
from .tensor import DTYPES, Array, Batch, Signature, TensorSpec, unpack

__all__ = ["EXAMPLE", "example_rows", "neutral", "warm_batches"]

EXAMPLE: Final = "example.bin"
_WARM_ROWS: Final = (1, 8)


def warm_batches(artefact: Artefact) -> list[Batch]:
    """The batches of a warm-up, in order."""
    signature = artefact.manifest.signature
    if EXAMPLE in artefact.manifest.files:
        example = unpack(artefact.read(EXAMPLE))
        if signature.batching == "none":
            return [example]
        return [example_rows(example, rows) for rows in _WARM_ROWS]
    return [neutral(signature, rows) for rows in _WARM_ROWS]


def example_rows(example: Batch, rows: int) -> Batch:
    """`rows` rows made of the example's own, repeated in their order."""
    return {name: np.resize(data, (rows, *data.shape[1:])) for name, data in example.items()}


def neutral(signature: Signature, rows: int) -> Batch:
    """Zeros (and short texts) of the declared shapes; a dynamic dimension behind the first is 1."""
    return {spec.name: _neutral(spec, rows) for spec in signature.inputs}


def _neutral(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(1 if dim < 0 else dim for dim in spec.shape[1:]))
    if spec.datatype == "BYTES":
        return np.full(shape, b"warm", dtype=object)
    if spec.datatype not in DTYPES:
        raise InputInvalid(f"input '{spec.name}' has unknown datatype '{spec.datatype}'")
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
