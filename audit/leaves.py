"""The leaves as a verifier reads them: every group checked, damage named, and reading on after it.

They come in runs, a group or a bundle at a time, because whoever checks them is quicker so.
Where a group of the write-ahead log is damaged, its leaves are taken from the entry bundles, so
that the rest of the log can still be checked against the signed root.
Rule: reports to a Collector, raises nothing about the evidence.
Read next: verify.py.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .boundary import Boundary, current_segments
from .bundle import Bundle
from .errors import LogDamaged
from .findings import Collector
from .frames import (
    SEGMENT_HEADER_BYTES,
    Damage,
    Frame,
    Watermark,
    check_segment_header,
    next_frame_after,
    only_zeros,
    parse_header,
    scan,
    segments,
)
from .marker import MARKER_NAME, Position, recover_marker
from .segmentorder import check_behind, not_following
from .tiles import WIDTH, Tile

_STEP, _MARKER_STEP = 2, 8


class Run(NamedTuple):
    """Leaves that follow one another; `entries` is None for one that is lost."""

    first: int
    entries: Bundle | None


class WalLeaves:
    """Iterates once over all leaves, in runs.

    Attributes:
        count: how many leaves were passed.
        watermark: how far the payload files had grown at the last whole group.
        payload_ends: for each payload segment before that, how far it had grown, or further.
        tiles_only: whether there is no write-ahead log, and all of them come from entry bundles.
    """

    def __init__(
        self,
        directory: Path,
        found: Collector,
        *,
        signed_size: int,
        boundary: Boundary | None = None,
    ) -> None:
        """`boundary` is where a pruned log begins."""
        self._directory = directory
        self._found = found
        self._signed_size = signed_size
        self.tiles_only = (
            not (directory / "wal").exists() and not (directory / MARKER_NAME).exists()
        )
        self._boundary = boundary
        # Before the marker is read, so that a living writer's are no further than it says.
        self._listed = current_segments(directory, boundary)
        self._marker = None if self.tiles_only else self._read_marker()
        self.count = 0 if boundary is None else boundary.first_leaf
        self.watermark = Watermark()
        self.payload_ends: dict[int, int] = {}

    def __iter__(self) -> Iterator[Run]:
        if self.tiles_only:
            self._found.note("there is no write-ahead log: the leaves come from the entry bundles")
            yield from self._from_bundles(self._signed_size)
            return
        parts = self._parts()
        for first, path in parts:
            if first > self.count:
                self._report_missing(first)
                yield from self._from_bundles(first)
            elif first < self.count:
                not_following(self._name(path), first, self.count, self._found)
                continue
            self._found.count("write-ahead segments")
            damaged = yield from self._segment(path, first)
            following = min((other for other, _ in parts if other > first), default=0)
            if damaged:  # already reported; what it held comes from the bundles
                yield from self._from_bundles(following)
        known = max(self._signed_size, 0 if self._marker is None else self._marker.leaves)
        if self.count < known:
            self._found.problem(
                _STEP,
                f"truncated: {known} leaves were acknowledged, the log ends after {self.count}",
                file=self._name(parts[-1][1]) if parts else "wal",
                leaf=self.count,
            )
            yield from self._from_bundles(known)
        if self._trusted is not None:
            later = [part for part in self._listed if part[0] > self._trusted.segment]
            check_behind(self._directory, self._trusted, later, self._found)

    def _parts(self) -> list[tuple[int, Path]]:
        """The segments that count; of those behind the committed end see segmentorder.py."""
        trusted = self._trusted
        found = current_segments(self._directory, self._boundary)
        return [part for part in found if trusted is None or part[0] <= trusted.segment]

    @property
    def _trusted(self) -> Position | None:
        """The committed end, if no signature says that it lies further on."""
        marker = self._marker
        return None if marker is None or marker.leaves < self._signed_size else marker

    def _report_missing(self, until: int) -> None:
        self._found.problem(
            _STEP,
            f"missing (or the one before it was cut short): leaves {self.count} to {until - 1}",
            file=f"wal/{self.count:020d}.wal",
            leaf=self.count,
        )

    def check_marker(self) -> None:
        """Step 8, after the iteration."""
        marker = self._marker
        if marker is not None and marker.leaves < self._signed_size:
            self._found.problem(
                _MARKER_STEP,
                f"it counts {marker.leaves} leaves, but the checkpoint signed {self._signed_size}",
                file=MARKER_NAME,
            )

    def _read_marker(self) -> Position | None:
        try:
            marker = recover_marker(self._directory)
        except LogDamaged as exc:
            self._found.problem(_MARKER_STEP, str(exc), file=MARKER_NAME, offset=0)
            return None
        if marker.segment == 0 and marker.offset == 0 and segments(self._directory):
            self._found.problem(_MARKER_STEP, "missing or empty", file=MARKER_NAME)
            return None
        return marker

    def _segment(self, path: Path, first: int) -> Generator[Run, None, bool]:
        """The leaves of one segment; returns whether any of it was damaged."""
        name = self._name(path)
        stop = self._committed_end(first, path)
        with path.open("rb") as file:
            damage = check_segment_header(file.read(SEGMENT_HEADER_BYTES), first)
            damaged = damage is not None
            if damage is not None:
                self._report(name, damage)
            offset: int | None = SEGMENT_HEADER_BYTES
            while offset is not None:
                stopped = yield from self._whole_frames(file, name, offset, stop)
                if stopped is None:
                    return damaged
                damaged = True
                offset = self._after(path, name, stopped)
                if offset is not None:
                    yield from self._from_bundles(self._first_at(path, offset))
        return damaged

    def _whole_frames(
        self, file: BinaryIO, name: str, offset: int, stop: int | None
    ) -> Generator[Run, None, Damage | None]:
        for frame in scan(file, offset=offset, first=self.count, end=stop):
            if isinstance(frame, Damage):
                return frame
            yield from self._frame(name, frame)
        return None

    def _frame(self, name: str, frame: Frame) -> Iterator[Run]:
        self._found.count("groups")
        if frame.watermark.blob_segment != self.watermark.blob_segment:
            self.payload_ends[self.watermark.blob_segment] = self.watermark.blob_bytes
        self.watermark = frame.watermark
        try:
            entries = frame.bundle()
        except ValueError as exc:
            self._found.problem(_STEP, str(exc), file=name, offset=frame.offset, leaf=self.count)
            yield from self._from_bundles(frame.first + frame.leaf_count)
            return
        first, self.count = self.count, self.count + len(entries)
        yield Run(first, entries)

    def _after(self, path: Path, name: str, damage: Damage) -> int | None:
        """Report damage; where the next group that can be believed begins, if there is one."""
        data = path.read_bytes()
        offset = next_frame_after(data, damage.offset + (1 if damage.torn else 0))
        while offset is not None and self._first_at(path, offset) < self.count:
            offset = next_frame_after(data, offset + 1)
        self._report(name, damage)
        return offset

    def _report(self, name: str, damage: Damage) -> None:
        self._found.problem(
            _STEP,
            f"damaged: expected {damage.expected}, found {damage.found}",
            file=name,
            offset=damage.offset,
            leaf=self.count,
        )

    def _first_at(self, path: Path, offset: int) -> int:
        with path.open("rb") as file:
            file.seek(offset)
            header = parse_header(file.read(64))
        return self.count if header is None else header.first

    def _committed_end(self, first: int, path: Path) -> int | None:
        """Where the committed log ends, if that is in this segment; None = at its end."""
        marker = self._trusted
        if marker is None or marker.segment != first:
            return None
        extra = path.stat().st_size - marker.offset
        if extra > 0 and not self._reserved(path, marker.offset):
            self._found.note(
                f"{self._name(path)} has {extra} bytes after the committed end: records on their "
                "way, or the torn tail of a crash; they were never acknowledged"
            )
        return marker.offset if extra >= 0 else None

    @staticmethod
    def _reserved(path: Path, offset: int) -> bool:
        """Whether nothing but reserved room lies behind `offset`."""
        with path.open("rb") as file:
            file.seek(offset)
            return only_zeros(file)

    def _from_bundles(self, until: int) -> Iterator[Run]:
        while (first := self.count) < until:
            within = first % WIDTH
            entries = self._bundle(first // WIDTH)[within : within + until - first]
            # Behind what was signed there are no more bundles after one that is missing.
            lost = until - first if first >= self._signed_size else 1
            self.count += len(entries) or lost
            yield Run(first, entries or None)

    def _bundle(self, index: int) -> Bundle:
        for width in range(WIDTH, 0, -1):
            path = self._directory / Tile(-1, index, width).path()
            if path.exists():
                try:
                    return Bundle.parse(path.read_bytes(), width)
                except ValueError:
                    continue  # step 4 names it
        return Bundle.of([])

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._directory))
