"""One small network of each kind, in PyTorch, and the same again in every form that is served.

Weights come from a fixed seed; `held_out` rows were in nobody's example.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn


class Cnn(nn.Module):
    """(n, 1, 12, 12) -> probabilities (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 25, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(x)))
        pooled = nn.functional.max_pool2d(hidden, 2)
        return torch.softmax(self.head(self.drop(pooled.flatten(1))), 1)


class Lstm(nn.Module):
    """Words (n, 6) -> probabilities (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 5)
        self.lstm = nn.LSTM(5, 7, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(x))
        return torch.softmax(self.head(states[:, -1]), 1)


class Dnn(nn.Module):
    """(n, 9) -> a score (n, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 16)
        self.last = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(torch.tanh(self.first(x))))


class Kind(NamedTuple):
    """How to make one, what it takes per row, and the option that says so."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    datatype: str


KINDS = {
    "cnn": Kind(Cnn, (1, 12, 12), "FP32"),
    "lstm": Kind(Lstm, (6,), "INT64"),
    "dnn": Kind(Dnn, (9,), "FP32"),
}


def network(kind: str) -> nn.Module:
    torch.manual_seed(11)
    made = KINDS[kind].make()
    if isinstance(made, Cnn):  # statistics other than zero and one
        made.norm.running_mean.uniform_(-0.2, 0.2)
        made.norm.running_var.uniform_(0.5, 2)
    return made


def rows(kind: str, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (count, *KINDS[kind].shape)
    if KINDS[kind].datatype == "INT64":
        return rng.integers(0, 10, shape)
    return rng.normal(size=shape).astype(np.float32)


def expected(kind: str, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(kind).eval()(torch.from_numpy(x)).numpy()


def to_onnx(kind: str, path: Path) -> Path:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(kind).eval(),
            (torch.from_numpy(rows(kind, 2, 0)),),
            stream,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "rows"}, "y": {0: "rows"}},
            opset_version=17,
            dynamo=False,
        )
    path.write_bytes(stream.getvalue())
    return path


def to_script(kind: str, path: Path) -> Path:
    """Saved in training mode on purpose: serving must switch dropout off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network(kind).train()).save(str(path))
    return path


def to_program(kind: str, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network(kind).eval(),
            (torch.from_numpy(rows(kind, 2, 0)),),
            dynamic_shapes={"x": {0: torch.export.Dim("rows")}},
        )
        torch.export.save(program, path)
    return path


def weights(kind: str) -> dict[str, Any]:
    return {name: value.numpy() for name, value in network(kind).state_dict().items()}
