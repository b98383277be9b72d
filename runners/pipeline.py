"""Raw inputs to network inputs and back: one declarative file, interpreted the same everywhere.

Training, serving, explaining and replay use this object, read from the artefact's `pipeline.json`:
{"pipeline_version": "1", "before": [{"step": "pixels", …}, …],
 "after": {"outputs": {NETWORK NAME: SERVED NAME}, "label": {"from": …, "threshold": null | "0.5"}}}
Rule 1: the file says all; a change of it is a change of the artefact's digest.
Rule 2: `before` and `after` are pure, vectorised, and treat every row alone.
Boundary: `parse` and `format` do no IO; `load` reads one file that registry.py has checked.
Read next: steps.py (what the steps do).
Law: `Pipeline.parse(p.format()).format() == p.format()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from .errors import ArtefactCorrupt, ModelFailed
from .steps import STEPS, Step
from .tensor import Array, Batch

__all__ = ["PIPELINE", "PIPELINE_VERSION", "Pipeline"]

PIPELINE: Final = "pipeline.json"
PIPELINE_VERSION: Final = "1"


class Pipeline:
    """What stands before and after the network of one model version."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Interpret a body as `parse` reads it.

        Raises:
            ValueError: another pipeline version, or no step of that name or with those settings.
        """
        if body.get("pipeline_version") != PIPELINE_VERSION:
            raise ValueError(
                f"pipeline version {body.get('pipeline_version')!r}; this program interprets "
                f"{PIPELINE_VERSION!r}"
            )
        self.body = body
        self.steps = tuple(_step(entry) for entry in body["before"])
        self._outputs: dict[str, str] = dict(body["after"]["outputs"])
        label = body["after"]["label"]
        self._label_from: str = label["from"]
        self._threshold = None if label["threshold"] is None else float(label["threshold"])

    @classmethod
    def load(cls, path: Path) -> Pipeline:
        """Read `pipeline.json`.

        Raises:
            ArtefactCorrupt: the file is missing or is no pipeline that this program knows.
        """
        try:
            return cls.parse(path.read_bytes())
        except OSError as exc:
            raise ArtefactCorrupt(f"could not read {path.name}: {exc}") from exc

    @classmethod
    def parse(cls, data: bytes) -> Pipeline:
        """Read the JSON form; inverse of `format`.

        Raises:
            ArtefactCorrupt: it is no pipeline that this program knows.
        """
        try:
            return cls(orjson.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ArtefactCorrupt(f"could not interpret {PIPELINE}: {exc}") from exc

    def format(self) -> bytes:
        """The JSON form, sorted; inverse of `parse`."""
        return orjson.dumps(self.body, option=orjson.OPT_SORT_KEYS) + b"\n"

    def before(self, batch: Batch) -> dict[str, Array]:
        """Compute what the network takes from what a caller sent.

        Args:
            batch: one array per input of the signature, rows first; checked by `Signature.check`.

        Returns:
            One array per network input, rows first.

        Raises:
            InputInvalid: a value cannot be read; the message names the input.
        """
        return {step.feed: step(batch) for step in self.steps}

    def after(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """Name the network's outputs as served and add `label`, INT64 (n, 1).

        Raises:
            ModelFailed: the network gave no such output.
        """
        try:
            served = {name: raw[network] for network, name in self._outputs.items()}
            scores = served[self._label_from]  # (n, classes)
        except KeyError as exc:
            raise ModelFailed(f"the network gave no output {exc}") from exc
        if self._threshold is None:
            label = scores.argmax(axis=1)
        else:
            label = scores[:, 1].astype(np.float64) >= self._threshold
        return {**served, "label": label.astype(np.int64).reshape(-1, 1)}


def _step(entry: Mapping[str, Any]) -> Step:
    settings = dict(entry)
    name = settings.pop("step")
    if name not in STEPS:
        raise ValueError(f"no step is called {name!r}; known are {', '.join(STEPS)}")
    step: Step = STEPS[name](**settings)
    return step
