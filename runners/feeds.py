"""Numpy arrays to what ONNX Runtime takes, and back, for every datatype of the protocol.

Rule 1: BYTES are UTF-8 texts to ONNX (its strings are Unicode); other bytes are refused by name.
Rule 2: BF16 has no numpy type in ONNX Runtime, so such a model runs with bound values whose bytes
are ours; so does every model on a card, where binding lets the runtime place the copies.
Rule 3: strings cannot be bound (ONNX Runtime 1.31): a model with both BF16 and strings is refused
when it is registered.
Source: ONNX `TensorProto.DataType`; ONNX Runtime `OrtValue`, `IOBinding`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from .errors import InputInvalid
from .tensor import DTYPES, Array

__all__ = ["TYPES", "run_bound", "run_plain"]

# ONNX Runtime's names of the element types that the protocol has.
TYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_BF16: Final = DTYPES["BF16"]
_ONNX_BF16: Final = 16  # TensorProto.BFLOAT16
_OBJECT: Final = np.dtype(object)


def run_plain(
    session: ort.InferenceSession, outputs: list[str], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Run with numpy arrays.

    Raises:
        InputInvalid: a BYTES element is not UTF-8.
    """
    texts = [name for name, data in feeds.items() if data.dtype == _OBJECT]
    if texts:
        feeds = {**feeds, **{name: _texts(name, feeds[name]) for name in texts}}
    found = session.run(outputs, feeds)
    return {name: _array(data) for name, data in zip(outputs, found, strict=True)}


def run_bound(
    session: ort.InferenceSession, outputs: list[str], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Run with bound values; the answers are in the machine's own memory when this returns."""
    binding = session.io_binding()
    held = [_bind(binding, name, data) for name, data in feeds.items()]
    for name in outputs:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    del held  # the inputs' memory had to live until here
    return {name: _value(value) for name, value in zip(outputs, binding.get_outputs(), strict=True)}


def _bind(binding: Any, name: str, data: Array) -> object:
    whole = np.ascontiguousarray(data)
    if whole.dtype != _BF16:
        binding.bind_cpu_input(name, whole)
        return whole
    words = whole.view(np.uint16).reshape(whole.shape)
    value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(words, _ONNX_BF16)
    binding.bind_ortvalue_input(name, value)
    return words, value


def _value(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return _array(value.numpy())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, _BF16).reshape(value.shape())


def _array(data: Any) -> Array:
    """An answer as the protocol has it: strings as bytes."""
    array: Array = np.asarray(data)
    if array.dtype != _OBJECT:
        return array
    out = np.empty(array.size, dtype=object)
    for place, text in enumerate(array.ravel()):
        out[place] = str(text).encode()
    return out.reshape(array.shape)


def _texts(name: str, data: Array) -> Array:
    out = np.empty(data.size, dtype=object)
    for place, value in enumerate(data.ravel()):
        try:
            out[place] = value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as exc:
            raise InputInvalid(f"input '{name}' must hold UTF-8 texts for this model") from exc
    return out.reshape(data.shape)
