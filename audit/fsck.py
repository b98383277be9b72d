"""What lies in a log's folder, file by file: what it is, what it means, and what to do.

    fine     as it must be
    note     worth knowing; nothing to do
    mend     left over from a crash, or derived and stale; the next start mends it, or it says who
    damage   what no crash explains: bytes were changed, or are gone
Rule: reads only; what `verify` finds is explained here, and what opening would do is foreseen by
the same function that does it. Beside a living writer, what is on its way is not condemned.
Read next: fsck_files.py (names and modes), fsck_derived.py (what is in derived files), repair.py
(derived files made anew).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .blobfile import SEGMENT_HEADER_BYTES, blob_segments
from .boundary import CARRY_SUFFIX, PRUNED_NAME, is_recorded, left_over, read_boundary
from .errors import LogDamaged, NoteError
from .filekinds import is_own, misshapen
from .findings import Findings, Problem, amount, printable
from .frames import Watermark, segments
from .fsck_derived import derived_seen, parquet_seen
from .fsck_files import Level, Seen, files_seen
from .marker import MARKER_NAME, Position, recover_marker
from .note import VerifierKey
from .publish import load_checkpoint
from .recovery import Cut, foresee
from .rotation import chain_of
from .rotationcheck import INTERRUPTED
from .verify import verify_log
from .writerlock import has_writer

__all__ = ["Level", "Report", "Seen", "inspect"]

_START: Final = "nothing: the next start mends it"
_SIGNS: Final = (
    "nothing: the next start signs what is there; "
    "compare it with a checkpoint that you kept (weighbridge audit verify --earlier)"
)
_RESTORE: Final = (
    "keep a copy of the folder as it is, edit nothing, restore the log from a copy that verifies"
)
_SAID: Final = ("fine", "damage")
_ON_ITS_WAY: Final = "nothing: the writer is at work"
_MEANS: Final[dict[int, tuple[str, str]]] = {
    1: ("the tree head is missing, damaged, or signed by another key", _RESTORE),
    2: ("acknowledged records are damaged or gone; no crash does that", _RESTORE),
    3: ("the records are not those that were signed", _RESTORE),
    4: (
        "a derived file does not hold what the log says; it proves nothing, but others may read it",
        "stop the server and run: weighbridge audit fsck --repair",
    ),
    5: ("the log does not extend a checkpoint that was signed before", _RESTORE),
    6: ("a record is not one that this program wrote", _RESTORE),
    7: ("an answer may have left without a record", "find out what happened to these answers"),
    8: ("the count of acknowledged records contradicts the log", _RESTORE),
    9: ("payloads or their keys are damaged or gone; the records stand without them", _RESTORE),
    10: ("a witness saw another log under this name", _RESTORE),
}


class Report(NamedTuple):
    """What was seen; `status` is 0 (clean), 1 (something to mend) or 2 (damage)."""

    seen: tuple[Seen, ...]
    findings: Findings

    @property
    def status(self) -> int:
        """The exit status."""
        levels = {one.level for one in self.seen}
        return 2 if "damage" in levels else int("mend" in levels)


def inspect(
    directory: Path,
    key: VerifierKey,
    *,
    in_flight_s: float = 30.0,
    parquet: Path | None = None,
) -> Report:
    """Look at everything that lies in a log's folder.

    Args:
        directory: the log's.
        key: its public key.
        in_flight_s: how late a number may come while a writer lives.
        parquet: a folder of Parquet files made of it.
    """
    alive = has_writer(directory)
    findings = verify_log(directory, key, in_flight_s=in_flight_s if alive else 0.0)
    unread = {printable(one.path): one.what for one in misshapen(directory)}
    if not findings.read:
        unread |= {one.file or ".": one.message for one in findings.problems}
    if unread:
        return Report(_unread_seen(unread), findings)
    tail = _Tail.of(directory, key)
    seen = [*_tail_seen(directory, tail, alive=alive)]
    seen += _boundary_seen(directory, alive=alive)
    seen += _payloads_seen(directory, tail.watermark, alive=alive)
    seen += files_seen(directory, alive=alive)
    seen += derived_seen(directory)
    seen += () if parquet is None else parquet_seen(parquet)
    found = [_explained(problem, tail) for problem in findings.problems if not tail.tells(problem)]
    named = {one.path for one in found}  # a damaged file is said once, and not called fine beside
    seen = [one for one in seen if one.path not in named or one.level not in _SAID] + found
    return Report(tuple(sorted(map(_printable, seen), key=lambda one: one.path)), findings)


def _printable(one: Seen) -> Seen:
    """The same, with nothing in it that a terminal or JSON could take for more than text."""
    path, level, *said = one
    return Seen(printable(path), level, *map(printable, said))


def _unread_seen(unread: dict[str, str]) -> tuple[Seen, ...]:
    """What cannot be read; nothing else is looked at."""
    todo = "put it right (whose is it, which mode, from which copy?), then ask again"
    means = "what the folder holds was not looked into, since this cannot be read"
    return tuple(Seen(name, "damage", what, means, todo) for name, what in sorted(unread.items()))


class _Tail(NamedTuple):
    """How opening would find the write-ahead log."""

    position: Position
    watermark: Watermark | None
    cut: Cut | None
    refused: LogDamaged | None
    signable: bool = False

    @classmethod
    def of(cls, directory: Path, key: VerifierKey) -> "_Tail":
        signable = True
        try:
            signed = load_checkpoint(directory, chain_of(directory, key))
        except (LogDamaged, NoteError):
            signed, signable = None, False  # step 1 names it
        try:
            found = foresee(directory, signed_leaves=0 if signed is None else signed.size)
            return cls(*found, None, signable)
        except (LogDamaged, NoteError) as exc:
            damaged = exc if isinstance(exc, LogDamaged) else None
            return cls(Position(), None, None, damaged)

    def tells(self, problem: Problem) -> bool:
        """Whether a problem is one that the next start mends, and that is told of apart."""
        if self.refused is not None:
            return False
        if problem.step == 8:
            return True  # the marker is behind, or was never synced
        cut = self.cut
        return (
            problem.step == 2
            and cut is not None
            and problem.file == f"wal/{cut.file.name}"
            and problem.offset == cut.offset
        )


def _tail_seen(directory: Path, tail: _Tail, *, alive: bool) -> Iterator[Seen]:
    """The write-ahead log and its marker."""
    upto = None
    try:
        upto = recover_marker(directory)
    except LogDamaged as exc:
        means, todo = _MEANS[8]
        yield Seen(MARKER_NAME, "damage", exc.found, means, todo)
    if tail.refused is not None:
        name = _name(directory, tail.refused.file)
        if name != MARKER_NAME:
            means, todo = _MEANS[2]
            what = f"expected {tail.refused.expected}, found {tail.refused.found}"
            yield Seen(name, "damage", what, means, todo)
        return
    last = max((path for _, path in segments(directory)), default=None)
    for first, path in segments(directory):
        if path != last:
            yield Seen(_name(directory, path), "fine", f"records from leaf {first}, finished")
    if last is None or upto is None:
        return
    yield from _end_seen(directory, last, tail, upto, alive=alive)


def _end_seen(
    directory: Path, last: Path, tail: _Tail, upto: Position, *, alive: bool
) -> Iterator[Seen]:
    """The segment being written, and where it ends."""
    name = _name(directory, last)
    room = last.stat().st_size - tail.position.offset
    cut = tail.cut
    if cut is not None and not alive:
        what = f"a torn tail of {amount(cut.length, 'bytes')} at byte {cut.offset}: {cut.why}"
        means = "normal after a crash: the last group was never acknowledged"
        yield Seen(name, "mend", what, means, _START)
    elif room > 0:
        what = f"{amount(room, 'bytes')} of reserved room after the last record"
        means = "normal while it is written" if alive else "normal after a crash"
        yield Seen(name, "note" if alive else "mend", what, means, _ON_ITS_WAY if alive else _START)
    else:
        yield Seen(name, "fine", f"ends with leaf {tail.position.leaves - 1}")
    ahead = tail.position.leaves - upto.leaves
    if upto == Position():
        what = "missing or empty"
        means = "normal after a power cut: it is never synced, and tells only how far to read"
        yield Seen(MARKER_NAME, "mend", what, means, _START)
    elif ahead > 0 and not alive:
        what = f"{amount(ahead, 'whole records')} after the committed end"
        means = "normal after a power cut: they were stored, and perhaps not acknowledged"
        yield Seen(name, "mend", what, means, "nothing: the next start keeps them")
    else:
        yield Seen(MARKER_NAME, "fine", f"counts {amount(upto.leaves, 'records')}")


def _boundary_seen(directory: Path, *, alive: bool) -> Iterator[Seen]:
    """Where a pruned log begins."""
    try:
        boundary = read_boundary(directory)
    except LogDamaged:
        return  # step 2 names it
    todo = _ON_ITS_WAY if alive else _START
    level: Level = "note" if alive else "mend"
    for path in sorted((directory / "wal").glob(f"*{CARRY_SUFFIX}")):
        means = "a pruning is under way" if alive else "a pruning was interrupted"
        yield Seen(_name(directory, path), level, "leaves that get a segment anew", means, todo)
    if boundary is None:
        return
    what = f"the log begins at leaf {boundary.first_leaf}, as leaf {boundary.leaf} says"
    if not boundary.done:
        means = "a pruning is under way" if alive else "a pruning was interrupted"
        yield Seen(PRUNED_NAME, level, what, means, todo)
    else:
        yield Seen(PRUNED_NAME, "fine", what)
    found = left_over(directory, boundary)
    means, what = "left over from a pruning", "leaves that were pruned"
    if found and not is_recorded(directory, boundary):
        means, what = "no start removes them", "leaves of which the log does not say that they go"
        level, todo = "damage", _RESTORE
    for path in found:
        yield Seen(_name(directory, path), level, what, means, todo)


def _payloads_seen(directory: Path, mark: Watermark | None, *, alive: bool) -> Iterator[Seen]:
    """Payload segments that no record vouches for; what is missing or damaged is step 9's."""
    if mark is None:
        return
    try:
        boundary = read_boundary(directory)
    except LogDamaged:
        return  # step 2 names it
    first = 0 if boundary is None else boundary.record.first_payloads
    level: Level = "note" if alive else "mend"
    todo = _ON_ITS_WAY if alive else _START
    for number in blob_segments(directory):
        path = directory / "blobs" / f"{number:08d}.seg"
        name, size = _name(directory, path), path.stat().st_size
        if number < first:
            yield Seen(name, level, "payloads of pruned records", "left over from a pruning", todo)
        elif number > mark.blob_segment and size != SEGMENT_HEADER_BYTES:
            means = "normal after a crash: stored, but their records never were"
            yield Seen(name, level, "payloads without records", means, todo)
        elif number == mark.blob_segment and size > max(mark.blob_bytes, SEGMENT_HEADER_BYTES):
            with path.open("rb") as file:
                file.seek(max(mark.blob_bytes, SEGMENT_HEADER_BYTES))
                rest = file.read().rstrip(b"\0")
            extra = f"{amount(len(rest), 'bytes')} of payloads without records"
            what = extra if rest else "reserved room"
            yield Seen(name, level, what, "normal after a crash, or while it is written", todo)
        else:
            yield Seen(name, "fine", f"{size} bytes of encrypted payloads")


