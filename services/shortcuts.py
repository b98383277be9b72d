"""The bodies that most callers write, read without building what is thrown away.

Rule 1: a shortcut refuses nothing by itself but values, shapes and members that are checked by the
same functions as ever: what does not fit its form is None, and codec.py reads it by the rules, so
that there is one set of refusals.
Rule 2: the JSON part of a binary body is remembered when it speaks of tensors alone: no value, id,
unit or attribute of a call is ever kept. How much is remembered is bounded.
Boundary: as codec.py.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runners.tensor import DTYPES, Tensor

from .body import Decoded, checked_id, checked_parameters, requested_outputs
from .faults import BadRequest
from .values import checked_shape, one_value, to_array

__all__ = ["read_binary", "read_common"]

_ONE = [1, 1]
_FIXED = {name: dtype for name, dtype in DTYPES.items() if not dtype.hasobject}
_MAX_BYTES = 1024
_MAX_HELD = 256


class _Item(msgspec.Struct, gc=False):
    """An input as most callers write it."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]
    parameters: dict[str, Any] | None = None


class _Head(msgspec.Struct, gc=False):
    """A request as most callers write it; whoever writes another is read by the long way."""

    inputs: list[_Item]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Any] | None = None


_read_head = msgspec.json.Decoder(_Head).decode


def read_common(body: bytes) -> Decoded | None:
    """Read a body of JSON tensors without building what is thrown away; None sends it on.

    It refuses nothing by itself but values: what does not fit is read again by the rules, so that
    there is one set of refusals.
    """
    try:
        head = _read_head(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    inputs: dict[str, Tensor] = {}
    for item in head.inputs:
        name, datatype, shape = item.name, item.datatype, item.shape
        if not name or name in inputs or datatype not in DTYPES or item.parameters is not None:
            return None
        data = None
        if shape == _ONE and len(item.data) == 1:
            data = one_value(item.data[0], datatype, name)
        if data is None:
            data = to_array(item.data, datatype, checked_shape(shape, name), name)
        inputs[name] = Tensor(name, datatype, data)
    if not inputs:
        return None
    return _told(head, inputs)


def _told(head: _Head | _BinaryHead, inputs: dict[str, Tensor]) -> Decoded:
    """What stands beside the inputs."""
    parameters = head.parameters or {}
    if parameters:
        checked_parameters(parameters, "the request")
    outputs, binary = (None, {}) if head.outputs is None else requested_outputs(head.outputs)
    default = parameters.get("binary_data_output") is True
    return Decoded(checked_id(head.id), parameters, inputs, outputs, binary, default)


class _Size(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The parameters of an input whose values follow the JSON part."""

    binary_data_size: int


class _BinaryItem(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A binary input as most callers write it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Size
    data: None = None


class _BinaryHead(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request of binary inputs alone."""

    inputs: list[_BinaryItem]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Any] | None = None


class _Place(NamedTuple):
    """Where one tensor's values stand behind the JSON part."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class _Form(NamedTuple):
    """What the JSON part says, and how many bytes of values must follow it."""

    places: tuple[_Place, ...]
    size: int
    rest: Decoded


_forms: dict[bytes, _Form] = {}
_read_binary_head = msgspec.json.Decoder(_BinaryHead).decode


def read_binary(body: bytes, size: int) -> Decoded | None:
    """Read a body whose tensors all follow the first `size` bytes, its JSON part.

    Tensors without a fixed size of bytes, and those whose size is not the shape's, are None.
    """
    part = body[:size]
    form = _forms.get(part)
    try:
        found = form or _form(part)
    except BadRequest:
        return None  # the rules name the first fault of a message, which may be another
    if form is None and (form := found) is not None and _speaks_of_tensors(form.rest):
        if len(_forms) >= _MAX_HELD:
            _forms.clear()
        if size <= _MAX_BYTES:
            _forms[part] = form
    if form is None or form.size != len(body) - size:
        return None
    inputs = {
        name: Tensor(name, datatype, np.ndarray(shape, dtype, body, size + offset))
        for name, datatype, dtype, shape, offset in form.places
    }
    request_id, parameters, _, outputs, binary, default = form.rest
    return Decoded(request_id, parameters.copy(), inputs, outputs, dict(binary), default)


def _speaks_of_tensors(rest: Decoded) -> bool:
    """Whether nothing of one call's own, an id or a person's, stands beside the inputs."""
    return not rest.request_id and not rest.parameters.keys() - {"binary_data_output"}


def _form(part: bytes) -> _Form | None:
    try:
        head = _read_binary_head(part)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    places: list[_Place] = []
    offset = 0
    for item in head.inputs:
        name, datatype, length = item.name, item.datatype, item.parameters.binary_data_size
        dtype = _FIXED.get(datatype)
        if not name or dtype is None or any(name == place.name for place in places):
            return None
        shape = checked_shape(item.shape, name)
        if length <= 0 or length != prod(shape) * dtype.itemsize:
            return None
        places.append(_Place(name, datatype, dtype, shape, offset))
        offset += length
    if not places:
        return None
    return _Form(tuple(places), offset, _told(head, {}))
