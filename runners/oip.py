"""The Open Inference Protocol as a caller speaks it: batches to requests, replies to outputs.

Rule 1: tensors travel as binary in both directions, whatever their datatype.
Rule 2: a reply counts only when it is whole: every output of the signature, of its datatype and
admitted shape, and not a byte more. Anything else is `ModelFailed`; the far side's texts stay here.
Source: OIP v2, HTTP/REST with the binary tensor data extension, and gRPC.
Boundary: bytes and messages; remote.py moves them. Message classes are handed in, because their
descriptor pool belongs to whoever serves the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from .errors import InputInvalid, ModelFailed
from .tensor import Array, Batch, Signature, datatype_of, format_raw, parse_raw

__all__ = ["format_http", "format_message", "parse_http", "parse_message", "parse_metadata"]


def format_http(batch: Batch, signature: Signature) -> tuple[bytes, int]:
    """The body of an infer call and the length of its JSON part; inverse of a server's reading."""
    listed, tails = [], []
    for name, data in batch.items():
        raw = format_raw(data)
        listed.append(
            {
                "name": name,
                "shape": list(data.shape),
                "datatype": datatype_of(data.dtype),
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        tails.append(raw)
    outputs = [
        {"name": spec.name, "parameters": {"binary_data": True}} for spec in signature.outputs
    ]
    text = orjson.dumps({"inputs": listed, "outputs": outputs})
    return b"".join((text, *tails)), len(text)


def parse_http(body: bytes, header_length: str | None, signature: Signature) -> dict[str, Array]:
    """The outputs of an infer reply.

    Raises:
        ModelFailed: it is no whole reply of this signature.
    """
    try:
        size = len(body) if header_length is None else int(header_length)
        head, tail = orjson.loads(body[:size]), memoryview(body)[size:]
        found: dict[str, Array] = {}
        for item in head["outputs"]:
            length = (item.get("parameters") or {}).get("binary_data_size")
            if length is None:
                found[item["name"]] = _from_json(item)
                continue
            raw, tail = tail[:length], tail[length:]
            found[item["name"]] = parse_raw(
                raw, item["datatype"], tuple(item["shape"]), item["name"]
            )
    except (ValueError, KeyError, TypeError, AttributeError, InputInvalid) as exc:
        raise ModelFailed(f"the remote's reply could not be read: {exc!r}") from exc
    if len(tail):
        raise ModelFailed("the remote's reply holds bytes that belong to no output")
    return _whole(found, signature)


def _from_json(item: Mapping[str, Any]) -> Array:
    """An output of a server that sends JSON although binary was asked for."""
    shape, datatype = tuple(item["shape"]), item["datatype"]
    if datatype == "BYTES":
        values = np.empty(len(item["data"]), dtype=object)
        values[:] = [str(value).encode() for value in item["data"]]
        return values.reshape(shape)
    empty = parse_raw(b"", datatype, (0,), item["name"])
    return np.array(item["data"], dtype=empty.dtype).reshape(shape)


def format_message(
    kind: Any, batch: Batch, signature: Signature, *, model: str, version: str
) -> Any:
    """A `ModelInferRequest` with raw contents; `kind` is the message class."""
    request = kind(model_name=model, model_version=version)
    for name, data in batch.items():
        request.inputs.add(name=name, datatype=datatype_of(data.dtype), shape=data.shape)
        request.raw_input_contents.append(format_raw(data))
    for spec in signature.outputs:
        request.outputs.add(name=spec.name)
    return request


def parse_message(reply: Any, signature: Signature) -> dict[str, Array]:
    """The outputs of a `ModelInferResponse` with raw contents.

    Raises:
        ModelFailed: it is no whole reply of this signature.
    """
    if len(reply.raw_output_contents) != len(reply.outputs):
        raise ModelFailed("the remote's reply has no raw contents for each output")
    try:
        found = {
            tensor.name: parse_raw(raw, tensor.datatype, tuple(tensor.shape), tensor.name)
            for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
        }
    except (ValueError, InputInvalid) as exc:
        raise ModelFailed(f"the remote's reply could not be read: {exc!r}") from exc
    return _whole(found, signature)


def _whole(found: dict[str, Array], signature: Signature) -> dict[str, Array]:
    """Exactly the outputs that the signature names, as it names them; all when it names none."""
    if not signature.outputs:
        return found
    for spec in signature.outputs:
        data = found.get(spec.name)
        if data is None or datatype_of(data.dtype) != spec.datatype:
            raise ModelFailed(f"the remote's reply has no {spec.datatype} output '{spec.name}'")
        if not spec.admits(data.shape):
            raise ModelFailed(
                f"the remote's output '{spec.name}' has shape {list(data.shape)}, the signed "
                f"signature says {list(spec.shape)}"
            )
    return {spec.name: found[spec.name] for spec in signature.outputs}


def parse_metadata(found: object) -> dict[str, list[tuple[str, str, tuple[int, ...]]]]:
    """Inputs and outputs of model metadata: name, datatype, dimensions.

    Raises:
        ModelFailed: it is no model metadata.
    """
    try:
        if not isinstance(found, dict):
            raise TypeError(type(found).__name__)
        return {
            side: [
                (str(t["name"]), str(t["datatype"]), tuple(int(dim) for dim in t["shape"]))
                for t in found[side]
            ]
            for side in ("inputs", "outputs")
        }
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelFailed("the remote's answer is no model metadata") from exc
