"""JSON values to arrays: what a caller wrote, unchanged, or a refusal.

Rule 1: a value is never bent: no truncated floats, no wrapped integers, no booleans read as
numbers, no infinities.
Rule 2: the memory an array takes is bounded by the values that were sent, whatever they are: types
are looked at before numpy chooses one (a list of one long text and many short ones would become a
table as wide as the long one), and a shape is bounded even where it holds a zero.
Boundary: knows datatypes, no protocol; codec.py, rpc.py and v1.py call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from runners.tensor import DTYPES, Array

from .faults import BadRequest

__all__ = ["MAX_DIMS", "checked_shape", "to_array"]

MAX_DIMS = 16
_MAX_ELEMENTS = 1 << 28
_KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}


def checked_shape(shape: Sequence[Any], name: str) -> tuple[int, ...]:
    """The dimensions of a tensor as a caller gave them.

    Raises:
        BadRequest: not whole numbers >= 0, too many of them, or too large together.
    """
    if len(shape) > MAX_DIMS:
        raise BadRequest(f"input '{name}' has more than {MAX_DIMS} dimensions")
    for dim in shape:
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < 0:
            raise BadRequest(f"input '{name}': a dimension is not a whole number >= 0")
    if prod(dim for dim in shape if dim) > _MAX_ELEMENTS:
        raise BadRequest(f"input '{name}' has more than {_MAX_ELEMENTS} elements")
    return tuple(shape)


def to_array(data: object, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """JSON data, flat or nested, as an array of `shape`; no value is changed on the way.

    Raises:
        BadRequest: wrong count, ragged nesting, or a value that the datatype cannot hold.
    """
    if datatype in ("FP16", "BF16"):
        raise BadRequest(f"input '{name}': {datatype} cannot be sent as JSON; send it as binary")
    if not isinstance(data, list):
        raise BadRequest(f"input '{name}': 'data' must be a list")
    try:
        found = np.array(data, dtype=object)
    except ValueError as exc:
        raise BadRequest(f"input '{name}': 'data' is ragged or too deeply nested") from exc
    if found.size != prod(shape):
        raise BadRequest(
            f"input '{name}': 'data' has {found.size} values, shape {list(shape)} needs "
            f"{prod(shape)}"
        )
    flat = found.ravel()
    values = _texts(flat, name) if datatype == "BYTES" else _numbers(flat, datatype, name)
    return values.reshape(shape)


def _texts(flat: Array, name: str) -> Array:
    out = np.empty(flat.size, dtype=object)
    for place, value in enumerate(flat):
        if not isinstance(value, str):
            raise BadRequest(f"input '{name}': BYTES data must be strings")
        out[place] = value.encode()
    return out


def _numbers(flat: Array, datatype: str, name: str) -> Array:
    dtype = DTYPES[datatype]
    values = flat.tolist()
    kinds = set(map(type, values))
    if list in kinds:
        raise BadRequest(f"input '{name}': 'data' is ragged or too deeply nested")
    if not kinds <= _KINDS[dtype.kind]:
        raise BadRequest(f"input '{name}': a value is not of datatype {datatype}")
    if values and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise BadRequest(f"input '{name}': a value is out of range for {datatype}")
    with np.errstate(over="ignore"):
        cast = np.array(values, dtype=dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise BadRequest(f"input '{name}': a value is out of range for {datatype}")
    return cast
