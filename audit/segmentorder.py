"""Whether the segments behind the committed end follow it, as a writer or a crash leaves them.

Rule 1: a segment begins with the leaf after the last one of the segment before; opening refuses
anything else (wal.py, rule 3), and so does a verifier.
Rule 2: who lists the segments before the marker is read finds at most one behind the marker's that
a living writer began: the one that begins exactly at the committed end. After a power cut the
marker may be older, and there whole groups lie between.
Reports to a Collector, raises nothing about the evidence.
Read next: leaves.py.
"""

from collections.abc import Sequence
from pathlib import Path

from .findings import Collector
from .frames import (
    SEGMENT_HEADER_BYTES,
    Damage,
    check_segment_header,
    scan,
    segment_name,
)
from .marker import Position

__all__ = ["check_behind", "not_following"]

_STEP = 2


def not_following(name: str, first: int, leaves: int, found: Collector) -> None:
    """Report a segment that begins elsewhere than where the one before it ends."""
    found.problem(
        _STEP,
        f"it does not follow the segment before it: it begins at leaf {first}, where leaf {leaves} "
        "comes next",
        file=name,
        leaf=first,
    )


def check_behind(
    directory: Path, marker: Position, later: Sequence[tuple[int, Path]], found: Collector
) -> None:
    """Step 2, for the segments after the one in which the committed log ends.

    Args:
        directory: the log's.
        marker: the committed end, read after `later` was listed.
        later: first leaves and paths, in order.
        found: told of what does not follow.
    """
    before = directory / "wal" / segment_name(marker.segment)
    leaves, offset = marker.leaves, marker.offset
    for first, path in later:
        name = str(path.relative_to(directory))
        end = _end(before, offset, leaves)
        if first != end:
            not_following(name, first, leaves if end is None else end, found)
            continue
        with path.open("rb") as file:
            damage = check_segment_header(file.read(SEGMENT_HEADER_BYTES), first)
        if damage is not None:
            found.problem(
                _STEP,
                f"damaged: expected {damage.expected}, found {damage.found}",
                file=name,
                offset=damage.offset,
                leaf=first,
            )
            continue
        before, leaves, offset = path, first, SEGMENT_HEADER_BYTES


def _end(path: Path, offset: int, first: int) -> int | None:
    """The leaf that comes after a segment, read from `offset` on; None if it does not end whole."""
    try:
        with path.open("rb") as file:
            for frame in scan(file, offset=offset, first=first):
                if isinstance(frame, Damage):
                    return None
                first = frame.first + frame.leaf_count
    except FileNotFoundError:
        return None
    return first
