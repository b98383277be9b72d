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
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from runners.tensor import DTYPES, Array

from .faults import BadRequest

__all__ = ["MAX_DIMS", "checked_shape", "one_value", "to_array"]

MAX_DIMS = 16
_MAX_ELEMENTS = 1 << 28
_FEW = 16
_LARGEST = 3.4e38  # below the largest FP32, so that it is below that of FP64, too
_KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_PLAIN = {
    (name, kind): dtype
    for name, dtype in DTYPES.items()
    if name not in ("BYTES", "FP16", "BF16")
    for kind in _KINDS[dtype.kind]
}


def checked_shape(shape: Sequence[Any], name: str) -> tuple[int, ...]:
    """The dimensions of a tensor as a caller gave them.

    Raises:
        BadRequest: not whole numbers >= 0, too many of them, or too large together.
    """
    if len(shape) > MAX_DIMS:
        raise BadRequest(f"input '{name}' has more than {MAX_DIMS} dimensions")
    elements = 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise BadRequest(f"input '{name}': a dimension is not a whole number >= 0")
        elements *= dim or 1
    if elements > _MAX_ELEMENTS:
        raise BadRequest(f"input '{name}' has more than {_MAX_ELEMENTS} elements")
    return tuple(shape)


def to_array(data: object, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """JSON data, flat or nested, as an array of `shape`; no value is changed on the way.

    Raises:
        BadRequest: wrong count, ragged nesting, or a value that the datatype cannot hold.
    """
    if datatype in ("FP16", "BF16"):
        raise BadRequest(f"input '{name}': {datatype} cannot be sent as JSON; send it as binary")
    if type(data) is not list:
        raise BadRequest(f"input '{name}': 'data' must be a list")
    kinds = set(map(type, data))
    if list in kinds:
        data = _flat(data, name)
        kinds = set(map(type, data))
    if len(data) != prod(shape):
        raise BadRequest(
            f"input '{name}': 'data' has {len(data)} values, shape {list(shape)} needs "
            f"{prod(shape)}"
        )
    read = _texts if datatype == "BYTES" else _numbers
    return read(data, kinds, datatype, name).reshape(shape)


def one_value(value: object, datatype: str, name: str) -> Array | None:
    """The commonest tensor, one value of shape (1, 1); None when `to_array` must look at it."""
    kind = type(value)
    if datatype == "BYTES" and kind is str:
        text = np.empty((1, 1), dtype=object)
        text[0, 0] = value.encode()  # type: ignore[attr-defined]
        return text
    dtype = _PLAIN.get((datatype, kind))
    if dtype is None or not -_LARGEST <= value <= _LARGEST:  # type: ignore[operator]
        return None
    try:
        return np.array([[value]], dtype=dtype)
    except OverflowError as exc:
        raise BadRequest(f"input '{name}': a value is out of range for {datatype}") from exc


def _flat(data: list[Any], name: str) -> list[Any]:
    """The values of regular nesting, in order."""
    for _ in range(MAX_DIMS):
        sizes = {len(part) if type(part) is list else -1 for part in data}
        if len(sizes) > 1:
            break
        data = list(chain.from_iterable(data))
        if list not in set(map(type, data)):
            return data
    raise BadRequest(f"input '{name}': 'data' is ragged or too deeply nested")


def _texts(values: list[Any], kinds: set[type], _: str, name: str) -> Array:
    if not kinds <= {str}:
        raise BadRequest(f"input '{name}': BYTES data must be strings")
    out = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a list would be made a fixed-width table on the way
        out[place] = value.encode()
    return out


def _numbers(values: list[Any], kinds: set[type], datatype: str, name: str) -> Array:
    dtype = DTYPES[datatype]
    if not kinds <= _KINDS[dtype.kind]:
        raise BadRequest(f"input '{name}': a value is not of datatype {datatype}")
    try:
        if dtype.kind != "f":
            return np.array(values, dtype=dtype)  # numpy refuses what it cannot hold
        if len(values) <= _FEW and all(-_LARGEST <= value <= _LARGEST for value in values):
            return np.array(values, dtype=dtype)
        with np.errstate(over="ignore"):
            cast = np.array(values, dtype=dtype)
    except OverflowError as exc:
        raise BadRequest(f"input '{name}': a value is out of range for {datatype}") from exc
    if not np.isfinite(cast).all():
        raise BadRequest(f"input '{name}': a value is out of range for {datatype}")
    return cast
