"""Which backend opens an artefact: the signed manifest says.

Rule: torch and TensorFlow are imported only when a version that needs them is opened (they cost
seconds and hundreds of megabytes); a missing one is a sentence, not a traceback.
Boundary: `device` is a wish that each backend meets or refuses, never a fallback unnoticed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import DeviceUnavailable
from .model import Model
from .onnx import Device, OnnxModel
from .registry import Artefact
from .remote import RemoteModel

__all__ = ["Opening", "open_model"]

_MODULES: Final = {
    "torchscript": (".torch", "TorchModel", "torch"),
    "torch-export": (".torch", "TorchModel", "torch"),
    "tensorflow": (".tensorflow", "TensorFlowModel", "tensorflow"),
}


@dataclass(frozen=True, slots=True)
class Opening:
    """What a backend may need besides the artefact.

    Attributes:
        device: where the model is to run.
        threads: of one model's session.
        context: the trace context of the running request, for a remote model.
        messages: the protocol's gRPC messages by name, for a remote model over gRPC.
    """

    device: Device = "auto"
    threads: int = 1
    context: Callable[[], str] = field(default=lambda: "")
    messages: Any = None


def open_model(artefact: Artefact, opening: Opening) -> Model:
    """Load one version with the backend that its manifest names.

    Raises:
        DeviceUnavailable: the device or the library that it needs is not here.
        ModelFailed: the library could not load it.
        ModelNotReady: a remote model is away.
    """
    backend = artefact.manifest.backend
    if backend == "onnx":
        return OnnxModel(artefact, device=opening.device, threads=opening.threads)
    if backend == "remote":
        return RemoteModel(artefact, context=opening.context, messages=opening.messages)
    module, kind, package = _MODULES[backend]
    try:
        found = importlib.import_module(module, __package__)
    except ImportError as exc:
        raise DeviceUnavailable(
            f"could not load {artefact.manifest.name}:{artefact.manifest.version}: the package "
            f"'{package}' is missing here; install the extra '{package}'"
        ) from exc
    opened: Model = getattr(found, kind)(artefact, device=opening.device, threads=opening.threads)
    return opened