def _explained(problem: Problem, tail: _Tail) -> Seen:
    """A problem of `verify`, with what it means."""
    means, todo = _MEANS[problem.step]
    place = [] if problem.offset is None else [f"byte {problem.offset}"]
    place += [] if problem.leaf is None else [f"leaf {problem.leaf}"]
    what = f"{', '.join(place)}: {problem.message}" if place else problem.message
    name = problem.file or ("wal" if problem.step in (2, 3, 6, 7) else "blobs")
    if problem.step == 4 and problem.message == "missing":
        return Seen(name, "mend", what, "derived; normal after a power cut", _START)
    if problem.message.startswith("it belongs to no leaf") and not is_own(name):
        return Seen(name, "damage", what, "not part of the log", "remove it if you know what it is")
    unsigned = problem.step == 1 and problem.message.startswith("there is no")
    if unsigned and tail.refused is None and tail.signable:
        means = "the log was not signed yet, or the file was removed"
        return Seen(name, "mend", what, means, _SIGNS if tail.position.leaves else _START)
    if problem.message.startswith(INTERRUPTED):
        return Seen(name, "mend", what, "normal after a crash in the middle of it", _START)
    if problem.step == 9 and problem.message.startswith("erased, but"):
        means = "an erasure was interrupted, or an old key file was put back"
        return Seen(name, "mend", what, means, "nothing: the next start destroys them again")
    return Seen(name, "damage", what, means, todo)


def _name(directory: Path, path: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)
