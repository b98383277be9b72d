"""From a trained network to ONNX bytes, and the proof that both say the same.

Rule: a version whose ONNX answers differ from the framework's by more than 1e-5 on any held-out
row is refused; the largest difference is kept in its evaluation.
Source: torch.onnx's TorchScript exporter: it writes one LSTM node in 0.3 s where the newer one
takes 5 s; torch is pinned exactly, and the comparison below guards the result.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from ..errors import RunnerError
from ..tensor import Array
from .fit import Part
from .networks import Served

__all__ = ["OPSET", "TOLERANCE", "answers", "difference", "to_onnx"]

OPSET: Final = 17
TOLERANCE: Final = 1e-5
_ROWS: Final = 256


def to_onnx(network: nn.Module, feeds: Mapping[str, Array], outputs: Sequence[str]) -> bytes:
    """Export a trained PyTorch network; rows (and tokens) stay dynamic.

    Args:
        network: trained; its feeds in the pipeline's order.
        feeds: one row or more to trace with; only the first row is used.
        outputs: the names of what `Served` gives.
    """
    sample = tuple(torch.from_numpy(np.ascontiguousarray(values[:1])) for values in feeds.values())
    axes = {name: {0: "rows"} for name in (*feeds, *outputs)}
    if "tokens" in feeds:
        axes["tokens"][1] = "tokens"
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter's own age, and a batch of one before an LSTM, which we made dynamic.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Served(network).eval(),
            sample,
            stream,
            input_names=list(feeds),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load_from_string(stream.getvalue()))
    return stream.getvalue()


def answers(model: bytes, part: Part) -> dict[str, Array]:
    """What ONNX Runtime says for every row, in batches of the rows' own order."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    pieces = []
    for start in range(0, len(part), _ROWS):
        feeds = {name: values[start : start + _ROWS] for name, values in part.feeds.items()}
        pieces.append(session.run(names, feeds))
    joined = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    return dict(zip(names, joined, strict=True))


def difference(tag: str, framework: Mapping[str, Array], exported: Mapping[str, Array]) -> float:
    """The largest absolute difference over all outputs and rows.

    Raises:
        RunnerError: it is more than `TOLERANCE`, or the outputs are not the same ones.
    """
    if set(framework) != set(exported):
        raise RunnerError(f"could not export {tag}: outputs {set(exported)} for {set(framework)}")
    largest = max(float(np.abs(framework[name] - exported[name]).max()) for name in framework)
    if not largest <= TOLERANCE:
        raise RunnerError(
            f"could not export {tag}: ONNX and the framework differ by {largest:.2e}, more than "
            f"{TOLERANCE:.0e}; nothing was registered"
        )
    return largest
