"""What an explainer must know of the training data: statistics only, never a row.

`background.json`: {"modality": "table", "rows": n, "inputs": [
 {"name", "datatype", "categorical": false, "id": bool, "mean", "std", "min", "max",
  "quantiles": {"0": …, "1": …, …, "100": …}},
 {"name", "datatype", "categorical": true, "id": false, "values": […], "frequencies": […]}]}
Inputs stand in the signature's order. An input marked "id" is a name, not a quantity: hold it
fixed. Images and texts have no statistics: {"modality": …, "rows": n, "inputs": []}.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from ..tensor import Array, TensorSpec
from .task import Rows, Task

__all__ = ["BACKGROUND", "background"]

BACKGROUND: Final = "background.json"
_PERCENTILES: Final = range(101)  # fine enough for a column that is zero nine times in ten
_MOST_VALUES: Final = 100


def background(task: Task, train: Rows) -> dict[str, Any]:
    """The statistics of a task's training rows."""
    inputs: list[dict[str, Any]] = []
    if task.modality == "table":
        inputs = [_input(task, spec, train.batch[spec.name]) for spec in task.signature.inputs]
    return {"modality": task.modality, "rows": len(train), "inputs": inputs}


def _input(task: Task, spec: TensorSpec, values: Array) -> dict[str, Any]:
    head: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype}
    if spec.datatype == "BYTES":
        return {**head, "categorical": True, "id": False, **_words(values)}
    numbers = values.ravel().astype(np.float64)
    quantiles = np.percentile(numbers, _PERCENTILES)
    return {
        **head,
        "categorical": False,
        "id": spec.name in task.ids,
        "mean": float(numbers.mean()),
        "std": float(numbers.std()),
        "min": float(numbers.min()),
        "max": float(numbers.max()),
        "quantiles": {
            str(at): float(value) for at, value in zip(_PERCENTILES, quantiles, strict=True)
        },
    }


def _words(values: Array) -> dict[str, Any]:
    """The most frequent words and their shares, which add up to at most 1."""
    counted = Counter(value.decode() for value in values.ravel().tolist())
    common = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:_MOST_VALUES]
    return {
        "values": [word for word, _ in common],
        "frequencies": [count / len(values) for _, count in common],
    }
