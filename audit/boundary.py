"""Where a pruned log begins: the `pruned` file, and how an interrupted switch to it is ended.

    <log>/pruned    canonical JSON {"done", "leaf", "record", "rows"}: the leaf and the body of the
                    `pruned` record that says so; for each level of tiles above 0 the hashes of the
                    boundary's tile that are left of it, in hex; whether everything is gone by now
    <log>/wal/<first leaf>.carry   the leaves from there to the first whole segment, until it has
                    its name
    <log>/checkpoints/<size>       the signed checkpoint that covered what was pruned

The minimum index of C2SP tlog-tiles is `first_leaf`, a multiple of 256: no bundle and no tile of
level 0 holds leaves of both sides. The rows cannot be computed from the leaves that are left; they
lead to the frontier in the record, the frontier and the leaves lead to the signed root, and so
nothing here has to be trusted.
Rule: the file appears whole, after the record that it repeats, and is what decides. What lies
before the boundary is left over from an interrupted pruning, and `settle` removes it, if the log
holds that record: an older copy of the log may have been put back beside the file.
Read next: pruning.py (who prunes), wal.py (which begins here).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .canonical import dumps, loads
from .errors import AuditError, DecodeError, EventInvalid, LeafPruned, LogDamaged
from .events import Pruned
from .files import fsync_directory, make_directory, replace_file
from .frames import SEGMENT_HEADER_BYTES, Damage, scan, segment_name, segments
from .frontier import peaks_of, rows_at
from .record import as_mapping, decode
from .tiles import WIDTH, TileReader

__all__ = [
    "CARRY_SUFFIX",
    "CHECKPOINTS_NAME",
    "PRUNED_NAME",
    "Boundary",
    "current_segments",
    "first_leaf",
    "is_recorded",
    "left_over",
    "pruned_leaf",
    "pruned_words",
    "read_boundary",
    "settle",
    "write_boundary",
]

PRUNED_NAME = "pruned"
CHECKPOINTS_NAME = "checkpoints"
CARRY_SUFFIX = ".carry"
_KIND = b'"type":"pruned"'


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the log begins, and what says so.

    Attributes:
        leaf: of the record.
        record: the newest `pruned` record.
        rows: by level of tiles (1 and up) the hashes left of the boundary in its tile.
        done: whether nothing before the boundary is left on disk.
    """

    leaf: int
    record: Pruned
    rows: dict[int, bytes]
    done: bool

    @property
    def first_leaf(self) -> int:
        """The first leaf that is kept."""
        return self.record.first_leaf

    def peaks(self) -> list[bytes]:
        """The complete subtrees left of the boundary, largest first, as the rows give them.

        Raises:
            LogDamaged: a row is missing or short.
        """
        return peaks_of(self.rows, self.first_leaf)

    def whole_rows(self) -> dict[int, bytes]:
        """`rows`, where none is missing or short.

        Raises:
            LogDamaged: one is.
        """
        self.peaks()
        return self.rows

    def frontier(self) -> list[bytes]:
        """The peaks as the record states them."""
        return [bytes.fromhex(peak) for peak in self.record.frontier]


def format_boundary(boundary: Boundary) -> bytes:
    """The bytes of the file; the inverse of `parse_boundary`."""
    return dumps(
        {
            "done": boundary.done,
            "leaf": boundary.leaf,
            "record": dict(as_mapping(boundary.record)),
            "rows": {str(level): row.hex() for level, row in boundary.rows.items()},
        }
    )


def parse_boundary(raw: bytes) -> Boundary:
    """What `format_boundary` made.

    Raises:
        ValueError: it is something else.
    """
    try:
        body: Any = loads(raw)
        record = decode(dumps(body["record"]))
        rows = {int(level): bytes.fromhex(row) for level, row in body["rows"].items()}
        if not isinstance(record, Pruned) or type(body["leaf"]) is not int:
            raise TypeError("its record is another one")
        if record.first_leaf % WIDTH or not 0 < record.first_leaf <= record.kept_from:
            raise ValueError(f"it begins at leaf {record.first_leaf}")
        return Boundary(body["leaf"], record, rows, body["done"] is True)
    except (DecodeError, EventInvalid, KeyError, TypeError, AttributeError) as exc:
        raise ValueError(str(exc)) from exc


def read_boundary(directory: Path) -> Boundary | None:
    """Where the log in `directory` begins; None if it was never pruned.

    Raises:
        LogDamaged: the file is not whole.
    """
    path = directory / PRUNED_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse_boundary(raw)
    except ValueError as exc:
        raise LogDamaged(
            path, offset=None, expected="where the pruned log begins", found=str(exc)
        ) from exc


def write_boundary(directory: Path, boundary: Boundary) -> None:
    """Put the file in place, durably.

    Raises:
        OSError: the one before stands.
    """
    replace_file(directory / PRUNED_NAME, format_boundary(boundary))


def first_leaf(directory: Path) -> int:
    """The first leaf that the log holds; 0 if it was never pruned.

    Raises:
        LogDamaged: the file that says so is not whole.
    """
    boundary = read_boundary(directory)
    return 0 if boundary is None else boundary.first_leaf


