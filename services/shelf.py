"""The artefacts that explanations are made with, each loaded once, exactly as registered.

Rule: a version is verified when it is opened, and known by its digest ever after; nothing here
serves a caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from audit.explain import ExplainError
from runners.manifest import Manifest
from runners.model import Model
from runners.tensor import Array, Batch

from .models import open_fleet
from .settings import Settings

__all__ = ["Held", "Shelf"]


class Held(NamedTuple):
    """One version, warm."""

    manifest: Manifest
    model: Model
    background: Mapping[str, Any]

    def predict(self, batch: Batch) -> Array:
        """Raw rows to probabilities, shape (rows, labels): what an explainer asks."""
        return self.model.infer(batch)["probabilities"]


class Shelf:
    """The artefacts that explanations are made with, each loaded once."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is loaded yet; explanations are made on the CPU, the cards are the callers'."""
        self._fleet = open_fleet(settings.model_copy(update={"device": "cpu"}))
        self._held: dict[tuple[str, str], Held] = {}

    def get(self, name: str, version: str) -> Held:
        """One version, verified and warm.

        Raises:
            RunnerError: it is not held, or its files were changed.
            ExplainError: it was registered without what an explanation needs.
        """
        held = self._held.get((name, version))
        if held is None:
            if not self._fleet.registry.manifest(name, version).explainable:
                raise ExplainError("unknown_modality", "the model was registered without labels")
            artefact = self._fleet.registry.open(name, version)
            model = self._fleet.open_model(artefact)
            model.warm_up()
            background = orjson.loads(artefact.read("background.json"))
            held = self._held[name, version] = Held(artefact.manifest, model, background)
        return held
