"""Comparing what a model answered with what it answers now, from the same input.

Rule: bit by bit, names, types and shapes included; NaN equals NaN of the same bits. Where a
tolerance is given (by the artefact's manifest, for its device), numbers may differ by that much,
absolutely, and it is said. Nothing is rounded, and nothing here decides what a tolerance may be.
Boundary: pure; arrays in, a verdict out. services/cli_replay.py opens logs and models.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Verdict", "compare"]

Verdict = Literal["equal", "within tolerance", "differs"]
Arrays = Mapping[str, NDArray[Any]]


class Comparison(NamedTuple):
    """How two answers compare.

    Attributes:
        verdict: of all outputs together: the worst.
        largest: the largest absolute difference of numbers of the same place; 0.0 when bits are
            equal, None where they cannot be subtracted.
        where: the output with the worst verdict, or "".
        why: what is not the same, in words, or "".
    """

    verdict: Verdict
    largest: float | None
    where: str
    why: str


def compare(kept: Arrays, again: Arrays, *, tolerance: float | None = None) -> Comparison:
    """Compare an answer with its replay.

    Args:
        kept: the outputs on record, by name.
        again: the outputs of the replay.
        tolerance: the largest absolute difference allowed, >= 0; None allows none.
    """
    if kept.keys() != again.keys():
        odd = ", ".join(sorted(kept.keys() ^ again.keys()))
        return Comparison("differs", None, "", f"outputs that one answer lacks: {odd}")
    worst = Comparison("equal", 0.0, "", "")
    for name in sorted(kept):
        found = _compare(name, np.asarray(kept[name]), np.asarray(again[name]), tolerance)
        if found.verdict == "differs":
            return found
        if found.verdict != "equal" and (found.largest or 0) >= (worst.largest or 0):
            worst = found
    return worst


def _compare(
    name: str, kept: NDArray[Any], again: NDArray[Any], tolerance: float | None
) -> Comparison:
    if kept.dtype != again.dtype or kept.shape != again.shape:
        why = f"{kept.dtype} {kept.shape} is now {again.dtype} {again.shape}"
        return Comparison("differs", None, name, why)
    if kept.dtype == object:
        if kept.tolist() == again.tolist():
            return Comparison("equal", 0.0, "", "")
        return Comparison("differs", None, name, "a text is another")
    if kept.tobytes() == again.tobytes():
        return Comparison("equal", 0.0, "", "")
    number = kept.dtype.kind not in "biu"
    wide = np.float64 if number else object  # whole numbers may be larger than a float tells apart
    with np.errstate(invalid="ignore"):
        gaps = np.abs(kept.astype(wide) - again.astype(wide))
    same = (kept == again) | (np.isnan(kept) & np.isnan(again)) if number else kept == again
    largest = float(np.where(same, 0.0, gaps).max())
    count = np.count_nonzero((_bits(kept) != _bits(again)).any(axis=-1))
    why = f"{count} of {kept.size} values differ, by at most {largest:.3g}"
    if number and tolerance is not None and largest <= tolerance:
        return Comparison("within tolerance", largest, name, why)
    return Comparison("differs", None if np.isnan(largest) else largest, name, why)


def _bits(data: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each value, a row each."""
    return np.frombuffer(data.tobytes(), np.uint8).reshape(data.size, data.itemsize)
