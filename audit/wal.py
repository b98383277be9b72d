"""The write-ahead log: where a record becomes durable.

Rules:
1. The framed segments are the truth; tiles, checkpoints, the index and the marker derive from
   them.
2. A group is acknowledged only after the fdatasync that covers its frame. The next frame is
   written only after that. So a crash can damage nothing but the last frame and its payloads,
   which are synced with it.
3. Opening is recovery (recovery.py); what it finds torn is cut off here.
4. A group that fails (disk full, IO error, short write) is cut off again, and the same object
   takes appends as soon as the disk does.
A group whose append failed may still be found after a crash, if the process died before it could
cut it off: "failed" means "not acknowledged", not "never happened".
Read next: recovery.py (what a restart may believe), log.py (who holds the lock), cursor.py
(reading), marker.py (what readers may see).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .appendfile import AppendFile
from .boundary import settle
from .errors import LogDamaged, LogUnavailable
from .filekinds import is_own
from .files import FileLayer, make_directory, replace_file
from .frames import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Watermark,
    format_frame,
    format_segment_header,
    parse_header,
    scan,
    segment_name,
    segments,
)
from .marker import MarkerWriter, Position, recover_marker
from .recovery import RecoveryReport, Tail, recover
from .steps import Steps
from .syncer import Written

SEGMENT_BYTES = 64 << 20
_RESERVE_BYTES = 1 << 20


class Wal:
    """The write end of the log, for one thread. `open` it; there is no other way.

    Attributes:
        position: the end of what is durable and published to readers.
        watermark: how far the payload files had grown at that end.
        recovered: what opening found.
    """

    def __init__(self, directory: Path, tail: Tail, files: FileLayer, segment_bytes: int) -> None:
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
        first = settle(directory)  # a pruning that was interrupted
        if not (signed_leaves or recover_marker(directory).leaves or segments(directory)):
            _create_segment(directory, 0)
        tail = recover(directory, first, segments(directory), signed_leaves=signed_leaves)
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

    def check_there(self) -> None:
        """See AppendFile.check_there."""
        self._file.check_there()

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
