"""ONNX Runtime behind the `Model` seam: one session, one artefact, one device.

Rule: never silently on the CPU. ONNX Runtime drops a provider it cannot start and says nothing,
so after the session is made its own list of providers is read, and `device` says what it says.
Rule: `before` and `after` are the artefact's own pipeline, the one it was trained with.
Source: ONNX Runtime Python API, `InferenceSession.get_providers`.
Boundary: every byte comes from `Artefact.read`, which compares it with the signed manifest.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from .errors import DeviceUnavailable, InputInvalid, ModelFailed
from .pipeline import PIPELINE, Pipeline
from .registry import Artefact
from .tensor import DTYPES, Array, Batch, Signature, TensorSpec

__all__ = ["Device", "OnnxModel", "check_installation"]

Device = Literal["cpu", "cuda", "auto"]
NETWORK = "model.onnx"
_WARM_ROWS = (1, 8)
# ONNX Runtime's errors share no base class; ValueError is for feeds that it cannot convert.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    errors.EPFail,
    errors.EngineError,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoModel,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
    RuntimeError,
    ValueError,
)


def check_installation(device: Device) -> None:
    """Refuse an environment that cannot run on `device`, before anything is loaded.

    Raises:
        DeviceUnavailable: `onnxruntime` and `onnxruntime-gpu` are both installed and overwrote each
            other, or this ONNX Runtime does not offer `device` at all.
    """
    _providers(device)
    names = {dist.metadata["Name"].lower() for dist in metadata.distributions(path=_site())}
    if {"onnxruntime", "onnxruntime-gpu"} <= names:
        raise DeviceUnavailable(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install one of the extras 'cpu' or 'gpu'"
        )


def _site() -> list[str]:
    return [str(Path(ort.__file__).parents[1])]


def _providers(device: Device) -> list[str]:
    wanted = {"cpu": [], "cuda": ["CUDAExecutionProvider"], "auto": ["CUDAExecutionProvider"]}
    available = set(ort.get_available_providers())
    missing = [name for name in wanted[device] if name not in available]
    if missing and device == "cuda":
        raise DeviceUnavailable(
            f"this machine's ONNX Runtime offers {sorted(available)}, not {missing[0]}: install "
            "the extra 'gpu' on a machine with a card, or set WEIGHBRIDGE_DEVICE=auto"
        )
    return [*(name for name in wanted[device] if name in available), "CPUExecutionProvider"]


class OnnxModel:
    """One version in one ONNX Runtime session; `infer` may be called from any one thread."""

    def __init__(self, artefact: Artefact, *, device: Device = "auto", threads: int = 1) -> None:
        """Load the session; cost: reading the file and optimising the graph.

        Raises:
            DeviceUnavailable: `device` is "cuda" and the session does not run there.
            ModelFailed: the file is no model that this runtime can load.
        """
        manifest = artefact.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.digest = manifest.digest
        self.signature: Signature = manifest.signature
        self.runtime = f"onnxruntime {ort.__version__}"
        self._pipeline = Pipeline.parse(artefact.read(PIPELINE))
        self._session = _session(artefact.read(NETWORK), device, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]
        first = self._session.get_providers()[0]
        self.device = "cuda:0" if first == "CUDAExecutionProvider" else "cpu"
        self.inline = self.device == "cpu" and threads == 1
        if device == "cuda" and self.device == "cpu":
            raise DeviceUnavailable(
                f"{self.name}:{self.version} was asked to run on cuda and ONNX Runtime fell back "
                "to the CPU: check the driver and CUDA libraries"
            )

    def warm_up(self) -> None:
        """Run one and eight rows of a neutral input."""
        for rows in _WARM_ROWS:
            self.infer({spec.name: _neutral(spec, rows) for spec in self.signature.inputs})

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer every row of `batch`.

        Raises:
            InputInvalid: preprocessing refuses a value.
            ModelFailed: ONNX Runtime raised.
        """
        feeds = self._pipeline.before(batch)
        try:
            raw = self._session.run(self._outputs, feeds)
        except _ORT_ERRORS as exc:
            raise ModelFailed(f"could not run {self.name}:{self.version}: {exc}") from exc
        return self._pipeline.after(dict(zip(self._outputs, raw, strict=True)))


def _session(network: bytes, device: Device, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(network, sess_options=options, providers=_providers(device))
    except _ORT_ERRORS as exc:
        raise ModelFailed(f"could not load {NETWORK}: {exc}") from exc


def _neutral(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(1 if dim < 0 else dim for dim in spec.shape[1:]))
    if spec.datatype == "BYTES":
        return np.full(shape, b"warm", dtype=object)
    if spec.datatype not in DTYPES:
        raise InputInvalid(f"input '{spec.name}' has unknown datatype '{spec.datatype}'")
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
