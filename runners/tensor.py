"""Tensors as the Open Inference Protocol names them, and the signature a model declares.

Source: Open Inference Protocol v2, section "Tensor Data Types"; row-major, little-endian on the
wire; BYTES elements are length-prefixed by four little-endian bytes.
Rule: a tensor is immutable by convention and `parse_bytes(format_bytes(x)) == x`. In a signature
that batches rows the first dimension of every tensor is the rows; in one that does not, a request
is one row whatever its shapes, and never meets another.
BF16 is the numpy type of `ml_dtypes`; it travels as raw bytes only.
Boundary: no IO; callers hand in buffers. `InputInvalid` is the only refusal.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
import orjson
from numpy.typing import NDArray

from .errors import InputInvalid

__all__ = [
    "DTYPES",
    "Array",
    "Batch",
    "Batching",
    "Signature",
    "Tensor",
    "TensorSpec",
    "datatype_of",
    "format_bytes",
    "format_raw",
    "pack",
    "parse_bytes",
    "parse_raw",
    "unpack",
]

Array = NDArray[Any]
Batch = Mapping[str, Array]
Batching = Literal["rows", "none"]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")
_ONE = (1, 1)


class Tensor(NamedTuple):
    """A named array: `data` has the numpy type of `datatype`; BYTES is an object array of bytes."""

    name: str
    datatype: str
    data: Array


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a signature says of one tensor; -1 is a dynamic dimension, the first is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    fixed: tuple[int, ...] | None = field(init=False, repr=False, compare=False)
    """The dimensions behind a dynamic first one, when all of them are fixed."""

    def __post_init__(self) -> None:
        rows, behind = self.shape[:1], self.shape[1:]
        known = behind if rows == (-1,) and -1 not in behind else None
        object.__setattr__(self, "fixed", known)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` has this rank and equals every fixed dimension."""
        if len(shape) != len(self.shape):
            return False
        for want, have in zip(self.shape, shape, strict=True):  # noqa: SIM110  a generator costs more
            if want not in (have, -1):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors a model takes and gives, in order, and whether rows may share a run.

    Attributes:
        batching: "rows": every first dimension is the rows, and no row knows of another; "none":
            each request runs alone and counts as one row.
        ties: inputs' dimensions that have one size in every call: groups of (input, axis).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: Batching = "rows"
    ties: tuple[tuple[tuple[str, int], ...], ...] = ()

    def check(self, inputs: Mapping[str, Tensor]) -> int:
        """Refuse inputs that do not fit; return the number of rows (>= 1; 1 without batching).

        Raises:
            InputInvalid: a missing, unknown or wrongly typed or shaped input, or rows that differ.
        """
        specs = self.inputs
        if len(inputs) != len(specs):
            self._refuse_names(inputs)
        rows = -1
        for spec in specs:
            if spec.name not in inputs:
                self._refuse_names(inputs)
            tensor = inputs[spec.name]
            if tensor.datatype != spec.datatype:
                raise InputInvalid(
                    f"input '{spec.name}' has datatype {tensor.datatype}; {_described(spec)}"
                )
            shape = tensor.data.shape
            if shape[1:] == spec.fixed and shape[0] == rows:
                continue
            if not spec.admits(shape):
                raise InputInvalid(
                    f"input '{spec.name}' has shape {list(shape)}; {_described(spec)}"
                )
            if self.batching == "none":
                rows = 1
                continue
            rows = shape[0] if rows < 0 else rows
            if shape[0] != rows:
                raise InputInvalid(
                    f"input '{spec.name}' has {shape[0]} rows where another input has {rows}"
                )
        if rows < 1:
            raise InputInvalid("the request holds no rows; send at least one")
        for tie in self.ties:
            sizes = {inputs[name].data.shape[axis] for name, axis in tie}
            if len(sizes) > 1:
                listed = ", ".join(f"{axis} of '{name}'" for name, axis in tie)
                raise InputInvalid(f"these dimensions must have one size: {listed}")
        return rows

    def _refuse_names(self, inputs: Mapping[str, Tensor]) -> None:
        known = {spec.name for spec in self.inputs}
        for name in inputs:
            if name not in known:
                raise InputInvalid(f"unknown input '{name}'; this model takes {_listed(known)}")
        for spec in self.inputs:
            if spec.name not in inputs:
                raise InputInvalid(f"input '{spec.name}' is missing; {_described(spec)}")


