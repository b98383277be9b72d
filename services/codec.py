"""Open Inference Protocol over HTTP: bodies to tensors and back, JSON and binary mixed.

Source: OIP v2 HTTP/REST and the binary tensor data extension, as written down in docs/protocol.md.
Rule 1: Content-Type is never consulted; the header `Inference-Header-Content-Length` alone says
that binary tensors follow the JSON.
Rule 2: every byte is accounted for: JSON data has exactly prod(shape) values, binary tensors
exactly the bytes that are there. Anything else is `BadRequest`.
Rule 3: an optional member that is null is one that was not sent: generated clients write it.
Read next: values.py (what becomes of JSON data).
Boundary: no server types; headers come as values.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from runners.errors import InputInvalid
from runners.tensor import DTYPES, Array, Signature, Tensor, TensorSpec, format_raw, parse_raw

from .faults import BadRequest
from .values import MAX_DIMS, checked_shape, one_value, to_array

__all__ = ["Decoded", "checked_id", "decode", "encode", "parse_json"]

_MAX_ID = 256
_MAX_DIGITS = 12
_ONE = [1, 1]
_DATATYPES = frozenset({*DTYPES, "BF16"})
_FIXED = {name: dtype for name, dtype in DTYPES.items() if not dtype.hasobject}
Parameters = dict[str, str | int | float | bool]


class Decoded(NamedTuple):
    """What one infer body says."""

    request_id: str
    parameters: Parameters
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...] | None
    binary: Mapping[str, bool]
    binary_default: bool


def parse_json(body: bytes | memoryview) -> dict[str, Any]:
    """A JSON object, or `BadRequest`."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def decode(body: bytes, header_length: str | None, signature: Signature | None) -> Decoded:
    """Read the body of an infer call.

    Args:
        body: the whole body, decompressed.
        header_length: `Inference-Header-Content-Length` as sent, or None.
        signature: the model's, for a raw body (header value 0); None when the model is unknown.

    Raises:
        BadRequest: the message does not follow the protocol.
    """
    if header_length is None and (common := _read_common(body)) is not None:
        return common
    size = _header_length(header_length, len(body))
    if 0 < size < len(body) and (common := _read_binary(body, size)) is not None:
        return common
    if size == 0 and header_length is not None:
        return _raw_body(body, signature)
    head = parse_json(body if header_length is None else memoryview(body)[:size])
    tail = memoryview(body)[size:]
    listed = head.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise BadRequest("the request needs a list of 'inputs'")
    inputs: dict[str, Tensor] = {}
    for item in listed:
        tensor, used = _input(item, tail)
        if tensor.name in inputs:
            raise BadRequest(f"input '{tensor.name}' stands twice")
        inputs[tensor.name] = tensor
        if used:
            tail = tail[used:]
    if len(tail):
        raise BadRequest(f"{len(tail)} bytes are left over behind the tensors")
    parameters = _parameters(head, "the request")
    outputs, binary = _outputs(head.get("outputs"))
    return Decoded(
        checked_id(head.get("id")),
        parameters,
        inputs,
        outputs,
        binary,
        parameters.get("binary_data_output") is True,
    )


def checked_id(found: object) -> str:
    """A request id as the caller gave it; "" when there is none.

    Raises:
        BadRequest: not a text, or a very long one.
    """
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _MAX_ID:
        raise BadRequest(f"'id' must be a string of at most {_MAX_ID} characters")
    return found


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


def _read_common(body: bytes) -> Decoded | None:
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
    parameters = {} if head.parameters is None else _checked(head.parameters, "the request")
    outputs, binary = (None, {}) if head.outputs is None else _outputs(head.outputs)
    default = parameters.get("binary_data_output") is True
    return Decoded(checked_id(head.id), parameters, inputs, outputs, binary, default)


class _Size(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The parameters of an input whose values follow the JSON part."""

    binary_data_size: int


class _BinaryItem(msgspec.Struct, gc=False):
    """A binary input as most callers write it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Size
    data: None = None


class _BinaryHead(msgspec.Struct, gc=False):
    """A request of binary inputs alone; any other is read by the long way."""

    inputs: list[_BinaryItem]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Any] | None = None


_read_binary_head = msgspec.json.Decoder(_BinaryHead).decode


def _read_binary(body: bytes, size: int) -> Decoded | None:
    """Read a body whose tensors all follow the JSON part; None sends it on, as in `_read_common`.

    Tensors without a fixed size of bytes, and those whose size is not the shape's, go the long way.
    """
    try:
        head = _read_binary_head(memoryview(body)[:size])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    inputs: dict[str, Tensor] = {}
    place = size
    for item in head.inputs:
        name, datatype, length = item.name, item.datatype, item.parameters.binary_data_size
        dtype = _FIXED.get(datatype)
        if not name or name in inputs or dtype is None:
            return None
        shape = checked_shape(item.shape, name)
        end = place + length
        if length <= 0 or length != prod(shape) * dtype.itemsize or end > len(body):
            return None
        inputs[name] = Tensor(name, datatype, np.ndarray(shape, dtype, body, place))
        place = end
    if not inputs or place != len(body):
        return None
    parameters = {} if head.parameters is None else _checked(head.parameters, "the request")
    outputs, binary = (None, {}) if head.outputs is None else _outputs(head.outputs)
    default = parameters.get("binary_data_output") is True
    return Decoded(checked_id(head.id), parameters, inputs, outputs, binary, default)


