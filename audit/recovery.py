"""What a restart may believe of the write-ahead log: where it ends, and what is torn behind that.

Rules:
1. The last frame may be cut only if it or its payloads are not whole, no frame follows it, no
   signed checkpoint covers it and the committed marker does not count it. Anything else that is not
   whole was acknowledged once: LogDamaged. Nothing is changed here.
2. A segment that another one follows and that a signed checkpoint covers is looked at where it
   begins and where it ends. What lies between was on disk before its leaves were signed, so no
   crash can have torn it; the tree is checked against the signature (publish.py), and to read all
   that was ever written, whatever became of it since, is what `verify` is for. If its ends are not
   as they must be, it is read in full like all others, and judged.
Read next: wal.py (who goes on from there), fsck.py (who foresees it).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from .boundary import current_segments, read_boundary
from .errors import LogDamaged
from .frames import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Watermark,
    check_segment_header,
    last_frame,
    next_frame_after,
    parse_header,
    scan,
    segment_name,
)
from .marker import Position, recover_marker
from .payloads import payloads_whole

__all__ = ["Cut", "RecoveryReport", "Tail", "foresee", "recover"]

_NONE = Watermark()


@dataclass(frozen=True, slots=True)
class Cut:
    """A torn tail that recovery removed: it was never acknowledged."""

    file: Path
    offset: int
    length: int
    why: str


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening the log found and did."""

    leaves: int
    segments: int
    cut: Cut | None = None
    tiles_rebuilt: bool = False
    first_leaf: int = 0
    payload_bytes_cut: int = 0


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the believable log."""

    position: Position
    last_frame: int | None
    watermark: Watermark
    segments: int
    cut: Cut | None
    first: int = 0
    before: Watermark = _NONE  # of the frame before the last one


def foresee(directory: Path, *, signed_leaves: int) -> tuple[Position, Watermark, Cut | None]:
    """What opening would find: the end of what may be believed, and what it would cut off.

    Raises:
        LogDamaged: opening would refuse.
    """
    boundary = read_boundary(directory)
    begins = 0 if boundary is None else boundary.first_leaf
    found = current_segments(directory, boundary)
    tail = recover(directory, begins, found, signed_leaves=signed_leaves)
    return tail.position, tail.watermark, tail.cut


def recover(
    directory: Path, begins: int, found: list[tuple[int, Path]], *, signed_leaves: int
) -> Tail:
    """Find the end of what may be believed; change nothing.

    Args:
        directory: the log's.
        begins: the first leaf that it holds.
        found: its segments, in order.
        signed_leaves: how many leaves a signed checkpoint covers.

    Raises:
        LogDamaged: acknowledged records are damaged or missing.
    """
    acknowledged = max(signed_leaves, recover_marker(directory).leaves)
    if not found:
        expected = f"segments with {acknowledged} acknowledged records"
        raise LogDamaged(directory / "wal", offset=None, expected=expected, found="none")
    tail = Tail(Position(begins), None, Watermark(), len(found), None, begins)
    following = [first for first, _ in found[1:]]
    for (first, path), end in zip(found, [*following, None], strict=True):
        if first != tail.position.leaves:
            missing = directory / "wal" / segment_name(tail.position.leaves)
            raise LogDamaged(missing, offset=None, expected="a segment", found="no such file")
        signed = end is not None and end <= signed_leaves
        ended = _end_of(path, tail, end) if signed and end is not None else None
        tail = ended or _read_segment(path, tail, acknowledged, last=end is None)
    if tail.position.leaves < acknowledged:
        raise LogDamaged(
            found[-1][1],
            offset=tail.position.offset,
            expected=f"{acknowledged} acknowledged records",
            found=f"the end of the log after {tail.position.leaves}",
        )
    if tail.cut is None and tail.position.leaves > acknowledged:
        return _without_torn_payloads(directory, found[-1][1], tail)
    return tail


def _without_torn_payloads(directory: Path, path: Path, tail: Tail) -> Tail:
    """Rule 1: the tail without its last group, if the payloads of that are not whole."""
    start = tail.last_frame
    if start is None or payloads_whole(directory, tail.before, tail.watermark):
        return tail
    with path.open("rb") as file:
        file.seek(start)
        header = parse_header(file.read(FRAME_HEADER_BYTES))
    if header is None:  # cannot be: it was read a moment ago
        return tail
    cut = Cut(path, start, tail.position.offset - start, "the payloads of the group are not whole")
    position = Position(header.first, tail.position.segment, start)
    return replace(tail, position=position, last_frame=None, watermark=tail.before, cut=cut)


def _end_of(path: Path, tail: Tail, end: int) -> Tail | None:
    """Rule 2: the tail after a segment that ends before leaf `end`; None if it must be read."""
    first = tail.position.leaves
    with path.open("rb") as file:
        if check_segment_header(file.read(SEGMENT_HEADER_BYTES), first) is not None:
            return None
        frame = last_frame(file, end)
    if frame is None:
        return None
    position = Position(end, first, frame.end)
    return replace(tail, position=position, last_frame=frame.offset, watermark=frame.watermark)


def _read_segment(path: Path, tail: Tail, acknowledged: int, *, last: bool) -> Tail:
    first = leaves = tail.position.leaves
    last_frame, end, watermark, cut = None, SEGMENT_HEADER_BYTES, tail.watermark, None
    before = tail.before
    with path.open("rb") as file:
        damage = check_segment_header(file.read(SEGMENT_HEADER_BYTES), first)
        if damage is not None:
            raise _refuse(path, damage)
        for frame in scan(file, first=first):
            if isinstance(frame, Damage):
                cut = _judge(path, frame, leaves=leaves, acknowledged=acknowledged, last=last)
                break
            leaves += frame.leaf_count
            before, watermark = watermark, frame.watermark
            last_frame, end = frame.offset, frame.end
    position = Position(leaves, first, end)
    return Tail(position, last_frame, watermark, tail.segments, cut, tail.first, before)


def _judge(path: Path, damage: Damage, *, leaves: int, acknowledged: int, last: bool) -> Cut:
    """Rule 1: whether what is not whole at `damage` may be cut off."""
    data = path.read_bytes()
    if not damage.torn or not last or leaves < acknowledged:
        raise _refuse(path, damage)
    if next_frame_after(data, damage.offset + 1) is not None:
        raise _refuse(path, damage)
    why = f"expected {damage.expected}, found {damage.found}"
    written = len(data.rstrip(b"\0"))  # behind it, room was reserved
    return Cut(path, damage.offset, max(written - damage.offset, 1), why)


def _refuse(path: Path, damage: Damage) -> LogDamaged:
    return LogDamaged(path, offset=damage.offset, expected=damage.expected, found=damage.found)
