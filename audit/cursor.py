"""Reading committed groups from the write-ahead log, in this process or another.

Rule: a cursor never reads past the Position it is given, so it never sees bytes that an fdatasync
has not covered. It keeps its place, so following costs only the new bytes;
seeking hops over frame headers and reads no bodies.
Damage raises LogDamaged, which names the file and the offset.
Read next: reader.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .boundary import pruned_leaf
from .errors import LogDamaged
from .frames import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Frame,
    Watermark,
    check_segment_header,
    last_frame,
    parse_header,
    scan,
    segment_name,
    segments,
)
from .marker import Position


class WalCursor:
    """A place in the log, always at the beginning of a group. Holds no open file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = 0
        self._offset = SEGMENT_HEADER_BYTES
        self._before: Watermark | None = None  # as the group before says, in this segment
        self.leaf = 0

    def seek(self, leaf: int) -> None:
        """Go to the group that holds `leaf`, or would.

        Raises:
            LeafPruned: it is not kept any more.
            LogDamaged: the segment is missing or its header is damaged.
        """
        segment = self._segment_of(leaf)
        if segment != self._segment or leaf < self.leaf:
            self._go_to(segment)
        with self._open() as file:
            file.seek(self._offset)
            while header := parse_header(file.read(FRAME_HEADER_BYTES)):
                if header.first + header.leaf_count > leaf:
                    return
                self._offset = file.seek(header.length, os.SEEK_CUR)
                self.leaf = header.first + header.leaf_count
                self._before = header.watermark
        # What stopped us may be the end or damage; `frames` tells which.

    def growth(self, leaf: int) -> tuple[Watermark, Watermark]:
        """How far the payload files had grown before the group that holds `leaf`, and after it.

        Goes there. The payloads of a record lie between the two.

        Raises:
            LeafPruned, LogDamaged: as `seek`, or there is no such group.
        """
        self.seek(leaf)
        with self._open() as file:
            file.seek(self._offset)
            header = parse_header(file.read(FRAME_HEADER_BYTES))
        if header is None:
            raise self._damaged(Damage(self._offset, f"a group with leaf {leaf}", "no such group"))
        if self._before is None:
            self._before = self._end_before()
        return self._before, header.watermark

    def _end_before(self) -> Watermark:
        """What the last group of the segment before this one says; nothing, if there is none."""
        earlier = [first for first, _ in segments(self._directory) if first < self._segment]
        if not earlier:
            return Watermark()
        with (self._directory / "wal" / segment_name(earlier[-1])).open("rb") as file:
            frame = last_frame(file, self._segment)
        return Watermark() if frame is None else frame.watermark

    def frames(self, upto: Position) -> Iterator[Frame]:
        """Every group from here to `upto`; the cursor moves along.

        Raises:
            LogDamaged: a group is not whole although it was committed.
        """
        while self.leaf < upto.leaves:
            yield from self._rest_of_segment(upto)
            if self.leaf < upto.leaves:
                self._next_segment(upto)

    def _rest_of_segment(self, upto: Position) -> Iterator[Frame]:
        end = upto.offset if self._segment == upto.segment else None
        with self._open() as file:
            for frame in scan(file, offset=self._offset, first=self.leaf, end=end):
                if isinstance(frame, Damage):
                    raise self._damaged(frame)
                self._offset, self.leaf = frame.end, frame.first + frame.leaf_count
                self._before = frame.watermark
                yield frame

    def _next_segment(self, upto: Position) -> None:
        if self.leaf == self._segment:
            expected = f"leaf {self.leaf} of {upto.leaves}"
            raise self._damaged(Damage(self._offset, expected, "the end of the segment"))
        self._go_to(self.leaf)

    def _go_to(self, segment: int) -> None:
        self._segment, self._offset, self.leaf = segment, SEGMENT_HEADER_BYTES, segment
        self._before = None

    def _open(self) -> BinaryIO:
        path = self._directory / "wal" / segment_name(self._segment)
        try:
            # Unbuffered: read-ahead could keep bytes that the writer later takes back.
            file = path.open("rb", buffering=0)
        except OSError as exc:
            gone = pruned_leaf(self._directory, self.leaf)
            if gone is not None:
                raise gone from exc
            raise LogDamaged(path, offset=None, expected="a segment", found=str(exc)) from exc
        damage = check_segment_header(file.read(SEGMENT_HEADER_BYTES), self._segment)
        if damage is not None:
            file.close()
            raise self._damaged(damage)
        return file

    def _segment_of(self, leaf: int) -> int:
        found = [first for first, _ in segments(self._directory) if first <= leaf]
        gone = None if found else pruned_leaf(self._directory, leaf)
        if gone is not None:
            raise gone
        return max(found, default=0)

    def _damaged(self, damage: Damage) -> LogDamaged:
        path = self._directory / "wal" / segment_name(self._segment)
        return LogDamaged(path, offset=damage.offset, expected=damage.expected, found=damage.found)
