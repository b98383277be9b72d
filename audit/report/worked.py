"""Worked explanations: which to draw, read from their decrypted bodies.

Rule: chosen by the log alone, the same every time: for each model version first one explanation
for each label in log order, then more in log order. An erased or missing body is counted, not
guessed; a body that does not have the expected form is treated the same way.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from ..events import ExplanationRecord
from .data import Worked
from .gather import Gathered

Payload = Callable[[str, str], bytes | None]
NAME = "explanation"


class Examples(NamedTuple):
    """What can be drawn, and how many bodies could not be read."""

    worked: tuple[Worked, ...]
    unreadable: int


def worked_examples(found: Gathered, payload: Payload, count: int) -> Examples:
    """At most `count` examples for each model version."""
    wanted = {decision.id for _, decision in found.decisions}
    parts: dict[tuple[str, str], list[tuple[int, ExplanationRecord]]] = defaultdict(list)
    for decision, (leaf, record) in found.explained.items():
        if decision in wanted:
            parts[record.model, record.version].append((leaf, record))
    worked: list[Worked] = []
    unreadable = 0
    for _, records in sorted(parts.items()):
        taken = 0
        for leaf, record in _spread(records):
            if taken >= count:
                break
            example = _read(leaf, record, payload)
            unreadable += example is None
            if example is not None:
                worked.append(example)
                taken += 1
    return Examples(tuple(worked), unreadable)


def _spread(
    records: Iterable[tuple[int, ExplanationRecord]],
) -> list[tuple[int, ExplanationRecord]]:
    """One of each label first."""
    seen: dict[str, int] = defaultdict(int)
    ranked = []
    for leaf, record in sorted(records, key=lambda pair: pair[0]):
        ranked.append(((seen[record.target_label], leaf), (leaf, record)))
        seen[record.target_label] += 1
    return [pair for _, pair in sorted(ranked, key=lambda item: item[0])]


def _read(leaf: int, record: ExplanationRecord, payload: Payload) -> Worked | None:
    raw = payload(record.decision, NAME)
    if raw is None:
        return None
    try:
        return _worked(leaf, record, orjson.loads(raw))
    except (ValueError, KeyError, TypeError):  # not an explanation body: nothing to draw
        return None


def _worked(leaf: int, record: ExplanationRecord, body: Any) -> Worked:
    features = [
        {
            "name": str(f["name"]),
            "value": str(f["value"]),
            "condition": str(f["condition"]),
            "weight": float(f["weight"]),
            "spans": [[int(a), int(b)] for a, b in f["spans"]],
        }
        for f in body["features"]
    ]
    return Worked(
        decision=record.decision,
        leaf=leaf,
        model=record.model,
        version=record.version,
        kind=record.kind,
        target_label=record.target_label,
        probability=float(body["probability"]),
        fit_r2=float(record.fit_r2),
        local_error=float(record.local_error),
        low_fit=record.low_fit,
        samples=record.samples,
        seed=record.seed,
        explainer=f"{record.explainer} {record.explainer_version}",
        features=tuple(features),
        details=dict(body["details"]),
    )
