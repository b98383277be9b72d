"""PyTorch behind the `Model` seam: TorchScript files and exported programs.

Rule 1: never silently on the CPU: asked for a card, a version is not served without one, and the
warm-up looks where the answers really lie.
Rule 2: inputs are copied before the network sees them, and answers before they leave: a network may
write into either.
Rule 3: `torch.compile` only where the manifest says so, and only for exported programs.
Source: torch 2.13 `torch.jit.load`, `torch.export.load`, `torch.compile`.
Boundary: this module imports torch (seconds, hundreds of megabytes); backends.py imports it only
for a version that needs it. Every byte comes from `Artefact.read`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.utils import _pytree as pytree

from .errors import DeviceUnavailable, ModelFailed
from .onnx import Device
from .registry import Artefact
from .tensor import DTYPES, Array, Batch
from .warm import warm_batches

__all__ = ["DATATYPES", "TorchModel", "array_of", "load_program", "load_script", "structure_of"]

DATATYPES: Final[Mapping[Any, str]] = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_BF16: Final = DTYPES["BF16"]
_WARM_TURNS: Final = 3  # TorchScript's executor specialises itself in its first runs


class TorchModel:
    """One version in one module; `infer` may be called from the thread that made it."""

    def __init__(self, artefact: Artefact, *, device: Device = "auto", threads: int = 1) -> None:
        """Load the file onto the device.

        Raises:
            DeviceUnavailable: `device` needs a card and PyTorch sees none.
            ModelFailed: the file is no module that this PyTorch can load.
        """
        manifest = artefact.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.digest = manifest.digest
        self.signature = manifest.signature
        self.runtime = f"torch {torch.__version__}"
        self.inline = False  # torch computes in threads of its own
        self.device = _device(device, f"{self.name}:{self.version}")
        torch.set_num_threads(threads)
        self._warm = warm_batches(artefact)
        self._names = [name for name in manifest.options.get("outputs", "").split(",") if name]
        (file,) = artefact.network()
        data = artefact.read(file)
        if manifest.backend == "torchscript":
            self._call = _script(data, self.device)
        else:
            compiled = manifest.options.get("compile") == "true"
            self._call = _program(data, self.device, compiled=compiled)

    def warm_up(self) -> None:
        """Run each batch of the warm-up a few times, and look where the answers lie.

        Raises:
            DeviceUnavailable: they were computed elsewhere than asked.
        """
        for batch in self._warm:
            for _ in range(_WARM_TURNS):
                found = self._outputs(batch)
            if any(str(tensor.device) != self.device for tensor in found.values()):
                raise DeviceUnavailable(
                    f"{self.name}:{self.version} was asked to run on {self.device} and answers "
                    f"from {next(iter(found.values())).device}: export it for any device"
                )

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer every row of `batch`.

        Raises:
            ModelFailed: the module raised, or gave something other than tensors.
        """
        return {name: array_of(tensor) for name, tensor in self._outputs(batch).items()}

    def _outputs(self, batch: Batch) -> dict[str, Any]:
        feeds = [_tensor(batch[spec.name]).to(self.device) for spec in self.signature.inputs]
        try:
            with torch.inference_mode():
                found = self._call(feeds)
        except Exception as exc:  # a model's own code may raise anything: its callers learn of it
            raise ModelFailed(f"could not run {self.name}:{self.version}: {exc}") from exc
        return _named(found, self._names)


def _device(device: Device, tag: str) -> str:
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda:0"
    if device == "auto":
        return "cpu"
    raise DeviceUnavailable(
        f"{tag} was asked to run on {device} and PyTorch sees no card: check the driver and that "
        "this is not the CPU build, or set WEIGHBRIDGE_DEVICE=auto"
    )


def load_script(data: bytes, device: str) -> Any:
    """A TorchScript module in evaluation mode.

    Raises:
        ModelFailed: the bytes are none.
    """
    try:
        return torch.jit.load(io.BytesIO(data), map_location=device).eval()
    except Exception as exc:  # the loader raises whatever the archive makes it raise
        raise ModelFailed(f"could not load a TorchScript file: {exc}") from exc


def load_program(data: bytes) -> Any:
    """An exported program.

    Raises:
        ModelFailed: the bytes are none.
    """
    try:
        return torch.export.load(io.BytesIO(data))
    except Exception as exc:  # as above
        raise ModelFailed(f"could not load a torch.export file: {exc}") from exc


def structure_of(program: Any) -> tuple[tuple[int, ...], dict[str, int]]:
    """Which flat input is which argument: positions, and positions by keyword.

    Raises:
        ModelFailed: an argument is not a plain tensor.
    """
    count = len(program.graph_signature.user_inputs)
    args, keywords = pytree.tree_unflatten(list(range(count)), program.call_spec.in_spec)
    if not all(isinstance(place, int) for place in (*args, *keywords.values())):
        raise ModelFailed("an input of the exported program is not a tensor of its own")
    return tuple(args), dict(keywords)


def _script(data: bytes, device: str) -> Callable[[Sequence[Any]], Any]:
    module = load_script(data, device)
    return lambda feeds: module(*feeds)


def _program(data: bytes, device: str, *, compiled: bool) -> Callable[[Sequence[Any]], Any]:
    program = load_program(data)
    args, keywords = structure_of(program)
    if device != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    module: Any = program.module()
    if compiled:
        module = torch.compile(module, dynamic=True)

    def call(feeds: Sequence[Any]) -> Any:
        named = {name: feeds[place] for name, place in keywords.items()}
        return module(*(feeds[place] for place in args), **named)

    return call


def _tensor(data: Array) -> Any:
    """A copy of an array as a tensor."""
    if data.dtype == _BF16:
        return torch.tensor(np.ascontiguousarray(data).view(np.int16)).view(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a read-only array: it is copied, not written to
        return torch.tensor(data)


def array_of(tensor: Any) -> Array:
    """A copy of a tensor as an array."""
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        words: Array = plain.view(torch.int16).numpy().copy()
        return words.view(_BF16)
    found: Array = plain.numpy().copy()
    return found


def _named(found: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a module gave, by name: a dictionary's own, the manifest's, or `output__N`."""
    if isinstance(found, Mapping):
        parts, own = list(found.values()), [str(name) for name in found]
    else:
        parts = list(found) if isinstance(found, tuple | list) else [found]
        own = [f"output__{place}" for place in range(len(parts))]
    chosen = list(names) or own
    if len(chosen) != len(parts) or not all(isinstance(part, torch.Tensor) for part in parts):
        raise ModelFailed(
            f"the module gave {len(parts)} outputs where {len(chosen)} tensors are named"
        )
    return dict(zip(chosen, parts, strict=True))
