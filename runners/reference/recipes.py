"""Which network each version is, and how it is trained: the numbers that were tuned.

Rule: fixed seeds; a recipe says everything, and `fast` only shortens it.
Boundary: from feeds to (ONNX bytes, the framework's own held-out answers); no registry, no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..pipeline import Pipeline
from ..tensor import Array
from .export import OPSET, to_onnx
from .fit import Part, Plan, fit, predict
from .keras_fit import fit_keras
from .networks import DigitsNet, RecommendNet, SentimentNet
from .progress import Watch

__all__ = ["Trained", "epochs_of", "train_network", "word_valences"]

# Neutral is a ninth of the rows; without its weight the networks would hardly ever answer it.
_SENTIMENT: Final = Plan(
    5,
    256,
    3e-3,
    patience=2,
    smoothing=0.05,
    class_weights=(1.0, 1.7, 1.0),
    by_length=True,
)
_PLANS: Final[Mapping[tuple[str, str], Plan]] = {
    ("digits", "1"): Plan(10, 64, 1.5e-3, patience=3),
    ("digits", "2"): Plan(16, 64, 2e-3, patience=5),
    ("sentiment", "1"): _SENTIMENT,
    ("sentiment", "2"): _SENTIMENT,
    ("recommend", "1"): Plan(8, 512, 4e-3, patience=2, rating_weight=0.5),
    ("recommend", "2"): Plan(10, 512, 4e-3, patience=2, rating_weight=0.5, weight_decay=0.1),
}
_KERAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "1": {"hidden": [32, 16], "width": 4, "dropout": 0.1, "batch_norm": False, "epochs": 12},
    "2": {"hidden": [64, 32], "width": 4, "dropout": 0.1, "batch_norm": False, "epochs": 20},
}
_KERAS_PLAN: Final[Mapping[str, Any]] = {
    "batch_rows": 256,
    "learning_rate": 4e-3,
    "weight_decay": 4e-3,
    "patience": 4,
    "seed": 7,
    "opset": OPSET,
}
_FAST_EPOCHS: Final = 2


class Trained(NamedTuple):
    """A network as ONNX, its framework's own held-out answers, and the framework's name."""

    onnx: bytes
    answers: dict[str, Array]
    framework: str


def epochs_of(name: str, version: str, *, fast: bool) -> int:
    """The most epochs that a version trains for."""
    if fast:
        return _FAST_EPOCHS
    plan = _PLANS.get((name, version))
    return int(_KERAS[version]["epochs"]) if plan is None else plan.epochs


def train_network(
    name: str,
    version: str,
    pipeline: Pipeline,
    parts: Mapping[str, Part],
    *,
    valences: Mapping[str, float],
    fast: bool,
    threads: int,
    watch: Watch,
) -> Trained:
    """Train one version on `parts` (`train`, `valid`, `test`).

    `valences` is what is known of words beforehand; only texts use it.

    Raises:
        RunnerError: the framework failed.
    """
    epochs = epochs_of(name, version, fast=fast)
    if name == "income":
        sizes = {"numbers": 5, "columns": 7, "places": pipeline.steps[1].size}  # type: ignore[attr-defined] # a Category
        job = {**_KERAS_PLAN, **_KERAS[version], **sizes, "epochs": epochs, "threads": threads}
        return Trained(*fit_keras(parts, job, watch))
    torch.set_num_threads(threads)
    plan = replace(_PLANS[name, version], epochs=epochs)
    if (name, version) == ("digits", "2"):
        plan = replace(plan, augment=_shaken)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = _network(name, version, pipeline, parts["train"], valences)
        fit(network, parts["train"], parts["valid"], plan, watch)
    said = predict(network, parts["test"], by_length=plan.by_length)
    model = to_onnx(network, parts["test"].feeds, list(said))
    return Trained(model, said, f"pytorch {torch.__version__.partition('+')[0]}")


def word_valences(pipeline: Pipeline, valences: Mapping[str, float]) -> NDArray[np.float32]:
    """What is known beforehand of each token number of a `tokens` step; 0 where nothing is."""
    words = pipeline.body["before"][0]["vocabulary"]
    return np.asarray([0.0, 0.0, *(valences.get(word, 0.0) for word in words)], np.float32)


def _network(
    name: str, version: str, pipeline: Pipeline, train: Part, valences: Mapping[str, float]
) -> nn.Module:
    if name == "digits":
        return DigitsNet(batch_norm=version == "2")
    if name == "sentiment":
        known = torch.from_numpy(word_valences(pipeline, valences))
        return SentimentNet(valences=known, bidirectional=version == "2")
    ids = None
    if version == "2":
        ids = (1 + int(train.feeds["user"].max()), 1 + int(train.feeds["item"].max()))
    return RecommendNet(
        categories=pipeline.steps[1].size,  # type: ignore[attr-defined] # a Category
        columns=train.feeds["categories"].shape[1],
        genres=train.feeds["genres"].shape[1],
        ids=ids,
    )


def _shaken(images: Tensor) -> Tensor:
    """Each image turned by up to 12 degrees, scaled and moved by up to a tenth."""
    count = len(images)
    turn = (torch.rand(count) * 2 - 1) * 0.21
    size = 1 + (torch.rand(count) * 2 - 1) * 0.1
    move = (torch.rand(count, 2) * 2 - 1) * 0.14
    cosine, sine = torch.cos(turn) * size, torch.sin(turn) * size
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine, move[:, 0]], dim=1),
            torch.stack([sine, cosine, move[:, 1]], dim=1),
        ],
        dim=1,
    )  # (n, 2, 3)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    shaken: Tensor = nn.functional.grid_sample(images, grid, align_corners=False)
    return shaken
