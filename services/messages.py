"""gRPC messages to tensors and back: raw and typed contents.

Source: Open Inference Protocol, gRPC; docs/protocol.md.
Rule 1: `raw_input_contents` holds exactly one entry per input and the typed contents are then
empty. FP16 and BF16 travel raw only.
Rule 2: every value is accounted for, and none is changed: a typed value that its datatype cannot
hold is refused.
Boundary: messages in, tensors out; rpc.py knows the calls.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from runners.errors import InputInvalid
from runners.tensor import DTYPES, Array, Tensor, format_raw, parse_raw

from .dataplane import Reply
from .faults import BadRequest
from .layouts import Layout, Layouts, parse_inputs
from .oip import message
from .values import checked_shape

__all__ = ["read_inputs", "read_parameters", "write_response"]

_InferResponse = message("ModelInferResponse")
_layouts = Layouts()
_LENGTH = struct.Struct("<I").unpack_from
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read_parameters(parameters: Any) -> dict[str, str | int | float | bool]:
    """The request's parameters that hold a value."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen.items() if field}


def read_inputs(request: Any) -> dict[str, Tensor]:
    """The tensors of a request, an `oip.Envelope`.

    Raises:
        BadRequest: counts, names, shapes or values that do not fit together.
    """
    raw, inputs = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(inputs):
        raise BadRequest(f"raw_input_contents has {len(raw)} entries for {len(inputs)} inputs")
    if not inputs:
        raise BadRequest("the request has no inputs")
    try:
        if not raw:
            return {tensor.name: _typed(tensor) for tensor in parse_inputs(inputs)}
        layouts = _layouts.read(tuple(inputs))
    except DecodeError as exc:
        raise BadRequest("the message is not an inference.ModelInferRequest") from exc
    return {
        layout.name: Tensor(layout.name, layout.datatype, _raw(layout, data))
        for layout, data in zip(layouts, raw, strict=True)
    }


def _raw(layout: Layout, data: bytes) -> Array:
    """The array; the two commonest forms are read here, the others and what is wrong elsewhere."""
    size = len(data)
    if size == layout.size:
        return np.ndarray(layout.shape, layout.dtype, data)
    if layout.first is not None and size >= 4 and _LENGTH(data)[0] == size - 4:
        text = np.empty(layout.shape, dtype=object)
        text[layout.first] = data[4:]
        return text
    try:
        return parse_raw(data, layout.datatype, layout.shape, layout.name)
    except InputInvalid as exc:
        raise BadRequest(str(exc)) from exc


def _typed(tensor: Any) -> Tensor:
    shape = checked_shape(tensor.shape, tensor.name)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise BadRequest(f"input '{tensor.name}': {tensor.datatype} must be sent raw")
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise BadRequest(
                f"input '{tensor.name}': {tensor.datatype} stands in {field}, not in {other.name}"
            )
    values = getattr(tensor.contents, field)
    dtype = DTYPES[tensor.datatype]
    if dtype == np.dtype(object):
        data = np.empty(len(values), dtype=object)
        data[:] = values
    else:
        wide = np.array(values)
        data = wide.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(wide, data):
            raise BadRequest(f"input '{tensor.name}': a value is out of range")
    expected = prod(shape)
    if data.size != expected:
        raise BadRequest(
            f"input '{tensor.name}': {field} has {data.size} values, shape {list(shape)} needs "
            f"{expected}"
        )
    return Tensor(tensor.name, tensor.datatype, data.reshape(shape))


def write_response(reply: Reply, request_id: str, *, raw: bool) -> Any:
    """The reply's message, with raw or typed contents; raw where an output has no typed form."""
    response = _InferResponse(model_name=reply.model, model_version=reply.version, id=request_id)
    response.parameters["weighbridge_decision"].string_param = reply.decision
    receipt = str(reply.receipt)
    response.parameters["weighbridge_receipt"].string_param = receipt
    if reply.arm:
        response.parameters["weighbridge_arm"].string_param = reply.arm
    raw = raw or any(spec.datatype in ("FP16", "BF16") for spec in reply.specs)
    for spec in reply.specs:
        data = reply.outputs[spec.name]
        tensor = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=data.shape)
        if raw:
            response.raw_output_contents.append(format_raw(data))
        else:
            values = getattr(tensor.contents, _CONTENTS[spec.datatype])
            values.extend(data.ravel().tolist())
    return response