def _listed(names: set[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _described(spec: TensorSpec) -> str:
    return f"the model takes {spec.datatype} of shape {list(spec.shape)}"


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy type; strings of any kind are BYTES.

    Raises:
        InputInvalid: the protocol has no such type.
    """
    if dtype.kind in "OSU":
        return "BYTES"
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise InputInvalid(f"numpy type {dtype} has no datatype in the protocol")
    return name


def parse_raw(
    buffer: bytes | memoryview, datatype: str, shape: tuple[int, ...], name: str
) -> Array:
    """Decode one binary tensor without copying; the array is read-only.

    Args:
        buffer: exactly the tensor's bytes, row-major, little-endian.
        datatype: a key of `DTYPES`.
        shape: non-negative dimensions.
        name: the input's name, for the refusal.

    Raises:
        InputInvalid: unknown datatype, or a byte size that is not the shape's.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InputInvalid(f"input '{name}' has unknown datatype '{datatype}'")
    if datatype == "BYTES":
        return parse_bytes(buffer, prod(shape), name).reshape(shape)
    expected = prod(shape) * dtype.itemsize
    if len(buffer) != expected:
        raise InputInvalid(
            f"input '{name}' holds {len(buffer)} bytes; {datatype} of shape {list(shape)} "
            f"takes {expected}"
        )
    return np.frombuffer(buffer, dtype=dtype).reshape(shape)


def format_raw(data: Array) -> bytes:
    """Encode one tensor as the binary extension does; inverse of `parse_raw`."""
    return format_bytes(data) if data.dtype.hasobject else data.tobytes()


def parse_bytes(buffer: bytes | memoryview, count: int, name: str) -> Array:
    """Decode `count` length-prefixed elements; shape (count,), object.

    Raises:
        InputInvalid: an element runs past the end, or bytes are left over.
    """
    if len(buffer) < 4 * count:
        raise InputInvalid(f"input '{name}' is too short for {count} BYTES elements")
    view = memoryview(buffer)
    elements = np.empty(count, dtype=object)
    offset = 0
    for position in range(count):
        end = offset + 4
        if end > len(view):
            raise InputInvalid(f"input '{name}': BYTES element {position} has no length")
        (length,) = _LENGTH.unpack_from(view, offset)
        offset = end + length
        if offset > len(view):
            raise InputInvalid(f"input '{name}': BYTES element {position} runs past the end")
        elements[position] = bytes(view[end:offset])
    if offset != len(view):
        raise InputInvalid(f"input '{name}' has {len(view) - offset} bytes too many")
    return elements


def format_bytes(data: Array) -> bytes:
    """Encode BYTES elements in row-major order; inverse of `parse_bytes`."""
    length = _LENGTH.pack
    values = [
        element if isinstance(element, bytes) else str(element).encode()
        for element in data.ravel().tolist()
    ]
    return b"".join([part for value in values for part in (length(len(value)), value)])


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Put named arrays into one byte string, names sorted; inverse of `unpack`.

    Form: 4-byte little-endian length, JSON list of [name, datatype, shape, byte size], the raw
    tensors in that order. Equal arrays give equal bytes, so that a commitment can be recomputed.
    """
    head, raw = [], []
    for name in sorted(arrays):
        array = arrays[name]
        dtype, shape = array.dtype, array.shape
        if not dtype.hasobject:
            data = array.tobytes()
        elif shape == _ONE and type(value := array.item()) is bytes:
            data = _LENGTH.pack(len(value)) + value
        else:
            data = format_bytes(array)
        head.append((name, _NAMES.get(dtype) or datatype_of(dtype), shape, len(data)))
        raw.append(data)
    text = orjson.dumps(head)
    return b"".join((_LENGTH.pack(len(text)), text, *raw))


def unpack(buffer: bytes | memoryview) -> dict[str, Array]:
    """Take apart what `pack` made; the arrays are read-only views of `buffer`.

    Raises:
        InputInvalid: the bytes are not of that form.
    """
    view, arrays = memoryview(buffer), {}
    try:
        (size,) = _LENGTH.unpack_from(view)
        head, offset = orjson.loads(view[4 : 4 + size]), 4 + size
        for name, datatype, shape, length in head:
            arrays[name] = parse_raw(view[offset : offset + length], datatype, tuple(shape), name)
            offset += length
    except (struct.error, ValueError, TypeError) as exc:
        raise InputInvalid(f"could not unpack tensors: {exc}") from exc
    return arrays
