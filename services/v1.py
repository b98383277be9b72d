"""The V1 predict call (TF Serving, KServe): rows of values to tensors, answers to rows.

Source: TensorFlow Serving REST API, "row format"; KServe V1 data plane.
Rule: an instance is an object of input names, or the bare value for a model with one input; a
prediction is an object of output names. Values obey the same checks as OIP data (codec.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from runners.tensor import DTYPES, Array, Signature, Tensor, TensorSpec

from .codec import parse_json
from .faults import BadRequest
from .values import to_array

__all__ = ["decode_instances", "decode_rows", "encode_predictions", "prediction_rows"]


def decode_instances(body: bytes, signature: Signature) -> dict[str, Tensor]:
    """Read `{"instances": [...]}` as the signature's inputs.

    Raises:
        BadRequest: no instances, a missing or unknown field, or a value that does not fit.
    """
    found = parse_json(body)
    instances = found.get("instances")
    if instances is None and "inputs" in found:
        raise BadRequest('the column form ("inputs") is not served; send rows as "instances"')
    if not isinstance(instances, list) or not instances:
        raise BadRequest('the body needs a list of "instances"')
    return decode_rows(instances, signature)


def decode_rows(instances: list[Any], signature: Signature) -> dict[str, Tensor]:
    """Rows of named or bare values as the signature's inputs.

    Raises:
        BadRequest: a missing or unknown field, or a value that does not fit.
    """
    names = [spec.name for spec in signature.inputs]
    if signature.batching == "none" and not _stackable(signature, len(instances)):
        return _whole(instances, signature)
    rows = [_fields(instance, names, place) for place, instance in enumerate(instances)]
    return {spec.name: _tensor(spec, [row[spec.name] for row in rows]) for spec in signature.inputs}


def _stackable(signature: Signature, count: int) -> bool:
    """Whether every input's first dimension may be the number of instances."""
    return all(spec.shape and spec.shape[0] in (-1, count) for spec in signature.inputs)


def _whole(instances: list[Any], signature: Signature) -> dict[str, Tensor]:
    """The one instance of a model that does not batch: each field is a whole tensor."""
    if len(instances) != 1:
        raise BadRequest("this model answers one instance at a time")
    fields = _fields(instances[0], [spec.name for spec in signature.inputs], 0)
    found = {}
    for spec in signature.inputs:
        value = fields[spec.name]
        shape = spec.shape if min(spec.shape, default=0) >= 0 else np.array(value, object).shape
        values = value if isinstance(value, list) else [value]
        found[spec.name] = Tensor(
            spec.name, spec.datatype, to_array(values, spec.datatype, shape, spec.name)
        )
    return found


def _fields(instance: object, names: list[str], place: int) -> dict[str, Any]:
    if not isinstance(instance, dict):
        if len(names) == 1:
            return {names[0]: instance}
        raise BadRequest(f"instance {place} must be an object with the fields {', '.join(names)}")
    missing = [name for name in names if name not in instance]
    unknown = [str(name)[:64] for name in instance if name not in names]
    if missing or unknown:
        problem = f"lacks '{missing[0]}'" if missing else f"has an unknown field '{unknown[0]}'"
        raise BadRequest(f"instance {place} {problem}; fields: {', '.join(names)}")
    return instance


def _tensor(spec: TensorSpec, values: list[Any]) -> Tensor:
    shape = (len(values), *spec.shape[1:])
    if any(dim < 0 for dim in shape):
        shape = np.array(values, dtype=object).shape
    return Tensor(spec.name, spec.datatype, to_array(values, spec.datatype, shape, spec.name))


def encode_predictions(specs: tuple[TensorSpec, ...], outputs: dict[str, Array]) -> bytes:
    """Write `{"predictions": [...]}`; one-element rows become plain values."""
    return orjson.dumps({"predictions": prediction_rows(specs, outputs)})


def prediction_rows(
    specs: tuple[TensorSpec, ...], outputs: dict[str, Array]
) -> list[dict[str, Any]]:
    """One object of output names per row; one for the whole answer where rows do not match."""
    lengths = {outputs[spec.name].shape[:1] for spec in specs}
    if len(lengths) != 1 or () in lengths:
        return [{spec.name: _plain(outputs[spec.name]) for spec in specs}]
    columns = {spec.name: [_plain(row) for row in outputs[spec.name]] for spec in specs}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(row: Array) -> Any:
    if isinstance(row, np.ndarray | np.generic) and row.dtype == DTYPES["BF16"]:
        row = row.astype(np.float32)  # exact; its own scalars are no JSON
    values = row.tolist() if isinstance(row, np.ndarray | np.generic) else row
    if isinstance(values, list) and len(values) == 1:
        values = values[0]
    return _decoded(values)


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_decoded(item) for item in value] if isinstance(value, list) else value
