"""How good a version is on the rows it never saw, computed from the ONNX model as it is served.

Source: scikit-learn's metrics; macro-F1 is over the classes that occur in the rows' truth; AUC of
more than two classes is the mean of one-against-the-rest.
Boundary: arrays in, a JSON-ready dict out; plots.py draws it, train.py stores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from ..tensor import Array
from .task import Rows, Task

__all__ = ["EVALUATION", "by_group", "evaluate", "headline", "macro_f1"]

EVALUATION: Final = "evaluation.json"
_CURVE_POINTS: Final = 100
_DECIMALS: Final = 6


def evaluate(task: Task, rows: Rows, served: Mapping[str, Array]) -> dict[str, Any]:
    """Compare served answers with the truth.

    Args:
        task: names the classes and the protected attributes.
        rows: the held-out rows.
        served: what `Pipeline.after` gave for them.
    """
    truth, scores = rows.labels, served["probabilities"].astype(np.float64)
    found = served["label"].ravel()
    result: dict[str, Any] = {
        "rows": len(rows),
        "labels": list(task.labels),
        "accuracy": _rounded((found == truth).mean()),
        "log_loss": _rounded(-np.log(scores[np.arange(len(rows)), truth].clip(1e-12)).mean()),
        **_classes(task, truth, found),
        **_ranking(task, truth, scores),
    }
    if rows.groups is not None:
        result["by_group"] = by_group(rows, found)
    if rows.ratings is not None:
        error = served["rating"].ravel().astype(np.float64) - rows.ratings
        result["rmse"] = _rounded(np.sqrt((error**2).mean()))
        constant = rows.ratings - rows.ratings.mean()
        result["rmse_of_the_mean"] = _rounded(np.sqrt((constant**2).mean()))
    if task.protected:
        result["fairness"] = _fairness(task, rows, found)
    return result


def _rounded(value: Any) -> float:
    return round(float(value), _DECIMALS)


def _classes(task: Task, truth: NDArray[np.int64], found: Array) -> dict[str, Any]:
    places = np.arange(len(task.labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, found, labels=places, zero_division=0.0
    )
    return {
        "confusion": confusion_matrix(truth, found, labels=places).tolist(),
        "per_class": {
            label: {
                "precision": _rounded(precision[at]),
                "recall": _rounded(recall[at]),
                "f1": _rounded(f1[at]),
                "support": int(support[at]),
            }
            for at, label in enumerate(task.labels)
        },
        "macro_f1": macro_f1(truth, found),
    }


def macro_f1(truth: NDArray[np.int64], found: Array) -> float:
    """The mean F1 over the classes that occur in `truth`."""
    present = np.unique(truth)
    return _rounded(f1_score(truth, found, labels=present, average="macro", zero_division=0.0))


def by_group(rows: Rows, found: Array) -> dict[str, Any]:
    """Accuracy and macro-F1 of each group of rows; `rows.groups` must be known."""
    tables: dict[str, Any] = {}
    for group in np.unique(np.asarray(rows.groups)):
        mine = rows.groups == group
        truth, said = rows.labels[mine], found[mine]
        tables[str(group)] = {
            "rows": len(truth),
            "accuracy": _rounded((truth == said).mean()),
            "macro_f1": macro_f1(truth, said),
        }
    return tables


def _ranking(task: Task, truth: NDArray[np.int64], scores: Array) -> dict[str, Any]:
    """AUC and ROC curves: of the positive class, or of each class against the rest."""
    wanted = [1] if len(task.labels) == 2 else range(len(task.labels))
    areas, curves = [], {}
    for at in wanted:
        areas.append(float(roc_auc_score(truth == at, scores[:, at])))
        false, true, _ = roc_curve(truth == at, scores[:, at])
        keep = np.unique(np.linspace(0, len(false) - 1, _CURVE_POINTS).astype(np.int64))
        curves[task.labels[at]] = {
            "auc": _rounded(areas[-1]),
            "false_positive_rate": np.round(false[keep], _DECIMALS).tolist(),
            "true_positive_rate": np.round(true[keep], _DECIMALS).tolist(),
        }
    return {"auc": _rounded(np.mean(areas)), "roc": curves}


def _fairness(task: Task, rows: Rows, found: Array) -> dict[str, Any]:
    """Rows, selection rate and true positive rate by group of each protected attribute."""
    positive = task.labels.index(str(task.positive_label))
    tables: dict[str, Any] = {}
    for attribute, where in task.protected.items():
        values = rows.batch[where["input"]].ravel()
        names = _groups(values, where["bands"])
        tables[attribute] = {}
        for name in np.unique(names):
            mine = names == name
            chosen, liked = found[mine] == positive, rows.labels[mine] == positive
            tables[attribute][str(name)] = {
                "rows": int(mine.sum()),
                "selection_rate": _rounded(chosen.mean()),
                "true_positive_rate": _rounded(chosen[liked].mean()) if liked.any() else None,
            }
    return tables


def _groups(values: Array, bands: list[int] | None) -> NDArray[np.str_]:
    if bands is None:
        return np.asarray([value.decode() for value in values.tolist()])
    edges = [f"<{bands[0]}", *(f"{a}-{b - 1}" for a, b in pairwise(bands))]
    return np.asarray([*edges, f">={bands[-1]}"])[np.searchsorted(bands, values, side="right")]


def headline(result: Mapping[str, Any]) -> dict[str, str | int]:
    """The figures that go into the manifest: decimals as strings, no tables."""
    figures: dict[str, str | int] = {"heldout_rows": int(result["rows"])}
    for name in ("accuracy", "macro_f1", "auc", "log_loss", "rmse"):
        if name in result:
            figures[name] = f"{result[name]:.4f}"
    for group, table in result.get("by_group", {}).items():
        figures[f"macro_f1_{group}"] = f"{table['macro_f1']:.4f}"
    for name, table in result.get("baselines", {}).items():
        figures[f"{name}_macro_f1"] = f"{table['macro_f1']:.4f}"
        for group, part in table["by_group"].items():
            figures[f"{name}_macro_f1_{group}"] = f"{part['macro_f1']:.4f}"
        beats = result["macro_f1"] > table["macro_f1"]
        figures[f"beats_{name}"] = "yes" if beats else "no"
    figures["onnx_max_abs_difference"] = f"{result['onnx_max_abs_difference']:.2e}"
    return figures
