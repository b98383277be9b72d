"""The write-ahead log: where a record becomes durable, and what a restart may believe.

Rules:
1. The framed segments are the truth; tiles, checkpoints, the index and the marker derive from
   them.
2. A group is acknowledged only after the fdatasync that covers its frame. The next frame is
   written only after that. So a crash can damage nothing but the last frame and its payloads,
   which are synced with it.
3. Opening is recovery. The last frame may be cut only if it or its payloads are not whole, no frame
   follows it, no signed checkpoint covers it and the committed marker does not count it. Anything
   else that is not whole was acknowledged once: opening raises LogDamaged and changes nothing.
4. A group that fails (disk full, IO error, short write) is cut off again, and the same object
   takes appends as soon as the disk does.
A group whose append failed may still be found after a crash, if the process died before it could
cut it off: "failed" means "not acknowledged", not "never happened".
Read next: log.py (who holds the lock), cursor.py (reading), marker.py (what readers may see).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .appendfile import AppendFile
from .boundary import current_segments, read_boundary, settle
from .errors import LogDamaged, LogUnavailable
from .filekinds import is_own
from .files import FileLayer, make_directory, replace_file
from .frames import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Watermark,
    check_segment_header,
    format_frame,
    format_segment_header,
    next_frame_after,
    parse_header,
    scan,
    segment_name,
    segments,
)
from .marker import MarkerWriter, Position, recover_marker
from .payloads import payloads_whole
from .steps import Steps
from .syncer import Written

SEGMENT_BYTES = 64 << 20
_RESERVE_BYTES = 1 << 20
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
class _Tail:
    """The end of the believable log."""

    position: Position
    last_frame: int | None
    watermark: Watermark
    segments: int
    cut: Cut | None
    first: int = 0
    before: Watermark = _NONE  # of the frame before the last one


class Wal:
    """The write end of the log, for one thread. `open` it; there is no other way.

    Attributes:
        position: the end of what is durable and published to readers.
        watermark: how far the payload files had grown at that end.
        recovered: what opening found.
    """

    def __init__(self, directory: Path, tail: _Tail, files: FileLayer, segment_bytes: int) -> None:
        self._directory = directory
        self._files = files
        self._segment_bytes = segment_bytes
        self._last_frame = tail.last_frame
        self.position = tail.position
        self.watermark = tail.watermark
        self.recovered = RecoveryReport(
            tail.position.leaves, tail.segments, tail.cut, first_leaf=tail.first
        )
        self._file = self._open_file(tail.position.segment, tail.position.offset)
        self._marker = MarkerWriter(directory, self.position)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        signed_leaves: int,
        files: FileLayer,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> "Wal":
        """Recover the log in `directory` and make it ready to append. Needs the lock.

        Args:
            directory: the log's directory.
            signed_leaves: how many leaves a signed checkpoint covers.
            files: the system calls.
            segment_bytes: a segment that has grown beyond this is followed by a new one.

        Raises:
            LogDamaged: acknowledged records are damaged or missing; nothing was changed.
            OSError: the disk refused.
        """
        make_directory(directory / "wal")
        for leftover in (directory / "wal").glob("*.tmp"):
            if is_own(f"wal/{leftover.stem}"):  # what others put there is theirs
                leftover.unlink()  # a segment that never got its name
        acknowledged = max(signed_leaves, recover_marker(directory).leaves)
        first = settle(directory)  # a pruning that was interrupted
        if acknowledged == 0 and not segments(directory):
            _create_segment(directory, 0)
        tail = _recover(directory, acknowledged, first, segments(directory))
        return cls(directory, tail, files, segment_bytes)

    def ready(self, entries: Sequence[bytes]) -> bool:
        """Whether `steps` can take `entries` without waiting for the disk but to sync."""
        length = FRAME_HEADER_BYTES + sum(len(entry) + 2 for entry in entries)
        return self.position.offset < self._segment_bytes and self._file.ready(length)

    def more_room(self) -> Callable[[], None] | None:
        """See AppendFile.more_room."""
        return self._file.more_room()

    def steps(
        self,
        entries: Sequence[bytes],
        watermark: Watermark,
        on_written: Callable[[int], None] | None = None,
        beside: Sequence[Written] = (),
    ) -> Steps[tuple[int, bytes]]:
        """Make a group durable; returns the index of its first leaf, and its bundle. See steps.py.

        Args:
            entries: one to many entries, each at most 65,535 bytes.
            watermark: how far the payload files have grown.
            on_written: told the first index before the sync, for callers who do not wait for it.
            beside: what else must be synced for the group to be durable: its payloads.

        Raises:
            LogUnavailable: nothing was added; try again.
            LogDamaged: after a fault, the tail did not read back as written.
        """
        first = self.position.leaves
        frame = format_frame(first, entries, watermark)
        try:
            if self.position.offset >= self._segment_bytes:
                self._roll()
            written = self._file.begin(frame)
            if on_written is not None:
                on_written(first)
            yield [*beside, written]
        except OSError as exc:
            self._file.spoil()
            self._mend_quietly()
            raise LogUnavailable(f"could not store {len(entries)} records: {exc}") from exc
        # If we crash here, the group is durable but unpublished: recovery publishes it.
        self._last_frame = self._file.commit()
        self.watermark = watermark
        self.position = Position(first + len(entries), self.position.segment, self._file.size)
        self._marker.write(self.position)
        return first, frame[FRAME_HEADER_BYTES:]

    def mend(self) -> None:
        """See that no failed group lies behind the durable end.

        Raises:
            LogUnavailable: the disk refuses to cut it off.
            LogDamaged: the tail did not read back as written.
        """
        try:
            self._file.mend()
        except OSError as exc:
            raise LogUnavailable(f"could not cut off a group that failed: {exc}") from exc

    def roll(self) -> None:
        """End the segment being written and begin another, unless it is empty.

        Raises:
            LogUnavailable: the disk refused; the segment goes on.
        """
        if self.position.offset > SEGMENT_HEADER_BYTES:
            try:
                self._roll()
            except OSError as exc:
                raise LogUnavailable(f"could not begin a segment: {exc}") from exc

    def close(self) -> None:
        """Release the files; everything acknowledged is already durable."""
        self._file.close()
        self._marker.close()

    def _roll(self) -> None:
        first = self.position.leaves
        self._file.close()
        # If we crash here, the new segment is missing or whole and empty.
        _create_segment(self._directory, first)
        self._last_frame = None
        self._file = self._open_file(first, SEGMENT_HEADER_BYTES)
        self.position = Position(first, first, SEGMENT_HEADER_BYTES)

    def _open_file(self, segment: int, size: int) -> AppendFile:
        path = self._directory / "wal" / segment_name(segment)
        return AppendFile(path, size, self._files, self._check_tail, reserve=_RESERVE_BYTES)

    def _mend_quietly(self) -> None:
        with suppress(OSError):  # it stays spoilt, and the next append begins by mending it
            self._file.mend()

    def _check_tail(self, fd: int) -> None:
        if self._last_frame is None:
            return
        with open(fd, "rb", closefd=False) as file:
            file.seek(self._last_frame)
            header = parse_header(file.read(FRAME_HEADER_BYTES))
            first = -1 if header is None else header.first
            found = next(scan(file, offset=self._last_frame, first=first), None)
        if found is None or isinstance(found, Damage):
            path = self._directory / "wal" / segment_name(self.position.segment)
            raise LogDamaged(
                path,
                offset=self._last_frame,
                expected="the last acknowledged group, unchanged",
                found="other bytes" if found is None else found.found,
            )


def _create_segment(directory: Path, first: int) -> None:
    replace_file(directory / "wal" / segment_name(first), format_segment_header(first))


def foresee(directory: Path, *, signed_leaves: int) -> tuple[Position, Watermark, Cut | None]:
    """What opening would find: the end of what may be believed, and what it would cut off.

    Raises:
        LogDamaged: opening would refuse.
    """
    acknowledged = max(signed_leaves, recover_marker(directory).leaves)
    boundary = read_boundary(directory)
    begins = 0 if boundary is None else boundary.first_leaf
    found = current_segments(directory, boundary)
    tail = _recover(directory, acknowledged, begins, found)
    return tail.position, tail.watermark, tail.cut


def _recover(
    directory: Path, acknowledged: int, begins: int, found: list[tuple[int, Path]]
) -> _Tail:
    """Rule 3: read everything, find the end of what may be believed, change nothing.

    The log begins at leaf `begins`; `found` are its segments.
    """
    if not found:
        expected = f"segments with {acknowledged} acknowledged records"
        raise LogDamaged(directory / "wal", offset=None, expected=expected, found="none")
    tail = _Tail(Position(begins), None, Watermark(), len(found), None, begins)
    for first, path in found:
        if first != tail.position.leaves:
            missing = directory / "wal" / segment_name(tail.position.leaves)
            raise LogDamaged(missing, offset=None, expected="a segment", found="no such file")
        tail = _read_segment(path, tail, acknowledged, last=path == found[-1][1])
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


def _without_torn_payloads(directory: Path, path: Path, tail: _Tail) -> _Tail:
    """Rule 3: the tail without its last group, if the payloads of that are not whole."""
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


def _read_segment(path: Path, tail: _Tail, acknowledged: int, *, last: bool) -> _Tail:
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
    return _Tail(position, last_frame, watermark, tail.segments, cut, tail.first, before)


def _judge(path: Path, damage: Damage, *, leaves: int, acknowledged: int, last: bool) -> Cut:
    """Rule 3: whether what is not whole at `damage` may be cut off."""
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