def _header_length(text: str | None, total: int) -> int:
    if text is None:
        return total
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS) or int(text) > total:
        raise BadRequest(
            "Inference-Header-Content-Length must be the length of the JSON part, at most "
            f"{total} bytes here"
        )
    return int(text)


def _raw_body(body: bytes, signature: Signature | None) -> Decoded:
    """Header value 0: the whole body is the one tensor of a one-input model."""
    if signature is None or len(signature.inputs) != 1:
        raise BadRequest("a raw body (header length 0) needs a model with exactly one input")
    spec = signature.inputs[0]
    if sum(dim < 0 for dim in spec.shape) > 1:
        raise BadRequest("a raw body needs a model whose input has at most one dynamic dimension")
    if spec.datatype == "BYTES":
        shape: tuple[int, ...] = tuple(1 if dim < 0 else dim for dim in spec.shape)
        if prod(shape) != 1:
            raise BadRequest("a raw body of BYTES needs a model that takes one element")
        data = np.array([body], dtype=object).reshape(shape)
    else:
        fixed = prod(dim for dim in spec.shape if dim >= 0) * DTYPES[spec.datatype].itemsize
        rows, rest = divmod(len(body), fixed) if fixed else (0, 1)
        if rest or not rows:
            raise BadRequest(f"a raw body must be a multiple of {fixed} bytes for this model")
        data = _binary(memoryview(body), spec, tuple(rows if d < 0 else d for d in spec.shape))
    return Decoded("", {}, {spec.name: Tensor(spec.name, spec.datatype, data)}, None, {}, True)


def _binary(view: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    try:
        return parse_raw(view, spec.datatype, shape, spec.name)
    except InputInvalid as exc:
        raise BadRequest(str(exc)) from exc


def _input(item: object, tail: memoryview) -> tuple[Tensor, int]:
    """One input, and how many bytes of `tail` it used."""
    if not isinstance(item, dict):
        raise BadRequest("each input must be an object")
    name, datatype = item.get("name"), item.get("datatype")
    if not isinstance(name, str) or not name:
        raise BadRequest("an input has no 'name'")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise BadRequest(f"input '{name}' has unknown datatype '{str(datatype)[:32]}'")
    shape, data = item.get("shape"), item.get("data")
    if not isinstance(shape, list):
        raise BadRequest(f"input '{name}' needs a 'shape': a list of at most {MAX_DIMS} numbers")
    shape = checked_shape(shape, name)
    size = None
    if item.get("parameters") is not None:
        size = _parameters(item, f"input '{name}'").get("binary_data_size")
    if size is None:
        if data is None:
            raise BadRequest(f"input '{name}' has neither 'data' nor 'binary_data_size'")
        return Tensor(name, datatype, to_array(data, datatype, shape, name)), 0
    if data is not None:
        raise BadRequest(f"input '{name}' has both 'data' and 'binary_data_size'")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail):
        raise BadRequest(f"input '{name}': binary_data_size is not the number of bytes sent")
    raw = _binary(tail[:size], TensorSpec(name, datatype, ()), shape)
    return Tensor(name, datatype, raw), size


def _parameters(item: Mapping[str, Any], where: str) -> Parameters:
    found = item.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest(f"'parameters' of {where} must be an object")
    return _checked(found, where)


def _checked(found: dict[str, Any], where: str) -> Parameters:
    for value in found.values():
        if not isinstance(value, str | int | float | bool):
            raise BadRequest(f"'parameters' of {where}: values are strings, numbers or booleans")
    return found


def _outputs(listed: object) -> tuple[tuple[str, ...] | None, dict[str, bool]]:
    if listed is None:
        return None, {}
    if not isinstance(listed, list):
        raise BadRequest("'outputs' must be a list")
    binary: dict[str, bool] = {}
    names: list[str] = []
    for item in listed:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise BadRequest("an output has no 'name'")
        parameters = _parameters(item, f"output '{name}'")
        if "classification" in parameters:
            raise BadRequest("the classification extension is not supported; leave it out")
        if "binary_data" in parameters:
            binary[name] = parameters["binary_data"] is True
        names.append(name)
    return tuple(names) or None, binary


def encode(
    head: dict[str, Any],
    specs: tuple[TensorSpec, ...],
    outputs: Mapping[str, Array],
    *,
    binary: Mapping[str, bool],
    binary_default: bool,
) -> tuple[bytes, int | None]:
    """Write the body of an infer reply.

    Returns:
        The body, and the length of its JSON part when binary tensors follow it.
    """
    listed, tails = [], []
    for spec in specs:
        data = outputs[spec.name]
        item: dict[str, Any] = {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(data.shape),
        }
        if binary.get(spec.name, binary_default):
            raw = format_raw(data)
            item["parameters"] = {"binary_data_size": len(raw)}
            tails.append(raw)
        else:
            item["data"] = _json_data(data, spec)
        listed.append(item)
    head["outputs"] = listed
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return text, None
    return b"".join((text, *tails)), len(text)


def _json_data(data: Array, spec: TensorSpec) -> Array | list[str]:
    if spec.datatype in ("FP16", "BF16"):
        raise BadRequest(f"output '{spec.name}' is {spec.datatype}: ask for it as binary data")
    if spec.datatype == "BYTES":
        return [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in data.ravel()
        ]
    return np.ascontiguousarray(data).ravel()
