"""The figures of a version, as a table for a person.

Boundary: rich only; everything shown is in evaluation.json, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["figures_line", "show"]


def figures_line(result: Mapping[str, Any]) -> str:
    """The figures that matter most, in one line."""
    names = ("accuracy", "macro_f1", "auc", "rmse")
    return "  ".join(f"{name} {result[name]:.4f}" for name in names if name in result)


def show(console: Console, title: str, result: Mapping[str, Any]) -> None:
    """Print precision, recall and F1 by class with the confusion matrix, and what else is known."""
    labels = result["labels"]
    table = Table(title=f"{title}: {result['rows']} held-out rows", title_justify="left")
    table.add_column("class")
    for heading in ("precision", "recall", "F1", "rows", *(f"→ {label}" for label in labels)):
        table.add_column(heading, justify="right")
    for label, counts in zip(labels, result["confusion"], strict=True):
        row = result["per_class"][label]
        scores = [f"{row[name]:.3f}" for name in ("precision", "recall", "f1")]
        table.add_row(label, *scores, str(row["support"]), *map(str, counts))
    console.print(table)
    console.print(figures_line(result), highlight=False)
    for name, table in result.get("baselines", {}).items():
        console.print(_against(name, result, table), highlight=False)
    difference = result["onnx_max_abs_difference"]
    console.print(f"ONNX differs from the framework by at most {difference:.1e}", highlight=False)


def _against(name: str, result: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """How the network compares with a baseline, in all and by group, plainly."""
    pairs = [("all", result["macro_f1"], baseline["macro_f1"])]
    pairs += [
        (group, table["macro_f1"], baseline["by_group"][group]["macro_f1"])
        for group, table in result["by_group"].items()
    ]
    words = [
        f"{group} {mine:.4f} {'beats' if mine > theirs else 'does not beat'} {theirs:.4f}"
        for group, mine, theirs in pairs
    ]
    return f"macro-F1 against {name}: " + ", ".join(words)
