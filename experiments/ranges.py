"""From weights to bucket ranges, moving as few units as can be.

Rule: going from old ranges to new weights moves exactly half the sum of |new - old| buckets; no
unit moves between two arms whose weights did not change. (Keeping ranges contiguous, as others
do, moves up to four times as many once there are three arms.) Same inputs, same ranges.
Boundary: whole numbers in, ranges out; files and percentages are plan.py's.
"""

from collections.abc import Mapping, Sequence

from .definition import BUCKETS, Range
from .errors import InputError


def plan(weights: Mapping[str, int]) -> tuple[Range, ...]:
    """Contiguous ranges in the order of `weights` (arm -> buckets, together 10,000)."""
    _check_weights(weights)
    parts: list[Range] = []
    first = 0
    for arm, width in weights.items():
        if width:
            parts.append(Range(first, first + width - 1, arm))
        first += width
    return tuple(parts)


def replan(old: Sequence[Range], weights: Mapping[str, int]) -> tuple[Range, ...]:
    """New ranges for `weights` that keep every bucket they can.

    An arm that shrinks gives up its highest buckets; arms that grow take what was given up,
    lowest first, in the order of `weights`. Arms may appear and disappear. O(10,000).
    """
    _check_weights(weights)
    owner = owners(old)
    width = {arm: owner.count(arm) for arm in {*owner, *weights}}
    freed: list[int] = []
    for bucket in range(BUCKETS - 1, -1, -1):
        arm = owner[bucket]
        if width[arm] > weights.get(arm, 0):
            width[arm] -= 1
            freed.append(bucket)
    freed.reverse()
    taken = iter(freed)
    for arm, wanted in weights.items():
        for _ in range(wanted - width[arm]):
            owner[next(taken)] = arm
    return _collapse(owner)


def moved(old: Sequence[Range], new: Sequence[Range]) -> int:
    """How many of the 10,000 buckets change hands."""
    return sum(a != b for a, b in zip(owners(old), owners(new), strict=True))


def least_moved(old: Mapping[str, int], new: Mapping[str, int]) -> int:
    """The lower bound of `moved`: half the sum of the absolute weight changes."""
    return sum(abs(new.get(arm, 0) - old.get(arm, 0)) for arm in {*old, *new}) // 2


def owners(ranges: Sequence[Range]) -> list[str]:
    """The arm of each bucket 0..9999.

    Raises:
        InputError: the ranges overlap, leave a gap, or leave 0..9999.
    """
    table: list[str] = []
    for part in sorted(ranges):
        if part.first != len(table):
            what = "overlap" if part.first < len(table) else "leave a gap"
            raise InputError(f"ranges {what} at bucket {min(part.first, len(table))}")
        if not part.first <= part.last < BUCKETS:
            raise InputError(f"range {part.first}..{part.last} is not within 0..{BUCKETS - 1}")
        table.extend([part.arm] * (part.last - part.first + 1))
    if len(table) != BUCKETS:
        raise InputError(f"ranges leave a gap at bucket {len(table)}")
    return table


def _check_weights(weights: Mapping[str, int]) -> None:
    if any(weight < 0 for weight in weights.values()) or sum(weights.values()) != BUCKETS:
        raise InputError(f"weights must be >= 0 and sum to {BUCKETS} buckets: {dict(weights)}")


def _collapse(owner: Sequence[str]) -> tuple[Range, ...]:
    parts: list[Range] = []
    first = 0
    for bucket in range(1, BUCKETS + 1):
        if bucket == BUCKETS or owner[bucket] != owner[first]:
            parts.append(Range(first, bucket - 1, owner[first]))
            first = bucket
    return tuple(parts)
