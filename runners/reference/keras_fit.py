"""Starts keras_child.py, hands it the feeds, and reads back what it made.

Rule: the child is ended when this process leaves the function, whatever the reason.
Boundary: files in a temporary folder and JSON lines; TensorFlow is never imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ..errors import RunnerError
from ..tensor import Array
from .fit import Part
from .progress import Epoch, Watch

__all__ = ["KerasResult", "fit_keras"]

_CHILD: Final = Path(__file__).with_name("keras_child.py")


class KerasResult(NamedTuple):
    """A trained Keras network: its ONNX bytes, its own held-out answers, and its framework."""

    onnx: bytes
    answers: dict[str, Array]
    framework: str


def fit_keras(parts: Mapping[str, Part], job: Mapping[str, Any], watch: Watch) -> KerasResult:
    """Train in a child process.

    Args:
        parts: `train`, `valid` and `test`, each with feeds `numeric` and `categories`.
        job: the settings that keras_child.py names.
        watch: told of every epoch as it ends.

    Raises:
        RunnerError: the child failed; the message ends with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="weighbridge-keras-") as name:
        folder = Path(name)
        arrays = {
            f"{part}_{feed}": values
            for part, rows in parts.items()
            for feed, values in (*rows.feeds.items(), ("labels", rows.labels))
        }
        np.savez(folder / "feeds.npz", allow_pickle=False, **arrays)
        (folder / "job.json").write_text(json.dumps(dict(job)), encoding="utf-8")
        framework = _run(folder, watch)
        with np.load(folder / "answers.npz") as stored:
            answers = {"probabilities": stored["probabilities"]}
        return KerasResult((folder / "model.onnx").read_bytes(), answers, framework)


def _run(folder: Path, watch: Watch) -> str:
    framework = ""
    words = folder / "words.txt"
    command = [sys.executable, "-P", str(_CHILD), str(folder)]
    with (
        words.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 (our own file)
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ)
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                told = json.loads(line)
                if "framework" in told:
                    framework = told["framework"]
                else:
                    watch.epoch(Epoch(**told))
        finally:
            if framework == "":
                child.kill()
    if child.returncode != 0 or not framework:
        last = words.read_text(errors="replace").strip().splitlines()[-1:]
        raise RunnerError(f"could not train with TensorFlow: {''.join(last) or child.returncode}")
    return framework
