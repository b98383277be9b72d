"""The one entry: a row, a model and a seed in, an explanation out.

Rule: pure apart from the clock that is passed in; the seed is SHA-256(decision id || explainer
version), so anyone who holds the row and the model can replay an explanation byte for byte.
Refusals raise ExplainError with a reason for the `explanation_skipped` record.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from .errors import ExplainError
from .image import explain_image
from .model import Batch, Model, Predict, one_row
from .result import Explanation
from .table import explain_table
from .text import explain_text

EXPLAINER_VERSION = "1"
LOW_FIT_R2 = 0.3
LOW_FIT_ERROR = 0.25
FEWEST_SAMPLES = 16
Modality = Literal["image", "text", "table"]


def seed_for(decision_id: str, explainer_version: str = EXPLAINER_VERSION) -> int:
    """The seed of a decision's explanation: 0 <= seed < 2^32, what a RandomState takes.

    The first four bytes, big-endian, of SHA-256(decision id || explainer version).
    """
    digest = sha256(f"{decision_id}{explainer_version}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def explain(
    modality: str,
    row: Batch,
    predict: Predict,
    *,
    background: Mapping[str, Any],
    labels: Sequence[str],
    target: int | None,
    seed: int,
    samples: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Explanation:
    """Explain one answer of a model.

    Args:
        modality: "image", "text" or "table".
        row: raw inputs, a batch of one: pixels (1, H, W, C), UTF-8 bytes (1, 1), columns (1, 1).
        predict: raw batch -> probabilities (n, len(labels)); called with at most 256 rows.
        background: the model's background.json; used for tables.
        labels: names of the classes, in the model's order.
        target: the class to explain; None for the most probable.
        seed: from `seed_for`; the same seed gives the same body.
        samples: how many perturbed rows are asked; more is steadier and dearer.
        clock_ns: a monotonic clock for the cost.

    Raises:
        ExplainError: with a reason; errors of `predict` itself pass through.
    """
    started = clock_ns()
    one_row(row)
    if samples < FEWEST_SAMPLES:
        raise ExplainError("wrong_shape", f"{samples} samples, at least {FEWEST_SAMPLES} needed")
    model = Model(predict, classes=len(labels))
    aim = int(np.argmax(model.ask(row)[0])) if target is None else target
    if not 0 <= aim < len(labels):
        raise ExplainError("wrong_shape", f"target {aim} is none of {len(labels)} labels")
    if modality == "image":
        found = explain_image(row, model, target=aim, seed=seed, samples=samples)
    elif modality == "text":
        found = explain_text(row, model, target=aim, seed=seed, samples=samples)
    elif modality == "table":
        found = explain_table(
            row, model, background=background, target=aim, seed=seed, samples=samples
        )
    else:
        raise ExplainError("unknown_modality", modality)
    local, features, details = found
    error = abs(local.surrogate - local.probability)
    return Explanation(
        kind=modality,
        explainer=f"lime-{modality}",
        explainer_version=EXPLAINER_VERSION,
        target=aim,
        target_label=labels[aim],
        seed=seed,
        samples=samples,
        probability=local.probability,
        surrogate=local.surrogate,
        intercept=local.intercept,
        fit_r2=local.fit_r2,
        local_error=error,
        low_fit=local.fit_r2 < LOW_FIT_R2 or error > LOW_FIT_ERROR,
        cost_ms=round((clock_ns() - started) / 1e6),
        features=features,
        details=details,
    )
