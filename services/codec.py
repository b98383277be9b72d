"""Open Inference Protocol over HTTP: bodies to tensors and back, JSON and binary mixed.

Source: OIP v2 HTTP/REST and the binary tensor data extension, as written down in docs/protocol.md.
Rule 1: Content-Type is never consulted; the header `Inference-Header-Content-Length` alone says
that binary tensors follow the JSON.
Rule 2: every byte is accounted for: JSON data has exactly prod(shape) values, binary tensors
exactly the bytes that are there. Anything else is `BadRequest`.
Read next: body.py (the smaller members), shortcuts.py (the bodies that most callers write),
values.py (what becomes of JSON data).
Boundary: no server types; headers come as values.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import orjson

from runners.errors import InputInvalid
from runners.tensor import DTYPES, Array, Signature, Tensor, TensorSpec, format_raw, parse_raw

from .body import Decoded, checked_id, parameters_of, requested_outputs
from .faults import BadRequest
from .shortcuts import read_binary, read_common
from .values import MAX_DIMS, checked_shape, to_array

__all__ = ["decode", "encode", "parse_json"]

_MAX_DIGITS = 12


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
    if header_length is None and (common := read_common(body)) is not None:
        return common
    size = _header_length(header_length, len(body))
    if 0 < size < len(body) and (common := read_binary(body, size)) is not None:
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
    parameters = parameters_of(head, "the request")
    outputs, binary = requested_outputs(head.get("outputs"))
    return Decoded(
        checked_id(head.get("id")),
        parameters,
        inputs,
        outputs,
        binary,
        parameters.get("binary_data_output") is True,
    )


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
        size = parameters_of(item, f"input '{name}'").get("binary_data_size")
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
