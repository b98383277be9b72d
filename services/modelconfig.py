"""A version's configuration, as Triton's clients and `perf_analyzer` read it.

Source: Triton Inference Server, "Model Configuration Extension" and its model_config.proto; field
names, enum texts and defaults are Triton's. What has no meaning here keeps Triton's empty value.
Rule: one JSON value; gRPC's typed message is made from it, so that both doors say the same.
Boundary: reads a slot; knows no protocol.
"""

from __future__ import annotations

from typing import Any

from runners.fleet import Slot
from runners.manifest import Manifest
from runners.tensor import Signature, TensorSpec

__all__ = ["model_config", "platform"]


_FORMS = {
    "onnx": "onnx",
    "torchscript": "libtorch",
    "torch-export": "export",
    "tensorflow": "savedmodel",
    "remote": "oip",
}


def platform(manifest: Manifest) -> str:
    """The engine and the form of the artefact, as Triton names them (`onnxruntime_onnx`)."""
    return f"{_engine(manifest)}_{_FORMS[manifest.backend]}"


def _engine(manifest: Manifest) -> str:
    """The runtime's name without its version."""
    return manifest.runtime.partition(" ")[0]


def model_config(slot: Slot, *, max_batch_rows: int) -> dict[str, Any]:
    """The configuration of one version.

    `max_batch_size` is the largest batch; a request may hold more rows and runs in pieces. `dims`
    leave out the batch dimension, as Triton's do when `max_batch_size` is not 0.
    """
    manifest, signature = slot.manifest, slot.manifest.signature
    return {
        "name": manifest.name,
        "platform": platform(manifest),
        "backend": _engine(manifest),
        "runtime": "",
        "version_policy": {"all": {}},
        "max_batch_size": max_batch_rows if signature.batching == "rows" else 0,
        "input": [_input(spec, signature) for spec in signature.inputs],
        "output": [_output(spec, signature) for spec in signature.outputs],
        "batch_input": [],
        "batch_output": [],
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
        },
        "instance_group": [_instance(slot)],
        "default_model_filename": "",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {
            "digest": {"string_value": manifest.digest},
            "version": {"string_value": manifest.version},
            "device": {"string_value": slot.device},
            "runtime": {"string_value": slot.runtime},
            "labels": {"string_value": ",".join(manifest.labels)},
        },
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }


def _instance(slot: Slot) -> dict[str, Any]:
    """One instance of the version: a version has one session, on one device."""
    kind, _, place = slot.device.partition(":")
    on_gpu = kind == "cuda"
    return {
        "name": f"{slot.manifest.name}_0",
        "kind": "KIND_GPU" if on_gpu else "KIND_CPU",
        "count": 1,
        "gpus": [int(place)] if on_gpu and place.isdigit() else [],
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _tensor(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {
        "name": spec.name,
        "data_type": kind,
        "dims": list(spec.shape if signature.batching == "none" else spec.shape[1:]),
        "is_shape_tensor": False,
    }


def _input(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    return _tensor(spec, signature) | {
        "format": "FORMAT_NONE",
        "allow_ragged_batch": False,
        "optional": False,
    }


def _output(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    return _tensor(spec, signature) | {"label_filename": ""}
