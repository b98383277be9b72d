"""ONNX Runtime behind the `Model` seam: one session, one artefact, one device.

Rule: never silently on the CPU. ONNX Runtime drops a provider it cannot start and says nothing,
so after the session is made its own list of providers is read, and `device` says what it says.
Rule: a reference artefact runs between the `before` and `after` of its own pipeline, the one it was
trained with; a registered one has none, and inputs go straight in.
Source: ONNX Runtime Python API, `InferenceSession.get_providers`, `io_binding`.
Boundary: every byte comes from `Artefact.read`, which compares it with the signed manifest.
Read next: feeds.py (numpy arrays to what ONNX Runtime takes, and back).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from .errors import DeviceUnavailable, InputInvalid, ModelFailed
from .feeds import run_bound, run_plain
from .manifest import PLAIN
from .pipeline import PIPELINE, Pipeline
from .registry import Artefact
from .tensor import Array, Batch, Signature
from .warm import warm_batches

__all__ = ["NETWORK", "ORT_ERRORS", "Device", "OnnxModel", "check_installation", "open_session"]

Device = Literal["cpu", "cuda", "tensorrt", "auto"]
NETWORK = "model.onnx"
_PROVIDERS: dict[str, list[str]] = {
    "cpu": [],
    "cuda": ["CUDAExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
    "auto": ["CUDAExecutionProvider"],
}
_DEVICES = {"CUDAExecutionProvider": "cuda:0", "TensorrtExecutionProvider": "tensorrt:0"}
# ONNX Runtime's errors share no base class; ValueError is for feeds that it cannot convert.
ORT_ERRORS: tuple[type[Exception], ...] = (
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
    available = set(ort.get_available_providers())
    wanted = _PROVIDERS[device]
    missing = [name for name in wanted if name not in available]
    if missing and device != "auto":
        raise DeviceUnavailable(
            f"this machine's ONNX Runtime offers {sorted(available)}, not {missing[0]}: install "
            "the extra 'gpu' on a machine with a card, or set WEIGHBRIDGE_DEVICE=auto"
        )
    return [*(name for name in wanted if name in available), "CPUExecutionProvider"]


class OnnxModel:
    """One version in one ONNX Runtime session; `infer` may be called from any one thread."""

    def __init__(self, artefact: Artefact, *, device: Device = "auto", threads: int = 1) -> None:
        """Load the session; cost: reading the file and optimising the graph.

        Raises:
            DeviceUnavailable: `device` is "cuda" or "tensorrt" and the session does not run there.
            ModelFailed: the file is no model that this runtime can load.
        """
        manifest = artefact.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.digest = manifest.digest
        self.signature: Signature = manifest.signature
        self.runtime = f"onnxruntime {ort.__version__}"
        self._warm = warm_batches(artefact)
        self._pipeline: Pipeline | None = None
        if manifest.pipeline_version == PLAIN:
            self._session = _open_registered(artefact, device, threads)
            self._outputs = [spec.name for spec in self.signature.outputs]
        else:
            self._pipeline = Pipeline.parse(artefact.read(PIPELINE))
            self._session = open_session(artefact.read(NETWORK), device, threads)
            self._outputs = [output.name for output in self._session.get_outputs()]
        self.device = _DEVICES.get(self._session.get_providers()[0], "cpu")
        self.inline = self.device == "cpu" and threads == 1
        if device in ("cuda", "tensorrt") and not self.device.startswith(device):
            raise DeviceUnavailable(
                f"{self.name}:{self.version} was asked to run on {device} and ONNX Runtime fell "
                f"back to {self.device}: check the driver and the libraries"
            )
        self._run = run_bound if self._binds() else run_plain

    def _binds(self) -> bool:
        """Tensors are bound to the session on a card, and wherever BF16 has no numpy feed."""
        held = [*self._session.get_inputs(), *self._session.get_outputs()]
        types = {tensor.type for tensor in held}
        return "tensor(bfloat16)" in types or (
            self.device != "cpu" and "tensor(string)" not in types
        )

    def warm_up(self) -> None:
        """Run what the artefact brings along, or one and eight rows of a neutral input."""
        for batch in self._warm:
            self.infer(batch)

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer every row of `batch`.

        Raises:
            InputInvalid: preprocessing or a registered network refuses a value or a shape, or a
                text is not UTF-8.
            ModelFailed: ONNX Runtime raised.
        """
        if self._pipeline is None:
            return self._raw(batch)
        return self._pipeline.after(self._raw(self._pipeline.before(batch)))

    def _raw(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return self._run(self._session, self._outputs, feeds)
        except errors.InvalidArgument as exc:
            if self._pipeline is None:  # what goes straight in is the caller's: an index, a shape
                raise InputInvalid("the model refuses these values or shapes") from exc
            raise ModelFailed(f"could not run {self.name}:{self.version}: {exc}") from exc
        except ORT_ERRORS as exc:
            raise ModelFailed(f"could not run {self.name}:{self.version}: {exc}") from exc


def _open_registered(artefact: Artefact, device: Device, threads: int) -> ort.InferenceSession:
    """A network of one file is read into memory; one with external data needs its folder."""
    names = artefact.network()
    if len(names) == 1:
        return open_session(artefact.read(names[0]), device, threads)
    with artefact.unpacked() as folder:
        return open_session(str(folder / NETWORK), device, threads)


def open_session(network: bytes | str, device: Device, threads: int) -> ort.InferenceSession:
    """A session of the bytes of a network, or of the file of that name.

    Raises:
        ModelFailed: it is no model that this runtime can load.
        DeviceUnavailable: this runtime does not offer `device`.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it would print what a caller sent; errors are raised anyway
    try:
        return ort.InferenceSession(network, sess_options=options, providers=_providers(device))
    except ORT_ERRORS as exc:
        raise ModelFailed(f"could not load {NETWORK}: {exc}") from exc