def pruned_leaf(directory: Path, leaf: int) -> LeafPruned | None:
    """The refusal to read a leaf before the boundary; None if it is not before it."""
    boundary = read_boundary(directory)
    if boundary is None or leaf >= boundary.first_leaf:
        return None
    return LeafPruned(
        f"could not read leaf {leaf}: the leaves before {boundary.first_leaf} were pruned, as "
        f"leaf {boundary.leaf} says"
    )


def pruned_words(directory: Path) -> str:
    """What to add when something is not found: that the log was pruned, if it was."""
    boundary = read_boundary(directory)
    if boundary is None:
        return ""
    return (
        f"; the leaves before {boundary.first_leaf} were pruned, as leaf {boundary.leaf} says, "
        "and it may have been among them"
    )


def current_segments(directory: Path, boundary: Boundary | None) -> list[tuple[int, Path]]:
    """The segments that count, in order, without what an interrupted pruning left over."""
    if boundary is None:
        return segments(directory)
    begin, kept_from = boundary.first_leaf, boundary.record.kept_from
    found = [part for part in segments(directory) if part[0] == begin or part[0] >= kept_from]
    carry = directory / "wal" / f"{begin:020d}{CARRY_SUFFIX}"
    if carry.exists() and found[:1] and found[0][0] > begin:
        found.insert(0, (begin, carry))
    return found


def left_over(directory: Path, boundary: Boundary) -> list[Path]:
    """The segments that are to go, and are there."""
    begin, kept_from = boundary.first_leaf, boundary.record.kept_from
    return [path for start, path in segments(directory) if start < kept_from and start != begin]


def is_recorded(directory: Path, boundary: Boundary) -> bool:
    """Whether the log holds the record that the file repeats."""
    before = [first for first, _ in segments(directory) if first <= boundary.leaf]
    return (boundary.leaf, boundary.record) in _records(directory, max(before, default=0))


def _see_recorded(directory: Path, boundary: Boundary) -> None:
    if not is_recorded(directory, boundary):
        path, expected = directory / PRUNED_NAME, f"the record of it at leaf {boundary.leaf}"
        raise LogDamaged(path, offset=None, expected=expected, found="none in the log")


def settle(directory: Path) -> int:
    """End an interrupted switch of the write-ahead log; its first leaf. Needs the lock.

    Raises:
        LogDamaged: the log does not begin where it must, or does not say that what is left over was
            pruned (the file is of a later time than the log); nothing was changed.
        OSError: the disk refused.
    """
    wal = directory / "wal"
    boundary = _trusted(directory)
    first = 0 if boundary is None else boundary.first_leaf
    changed = False
    carries = sorted(wal.glob(f"*{CARRY_SUFFIX}"))
    if boundary is not None and (carries or left_over(directory, boundary)):
        _see_recorded(directory, boundary)
    for carry in carries:
        changed = True
        if boundary is not None and carry.stem == f"{first:020d}":
            # If we crash here or below, the next start does the same again.
            carry.replace(wal / segment_name(first))
        else:
            carry.unlink()  # of a pruning that never got its boundary
    if boundary is None:
        return 0
    if changed:
        fsync_directory(wal)
    for path in left_over(directory, boundary):
        if (wal / segment_name(first)).exists():
            path.unlink()
            changed = True
    if changed:
        fsync_directory(wal)
    return first


def _trusted(directory: Path) -> Boundary | None:
    """The boundary, made again from log and tiles if its file is lost or older than the log."""
    boundary = read_boundary(directory)
    lowest = min((first for first, _ in segments(directory)), default=0)
    begins = 0 if boundary is None else boundary.first_leaf
    if lowest <= begins or (directory / "wal" / f"{begins:020d}{CARRY_SUFFIX}").exists():
        return boundary
    found = None
    for leaf, event in _records(directory, lowest):
        if event.first_leaf == lowest:
            found = leaf, event
    if found is None:
        raise LogDamaged(
            directory / "wal" / segment_name(begins),
            offset=None,
            expected="a segment, or a record that says that it was pruned",
            found="neither",
        )
    leaf, event = found
    rows = rows_at(TileReader(directory, event.tree_size), lowest)
    again = Boundary(leaf, event, rows, done=False)
    if again.peaks() != again.frontier():
        raise LogDamaged(
            directory / "tile", offset=None, expected="the recorded frontier", found="another"
        )
    make_directory(directory)
    write_boundary(directory, again)
    return again


def _records(directory: Path, lowest: int) -> Iterator[tuple[int, Pruned]]:
    """Every `pruned` record in whole groups of the write-ahead log."""
    for first, path in segments(directory):
        if first < lowest:
            continue
        with path.open("rb") as file:
            for frame in scan(file, offset=SEGMENT_HEADER_BYTES, first=first):
                if isinstance(frame, Damage):
                    break
                if _KIND not in frame.body:
                    continue
                for place, entry in enumerate(frame.entries()):
                    if _KIND in entry:
                        try:
                            event = decode(entry)
                        except AuditError:
                            continue
                        if isinstance(event, Pruned):
                            yield frame.first + place, event
