"""Pictures of a training: the curves, the confusion matrix, the ROC curves.

Boundary: matplotlib without a screen; PNG files in the artefact's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .progress import Epoch

__all__ = ["draw"]


def draw(folder: Path, title: str, history: Sequence[Epoch], evaluation: Mapping[str, Any]) -> None:
    """Write curves.png, confusion.png and roc.png into `folder`."""
    _save(_curves(title, history), folder / "curves.png")
    _save(_confusion(title, evaluation), folder / "confusion.png")
    _save(_roc(title, evaluation), folder / "roc.png")


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})


def _curves(title: str, history: Sequence[Epoch]) -> Figure:
    figure = Figure(figsize=(9, 3), dpi=90, layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    numbers = [epoch.number for epoch in history]
    loss.plot(numbers, [epoch.train_loss for epoch in history], marker=".", label="training")
    loss.plot(numbers, [epoch.valid_loss for epoch in history], marker=".", label="validation")
    loss.set(title="loss (nats)", xlabel="epoch")
    loss.legend()
    accuracy.plot(numbers, [epoch.valid_accuracy for epoch in history], marker=".", color="C1")
    accuracy.set(title="validation accuracy", xlabel="epoch")
    rate.plot(numbers, [epoch.learning_rate for epoch in history], marker=".", color="C2")
    rate.set(title="learning rate", xlabel="epoch")
    figure.suptitle(title)
    return figure


def _confusion(title: str, evaluation: Mapping[str, Any]) -> Figure:
    labels, counts = evaluation["labels"], np.asarray(evaluation["confusion"])
    figure = Figure(figsize=(4.5, 4), dpi=90, layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if share[row, column] > 0.5 else "black"
        words = str(counts[row, column])
        axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, xlabel="answered", ylabel="true")
    return figure


def _roc(title: str, evaluation: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(4.5, 4), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for label, curve in evaluation["roc"].items():
        axes.plot(
            curve["false_positive_rate"],
            curve["true_positive_rate"],
            label=f"{label} ({curve['auc']:.3f})",
        )
    axes.set(title=f"{title}: ROC (AUC)", xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(fontsize=7, loc="lower right")
    return figure
