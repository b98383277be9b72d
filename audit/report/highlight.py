"""A text cut into pieces with weights, ready to be marked up.

Rule: pieces joined give the text again, whatever the spans; nothing is escaped here (the template
does), and spans that overlap or lie outside the text are dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """A run of characters and its weight; `tint` is -4..4, 0 for no mark."""

    text: str
    weight: float | None
    tint: int


def pieces(text: str, features: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """`text` in order, marked and unmarked."""
    top = max([abs(float(f["weight"])) for f in features], default=0.0)
    marks = sorted((start, end, float(f["weight"])) for f in features for start, end in f["spans"])
    found: list[Piece] = []
    at = 0
    for start, end, weight in marks:
        if not at <= start < end <= len(text):
            continue
        if start > at:
            found.append(Piece(text[at:start], None, 0))
        found.append(Piece(text[start:end], weight, tint(weight, top)))
        at = end
    if at < len(text):
        found.append(Piece(text[at:], None, 0))
    return found


def tint(weight: float, top: float) -> int:
    """Strength in four steps, with the sign: 0 for what is next to nothing."""
    share = abs(weight) / top if top > 0 else 0.0
    step = sum(share >= limit for limit in (0.1, 0.3, 0.55, 0.8))
    return step if weight >= 0 else -step
