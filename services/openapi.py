"""The OpenAPI 3.1 document of the HTTP surface, with examples of what is served.

Rule: `openapi.yaml` beside this file is written by hand and is the document; here only the version
of the server and examples are put in, so that a reader, or a generated client, can call at once.
Boundary: reads the fleet; `GET /v2/openapi.json` answers it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from math import prod
from typing import Any

import orjson
import yaml

from runners.fleet import Fleet
from runners.tensor import Signature, TensorSpec

__all__ = ["document"]

_MAX_VALUES = 64
_DATA = {"BYTES": "text", "BOOL": False, "FP32": 0.5, "FP64": 0.5}


def document(fleet: Fleet, *, version: str) -> dict[str, Any]:
    """The document; `version` is the server's. Examples: one request per served model."""
    found: dict[str, Any] = orjson.loads(_written())
    found["info"]["version"] = version
    parameters = found["components"]["parameters"]
    infers, instances = {}, {}
    for name in fleet.names():
        newest = fleet.versions(name)[-1]
        signature = fleet.slot(name, newest).manifest.signature
        parameters["model"].setdefault("examples", {})[name] = {"value": name}
        parameters["version"].setdefault("examples", {})[newest] = {"value": newest}
        if _fits_json(signature):
            infers[name] = {"value": _infer(signature)}
            if all(len(spec.shape) > 1 and spec.shape[0] < 0 for spec in signature.inputs):
                instances[name] = {"value": _instance(signature)}
    for path, operations in found["paths"].items():
        if path.endswith("/infer"):
            _show(operations, infers)
        elif path.endswith((":predict", ":explain")):
            _show(operations, instances)
    return found


@lru_cache(maxsize=1)
def _written() -> bytes:
    """The document as written; JSON takes YAML's shared parts apart."""
    text = (resources.files(__package__) / "openapi.yaml").read_text(encoding="utf-8")
    return orjson.dumps(yaml.safe_load(text))


def _show(operations: dict[str, Any], examples: dict[str, Any]) -> None:
    if examples:
        operations["post"]["requestBody"]["content"]["application/json"]["examples"] = examples


def _fits_json(signature: Signature) -> bool:
    """Whether a small request in JSON can be made, and be answered in JSON."""
    kinds = {spec.datatype for spec in (*signature.inputs, *signature.outputs)}
    small = sum(_values(spec) for spec in signature.inputs) <= _MAX_VALUES
    return small and not kinds & {"FP16", "BF16"}


def _shape(spec: TensorSpec) -> list[int]:
    return [1 if dim < 0 else dim for dim in spec.shape]


def _values(spec: TensorSpec) -> int:
    return prod(_shape(spec))


def _infer(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": _shape(spec),
                "data": [_DATA.get(spec.datatype, 0)] * _values(spec),
            }
            for spec in signature.inputs
        ]
    }


def _instance(signature: Signature) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for spec in signature.inputs:
        value: Any = _DATA.get(spec.datatype, 0)
        for dim in reversed(_shape(spec)[1:]):
            value = [value] * dim
        row[spec.name] = value
    return {"instances": [row]}
