"""What a verifier checks of pruning: that a record in the log says so, and what it carried over.

    the record that the `pruned` file repeats stands in the log, at its leaf, byte for byte
    the file's rows give the frontier that the record states; the frontier and the leaves that are
    left give the signed root (tree.py, step 3), so the frontier is what was signed once
    each record that was carried over is a leaf of that frontier, by its path
Leaves may be pruned while a verifier reads: what it missed then is looked for once more, where the
log begins now (`checked_anew`).
Rule: reports to a Collector, raises nothing about the evidence.
Read next: boundary.py (the file), contents.py (who asks).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .boundary import CHECKPOINTS_NAME, PRUNED_NAME, Boundary, read_boundary
from .canonical import dumps
from .completeness import Completeness
from .errors import EventInvalid, LogDamaged, NoteError
from .findings import Collector
from .frontier import fold, peak_of
from .merkle import leaf_hash
from .note import Checkpoint
from .record import as_mapping
from .rotation import KeyChain

__all__ = ["PruningChecker", "checked_anew", "kept_checkpoints", "load_boundary"]

_STEP, _ROOT_STEP, _EARLIER_STEP, _EVENT_STEP = 2, 3, 5, 6
_LAST_S = 1 << 36  # a time that a date can show
_TIMES = 3


class _Judged(Protocol):
    @property
    def ok(self) -> bool: ...


_T = TypeVar("_T", bound=_Judged)


def checked_anew(directory: Path, check: Callable[[], _T]) -> _T:
    """What `check` finds; asked again where the log was pruned while it found problems."""
    for _ in range(_TIMES):
        begins = _beginning(directory)
        found = check()
        if found.ok or begins == _beginning(directory):
            return found
    return check()


def _beginning(directory: Path) -> bytes:
    """What says where the log begins, and whether everything before it is gone."""
    path = directory / PRUNED_NAME
    try:
        return path.read_bytes() if path.is_file() else b""  # a pipe would be waited for
    except OSError:
        return b""  # the check says what is wrong with it


def load_boundary(directory: Path, found: Collector) -> Boundary | None:
    """Where the log begins, if its file is whole and its rows give its frontier."""
    try:
        boundary = read_boundary(directory)
        if boundary is not None and boundary.peaks() != boundary.frontier():
            found.problem(_STEP, "its rows do not give the recorded frontier", file=PRUNED_NAME)
    except LogDamaged as exc:
        found.problem(_STEP, str(exc), file=PRUNED_NAME)
        return None
    else:
        return boundary


def kept_checkpoints(directory: Path, chain: KeyChain | None, found: Collector) -> list[Checkpoint]:
    """The checkpoints that were kept at each pruning, as far as the log's keys signed them."""
    kept = []
    for path in sorted((directory / CHECKPOINTS_NAME).glob("*")):
        name = f"{CHECKPOINTS_NAME}/{path.name}"
        if chain is None or path.suffix == ".tmp":
            continue
        try:
            kept.append(chain.open(path.read_text(encoding="utf-8")))
        except (NoteError, ValueError) as exc:
            found.problem(_EARLIER_STEP, str(exc), file=name)
    if kept:
        found.count("checkpoints kept when the log was pruned", len(kept))
    return kept


class PruningChecker:
    """Takes the events that speak of pruning, in order, then `finish`."""

    def __init__(self, found: Collector, boundary: Boundary | None) -> None:
        self._found = found
        self._boundary = boundary
        self._seen = False

    def resume(self, completeness: Completeness) -> None:
        """Let the numbers go on where the record says that they ended."""
        if self._boundary is None:
            return
        try:
            for said in self._boundary.record.numbers:
                ahead: Any = said["ahead"]
                spans = [(int(first), int(last)) for first, last in ahead]
                completeness.resume(str(said["instance"]), int(str(said["through"])), spans)
        except (KeyError, TypeError, ValueError):
            self._found.problem(_EVENT_STEP, "its numbers are malformed", leaf=self._boundary.leaf)

    def pruned(self, index: int, data: bytes, body: dict[str, Any]) -> None:
        """A `pruned` record."""
        boundary = self._boundary
        if boundary is not None and index == boundary.leaf:
            self._seen = data == dumps(dict(as_mapping(boundary.record)))
        elif boundary is None or index > boundary.leaf:
            self._found.note(
                f"leaf {index} says that the leaves before {body.get('first_leaf')} are pruned: it "
                "is under way, or was interrupted, and the next start finishes it"
            )

    def carried(self, index: int, body: dict[str, Any]) -> dict[str, Any] | None:
        """A `carried` record; what it repeats, if that is well-formed."""
        boundary = self._boundary
        try:
            record, leaf, path = (
                body["record"],
                body["was_leaf"],
                [*map(bytes.fromhex, body["path"])],
            )
            if boundary is not None and body["first_leaf"] == boundary.first_leaf:
                place = peak_of(leaf, boundary.first_leaf)
                root = fold(leaf, leaf_hash(dumps(record)), path)
                if root != boundary.frontier()[place]:
                    self._found.problem(
                        _EVENT_STEP, f"what it carries over was not leaf {leaf}", leaf=index
                    )
                self._found.count("records carried over, with proof")
            return record if isinstance(record, dict) else None
        except (TypeError, ValueError, StopIteration, IndexError, EventInvalid):
            self._found.problem(_EVENT_STEP, "what it carries over is malformed", leaf=index)
            return None

    def finish(self) -> None:
        """Check that the log says what the file says."""
        boundary = self._boundary
        if boundary is None:
            return
        record = boundary.record
        if not self._seen:
            self._found.problem(
                _STEP,
                f"leaves 0 to {boundary.first_leaf - 1} are missing, and no record at leaf "
                f"{boundary.leaf} says that they were pruned",
                file=PRUNED_NAME,
                leaf=boundary.leaf,
            )
            return
        when = datetime.fromtimestamp(min(record.time_us // 1_000_000, _LAST_S), UTC)
        self._found.count("pruned leaves", boundary.first_leaf)
        self._found.note(
            f"checked from leaf {boundary.first_leaf} on: the leaves before it were pruned at "
            f"{when:%Y-%m-%d %H:%M:%S} UTC by {record.actor} ({record.reason}), as leaf "
            f"{boundary.leaf} says"
        )
