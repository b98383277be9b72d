"""What a model's outputs say of each row: its label, and how sure the model was of the first.

Rule: a reference model keeps what its manifest promises; a registered one promises nothing, so its
outputs are looked at before they are believed, and one that does not fit has no labels.
Boundary: pure; knows no request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from runners.manifest import Manifest
from runners.tensor import Array

__all__ = ["Labels", "read_labels"]


class Labels(NamedTuple):
    """The label of each row, none for a model without labels; the first row's score."""

    all: list[str]
    score: float | None


_NONE = Labels([], None)


def read_labels(manifest: Manifest, outputs: Mapping[str, Array], rows: int) -> Labels:
    """The labels of `rows` rows.

    Args:
        manifest: names the outputs that hold labels and scores.
        outputs: of the model.
        rows: how many were asked.
    """
    found = outputs.get(manifest.label_output) if manifest.labels else None
    if found is None or not found.size or found.size % rows:
        return _NONE
    places = [found.item(0)] if rows == 1 else found.reshape(rows, -1)[:, 0].tolist()
    if manifest.options:  # a registered model promises nothing about its labels
        known = _places(manifest, places)
        if known is None:
            return _NONE
        places = known
    names = manifest.labels
    return Labels([names[place] for place in places], _score(manifest, outputs, places[0]))


def _places(manifest: Manifest, found: list[Any]) -> list[int] | None:
    """Where each answered label stands in `labels`; None when one of them is none of these."""
    names = {name.encode(): place for place, name in enumerate(manifest.labels)}
    places = [names.get(label, -1) if isinstance(label, bytes) else label for label in found]
    held = range(len(manifest.labels))
    return places if all(isinstance(p, int) and p in held for p in places) else None


def _score(manifest: Manifest, outputs: Mapping[str, Array], place: int) -> float | None:
    """The first row's probability of the positive label, or of its own label without one."""
    probabilities = outputs.get(manifest.score_output)
    if probabilities is None:
        return None
    if manifest.positive_label is not None and manifest.threshold is not None:
        place = manifest.labels.index(manifest.positive_label)
    if probabilities.ndim != 2 or probabilities.shape[1] <= place:
        return None
    score = float(probabilities[0, place])
    return score if math.isfinite(score) else None
