"""The deed of a pruning, file by file: what a record says that goes, goes; can be done again.

Rule: the order is that of pruning.py, steps 3 to 7. Each step is safe to repeat, and each file
disappears whole. Nothing is read from what goes but the leaves that are moved.
Boundary: files below one log; the one writer calls it, in a thread.
Read next: boundary.py (what opening does after a crash).
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .blobfile import blob_segment_path, blob_segments
from .boundary import (
    CARRY_SUFFIX,
    CHECKPOINTS_NAME,
    Boundary,
    read_boundary,
    settle,
    write_boundary,
)
from .canonical import loads
from .cursor import WalCursor
from .errors import LogDamaged
from .events import Pruned
from .files import fsync_directory, make_directory, replace_file
from .frames import format_frame, format_segment_header, segments
from .frontier import rows_at
from .marker import read_marker
from .note import parse_checkpoint
from .rotation import rotation_sizes
from .snapshot import STANDING
from .tiles import WIDTH, Tile, TileReader, edge_places

__all__ = ["first_payloads", "newest_segment_began", "prune_files"]


def first_payloads(directory: Path, kept_from: int, current: int) -> int:
    """The first payload segment with payloads of the leaves from `kept_from` on.

    All payloads of a group lie in one segment, and its frame names that one or a later one's.

    Args:
        directory: the log's.
        kept_from: where a segment of the write-ahead log begins.
        current: the payload segment being written.
    """
    upto = read_marker(directory)
    if kept_from >= upto.leaves:
        return current
    cursor = WalCursor(directory)
    cursor.seek(kept_from)
    return next(cursor.frames(upto)).watermark.blob_segment


def newest_segment_began(directory: Path) -> int | None:
    """The time of the first record in the segment being written; None if there is none."""
    upto = read_marker(directory)
    first = max((start for start, _ in segments(directory)), default=0)
    if first >= upto.leaves:
        return None
    cursor = WalCursor(directory)
    cursor.seek(first)
    body = loads(next(cursor.frames(upto)).entries()[0])
    time_us = body.get("time_us") if isinstance(body, dict) else None
    return time_us if isinstance(time_us, int) else None


def prune_files(
    directory: Path,
    leaf: int,
    event: Pruned,
    note: str,
    *,
    crash: Callable[[], object] = int,
) -> Boundary:
    """Remove what a `pruned` record says that goes; where the log begins now, to be marked as done.

    Args:
        directory: the log's.
        leaf: of the record, which is durable.
        event: the record.
        note: a signed checkpoint that covers what goes.
        crash: called between the steps, for tests.

    Raises:
        OSError: the disk refused; call again.
        LogDamaged: leaves or hashes that are kept cannot be read; nothing was removed.
    """
    boundary = read_boundary(directory)
    if boundary is None or boundary.first_leaf < event.first_leaf:
        size = parse_checkpoint(note.partition("\n\n")[0] + "\n").size
        hashes = TileReader(directory, size)
        boundary = Boundary(leaf, event, rows_at(hashes, event.first_leaf), done=False)
        if boundary.peaks() != boundary.frontier():
            raise LogDamaged(
                directory / "tile", offset=None, expected="the recorded frontier", found="another"
            )
        make_directory(directory / CHECKPOINTS_NAME)
        replace_file(directory / CHECKPOINTS_NAME / str(size), note.encode())
        crash()
        _carry(directory, event)
        crash()
        write_boundary(directory, boundary)
    crash()
    settle(directory)
    crash()
    _prune_tiles(directory, event, crash)
    crash()
    _prune_payloads(directory, event.first_payloads)
    (directory / STANDING).unlink(missing_ok=True)  # it repeats holds and erasures of before
    crash()
    return Boundary(boundary.leaf, boundary.record, boundary.rows, done=True)


def _carry(directory: Path, event: Pruned) -> None:
    """Give the leaves between boundary and first whole segment a segment of their own.

    The groups keep their bytes, but for the leaves of the first one that go.
    """
    first, stop = event.first_leaf, event.kept_from
    if first == stop:
        return
    cursor, parts = WalCursor(directory), [format_segment_header(first)]
    cursor.seek(first)
    reached = first
    for frame in cursor.frames(read_marker(directory)):
        entries = frame.entries()[max(first - frame.first, 0) : stop - frame.first]
        parts.append(format_frame(max(first, frame.first), entries, frame.watermark))
        reached = max(first, frame.first) + len(entries)
        if reached >= stop:
            break
    if reached != stop:
        raise LogDamaged(
            directory / "wal", offset=None, expected=f"leaf {stop}", found=f"an end at {reached}"
        )
    make_directory(directory / "wal")
    replace_file(directory / "wal" / f"{first:020d}{CARRY_SUFFIX}", b"".join(parts))


def _prune_tiles(directory: Path, event: Pruned, crash: Callable[[], object]) -> None:
    """Remove bundles and full tiles that end before the boundary, and their partial ones.

    The hash tiles that compare the tree of a key's rotation with later ones stay.
    """
    kept = set().union(*map(edge_places, rotation_sizes(directory)))
    for level in range(-1, 8):
        span = 8 * (max(level, 0) + 1)
        for index in range(event.from_leaf >> span, event.first_leaf >> span):
            if (level, index) in kept:
                continue
            _remove(directory / Tile(level, index, WIDTH).path())
        crash()


def _remove(full: Path) -> None:
    full.unlink(missing_ok=True)
    partial = full.with_name(full.name + ".p")
    if partial.is_dir():
        for path in partial.iterdir():
            path.unlink()
        partial.rmdir()
    if full.stem == "999":  # the last one of its folder
        with suppress(OSError):  # not empty yet
            full.parent.rmdir()


def _prune_payloads(directory: Path, first: int) -> None:
    gone = [number for number in blob_segments(directory) if number < first]
    for number in gone:
        blob_segment_path(directory, number).unlink()
    if gone:
        fsync_directory(directory / "blobs")
