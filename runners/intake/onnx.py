"""Read an ONNX file: names, types and shapes, and the data files beside it.

Rule: ONNX Runtime's own view of inputs and outputs counts, because it is what will serve. Weights
kept outside the file are taken along; a path that leads out of its folder is refused.
Source: ONNX IR, "External Tensor Data"; ONNX Runtime `NodeArg`.
Boundary: needs the package `onnx` (extra `register`); reads files, changes nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path, PurePosixPath
from typing import Any

import onnxruntime as ort

from ..errors import ModelFailed
from ..feeds import TYPES
from ..onnx import NETWORK, open_session
from .draft import Draft, NotRegistered, Port

__all__ = ["read_onnx"]


def read_onnx(path: Path) -> Draft:
    """Read `path`.

    Raises:
        NotRegistered: not an ONNX file, an operator or a type that cannot be served, or data files
            that are missing or lie elsewhere.
    """
    proto = _proto(path)
    files = {NETWORK: path} | _external(path, proto)
    try:
        session = open_session(str(path), "cpu", 1)
    except ModelFailed as exc:
        raise NotRegistered(f"could not register {path.name}: ONNX Runtime says: {exc}") from exc
    inputs = tuple(_port(found, "input") for found in session.get_inputs())
    outputs = tuple(_port(found, "output") for found in session.get_outputs())
    if {"BYTES", "BF16"} <= {port.datatype for port in (*inputs, *outputs)}:
        raise NotRegistered(
            f"could not register {path.name}: ONNX Runtime cannot bind BF16 and strings in one "
            "model; cast the BF16 tensors to FP32 inside the graph"
        )
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return Draft(
        backend="onnx",
        framework=producer or "onnx",
        runtime=f"onnxruntime {ort.__version__}",
        opset=max(
            (i.version for i in proto.opset_import if i.domain in ("", "ai.onnx")), default=0
        ),
        inputs=inputs,
        outputs=outputs,
        files=files,
    )


def _proto(path: Path) -> Any:
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as exc:
        raise NotRegistered(
            "could not read an ONNX file: the package 'onnx' is missing; install the extra "
            "'register'"
        ) from exc
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # the package raises its protobuf library's own errors: told as one
        raise NotRegistered(f"could not register {path.name}: it is no ONNX file") from exc


def _external(path: Path, proto: Any) -> dict[str, Path]:
    """The files beside `path` that hold its weights, by their names in the graph."""
    helper = importlib.import_module("onnx.external_data_helper")
    found: dict[str, Path] = {}
    for tensor in helper._get_all_tensors(proto):
        if not helper.uses_external_data(tensor):
            continue
        name = helper.ExternalDataInfo(tensor).location
        place = PurePosixPath(name)
        if not name or place.is_absolute() or ".." in place.parts or name == NETWORK:
            raise NotRegistered(
                f"could not register {path.name}: it keeps weights in '{name[:200]}', which is not "
                "a file below its own folder"
            )
        data = path.parent / place
        if not data.is_file():
            raise NotRegistered(
                f"could not register {path.name}: its data file '{name[:200]}' is missing; put it "
                f"beside {path.name}"
            )
        found[place.as_posix()] = data
    return found


def _port(found: Any, what: str) -> Port:
    datatype = TYPES.get(found.type)
    if datatype is None:
        advice = "export it with zipmap=False" if "map" in found.type else "cast it in the graph"
        raise NotRegistered(
            f"could not register the model: {what} '{found.name}' is a {found.type}, which the "
            f"protocol has no datatype for; {advice}"
        )
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else _size(dim) for dim in found.shape)
    return Port(found.name, datatype, dims)


def _size(dim: object) -> str:
    """The name of a size; what ONNX Runtime itself made up counts as unnamed."""
    return dim if isinstance(dim, str) and not dim.startswith(("unk__", "?")) else ""
