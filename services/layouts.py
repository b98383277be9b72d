"""What stands before the raw tensors of a gRPC request, read once and remembered by its bytes.

Clients send the same names, datatypes and shapes call after call. So `inputs` is taken from the
message as bytes (`oip.Envelope`) and its meaning is looked up; only bytes that were not seen before
are parsed and checked.
Rule 1: equal bytes mean equal layouts: nothing of a layout depends on another call, and no value of
a tensor is part of one. Inputs that hold anything more (typed contents, parameters, members that we
do not know) are read each time and never remembered.
Rule 2: what is remembered is bounded in number and in size.
Boundary: bytes in, layouts out; messages.py reads the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from runners.tensor import DTYPES

from .faults import BadRequest
from .oip import message
from .values import checked_shape

__all__ = ["Layout", "Layouts", "parse_inputs"]

_InputTensor = message("ModelInferRequest.InferInputTensor")
_MAX_BYTES = 4096
_MAX_HELD = 256


class Layout(NamedTuple):
    """One raw tensor without its values."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    """How many bytes its values take; -1 where the values themselves say it."""
    first: tuple[int, ...] | None
    """The place of the only element of a BYTES tensor that has one."""


def parse_inputs(inputs: Iterable[bytes]) -> list[Any]:
    """The tensors' messages, in order, no name twice and every datatype known.

    Raises:
        BadRequest: the protocol does not allow them.
        google.protobuf.message.DecodeError: bytes that are no message.
    """
    found: dict[str, Any] = {}
    for data in inputs:
        tensor = _InputTensor.FromString(data)
        if tensor.name in found:
            raise BadRequest(f"input '{tensor.name}' stands twice")
        if tensor.datatype not in DTYPES:
            raise BadRequest(f"input '{tensor.name}' has unknown datatype '{tensor.datatype[:32]}'")
        found[tensor.name] = tensor
    return list(found.values())


class Layouts:
    """The layouts that were seen, by the bytes of `inputs`."""

    def __init__(self) -> None:
        """None were seen."""
        self._held: dict[tuple[bytes, ...], tuple[Layout, ...]] = {}

    def read(self, inputs: tuple[bytes, ...]) -> tuple[Layout, ...]:
        """The layouts of raw inputs.

        Raises:
            BadRequest: the protocol does not allow them, or one holds typed contents.
            google.protobuf.message.DecodeError: bytes that are no message.
        """
        found = self._held.get(inputs)
        if found is None:
            tensors = parse_inputs(inputs)
            found = tuple(map(_layout, tensors))
            if sum(map(len, inputs)) <= _MAX_BYTES and all(map(_plain, tensors, inputs)):
                if len(self._held) >= _MAX_HELD:
                    self._held.clear()
                self._held[inputs] = found
        return found


def _plain(tensor: Any, data: bytes) -> bool:
    """Whether `data` says a name, a datatype and a shape, and nothing else."""
    tensor.DiscardUnknownFields()
    return not tensor.parameters and tensor.ByteSize() == len(data)


def _layout(tensor: Any) -> Layout:
    shape = checked_shape(tensor.shape, tensor.name)
    if tensor.HasField("contents") and tensor.contents.ByteSize():
        raise BadRequest(f"input '{tensor.name}' has typed contents beside raw_input_contents")
    dtype, count, first = DTYPES[tensor.datatype], prod(shape), None
    size = -1 if dtype.hasobject or not count else count * dtype.itemsize
    if dtype.hasobject and count == 1:
        first = (0,) * len(shape)
    return Layout(tensor.name, tensor.datatype, dtype, shape, size, first)
