"""TensorFlow behind the `Model` seam: one signature of a SavedModel.

Rule: never silently on the CPU: asked for a card, a version is not served without one, and the
warm-up looks where the answers really lie.
Source: TensorFlow 2.21 `tf.saved_model.load`, concrete signatures.
Boundary: this module imports TensorFlow (16 s, 650 MB); backends.py imports it only for a version
that needs it. The folder that TensorFlow reads is a checked copy (`Artefact.unpacked`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from .errors import DeviceUnavailable, InputInvalid, ModelFailed
from .onnx import Device
from .registry import Artefact
from .tensor import Array, Batch
from .warm import warm_batches

__all__ = ["DATATYPES", "TensorFlowModel", "load_signature"]

DATATYPES: Final[Mapping[Any, str]] = {
    tf.bool: "BOOL",
    tf.uint8: "UINT8",
    tf.uint16: "UINT16",
    tf.uint32: "UINT32",
    tf.uint64: "UINT64",
    tf.int8: "INT8",
    tf.int16: "INT16",
    tf.int32: "INT32",
    tf.int64: "INT64",
    tf.float16: "FP16",
    tf.bfloat16: "BF16",
    tf.float32: "FP32",
    tf.float64: "FP64",
    tf.string: "BYTES",
}
_OBJECT: Final = np.dtype(object)


class TensorFlowModel:
    """One signature of one SavedModel; `infer` may be called from any one thread."""

    def __init__(self, artefact: Artefact, *, device: Device = "auto", threads: int = 1) -> None:
        """Load the folder.

        Raises:
            DeviceUnavailable: `device` needs a card and TensorFlow sees none.
            ModelFailed: the folder is no SavedModel that this TensorFlow can load.
        """
        manifest = artefact.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.digest = manifest.digest
        self.signature = manifest.signature
        self.runtime = f"tensorflow {tf.__version__}"
        self.inline = False  # TensorFlow computes in threads of its own
        _limit_threads(threads)
        self.device, self._place = _device(device, f"{self.name}:{self.version}")
        self._warm = warm_batches(artefact)
        with artefact.unpacked() as folder, tf.device(self._place):
            self._held, self._call = load_signature(folder, manifest.options["signature"])
        _, taken = self._call.structured_input_signature
        self._types = {name: spec.dtype for name, spec in taken.items()}

    def warm_up(self) -> None:
        """Run each batch of the warm-up, and look where the answers lie.

        Raises:
            DeviceUnavailable: they were computed elsewhere than asked.
        """
        for batch in self._warm:
            found = self._outputs(batch)
            wanted = "GPU" if self.device != "cpu" else "CPU"
            places = {str(t.device) for t in found.values() if t.dtype != tf.string and t.device}
            if places and not any(wanted in place for place in places):
                raise DeviceUnavailable(
                    f"{self.name}:{self.version} was asked to run on {self.device} and TensorFlow "
                    f"answers from {sorted(places)[0]}"
                )

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer every row of `batch`.

        Raises:
            InputInvalid: TensorFlow calls an input an invalid argument.
            ModelFailed: TensorFlow raised anything else.
        """
        found = self._outputs(batch)
        wanted = [spec.name for spec in self.signature.outputs] or list(found)
        return {name: _array(found[name].numpy()) for name in wanted}

    def _outputs(self, batch: Batch) -> dict[str, Any]:
        try:
            with tf.device(self._place):
                feeds = {
                    name: tf.constant(data, dtype=self._types[name]) for name, data in batch.items()
                }
                found: dict[str, Any] = self._call(**feeds)
        except tf.errors.InvalidArgumentError as exc:  # an index, or shapes that do not fit
            raise InputInvalid("the model refuses these values or shapes") from exc
        except Exception as exc:  # a model's own graph may raise anything: its callers learn of it
            raise ModelFailed(f"could not run {self.name}:{self.version}: {exc}") from exc
        return found


def load_signature(folder: Path, key: str) -> tuple[Any, Any]:
    """The SavedModel in `folder` (to be kept alive) and its signature `key`.

    Raises:
        ModelFailed: it cannot be loaded, or has no such signature; says which it has.
    """
    try:
        held = tf.saved_model.load(str(folder))
    except Exception as exc:  # the loader raises whatever the folder makes it raise
        raise ModelFailed(f"could not load a SavedModel: {exc}") from exc
    if key not in held.signatures:
        known = ", ".join(f"'{name}'" for name in held.signatures) or "none"
        raise ModelFailed(f"the SavedModel has no signature '{key}'; it has {known}")
    return held, held.signatures[key]


def _array(data: Any) -> Array:
    found = np.asarray(data)
    if found.dtype.kind not in "OSU":
        return found.astype(found.dtype, copy=True)
    out = np.empty(found.shape, dtype=_OBJECT)
    out[...] = data if found.shape else bytes(data)
    return out


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        return  # TensorFlow has begun: the first version's setting holds for the process


def _device(device: Device, tag: str) -> tuple[str, str]:
    """What is reported, and TensorFlow's own name for it."""
    held = tf.config.list_physical_devices("GPU") if device != "cpu" else []
    if held:
        for card in held:  # otherwise it takes the whole card's memory, and no other model loads
            tf.config.experimental.set_memory_growth(card, True)
        return "cuda:0", "/GPU:0"
    if device in ("cpu", "auto"):
        return "cpu", "/CPU:0"
    raise DeviceUnavailable(
        f"{tag} was asked to run on {device} and TensorFlow sees no card: check the driver and "
        "CUDA libraries, or set WEIGHBRIDGE_DEVICE=auto"
    )
