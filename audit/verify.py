"""Checking a whole log from its files and a public key: trusting nobody who ran it.

The steps, in this order; a later step runs even where an earlier one found a problem:
    1  the checkpoint is signed by the given key, or by one that the log's rotations lead to from
       there, for its log
    2  every group of the write-ahead log is whole, in order, and none is missing
    3  the leaves give exactly the signed root
    4  every tile and entry bundle holds what the leaves say
    5  an earlier checkpoint, if given, is a prefix of this log
    6  every entry is a canonical event of a known type
    7  every gateway instance's numbers are complete, or their gaps explained
    8  the committed marker agrees with the log and the checkpoint
    9  the payload files and key slots are whole, and as long as the log says
   10  checkpoints that witnesses cosigned are prefixes of this log, and rightly signed
Rule: reads files only; no clock, no network, no private key. A problem names file, offset or leaf.
Where something in the folder cannot be opened as a file (filekinds.py), that is all that is said.
Cost: about 5 µs a leaf; memory is proportional to the number of decisions (their ids).
Read next: leaves.py (steps 2 and 8), tree.py (3 to 5), contents.py (6, 7), payloadcheck.py (9),
cosigncheck.py (10).
"""

import gc
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contents import ContentChecker
from .cosignature import CosignerKey
from .cosigncheck import cosigned_notes, cosigned_trees
from .errors import LogDamaged, NoteError
from .filekinds import is_foreign, misshapen, step_of
from .findings import Collector, Findings, Problem
from .leaves import WalLeaves
from .note import Checkpoint, VerifierKey
from .payloadcheck import check_payload_files
from .prove import Proven, as_verifier, prove, verify_proof
from .prunecheck import checked_anew, kept_checkpoints, load_boundary
from .publish import CHECKPOINT_NAME, read_checkpoint
from .rotation import KeyChain, chain_of
from .rotationcheck import check_rotations
from .tree import TreeChecker

__all__ = ["Findings", "Problem", "Proven", "prove", "verify_log", "verify_proof"]

_OF_WAL = re.compile(r"[0-9]{20}\.(wal|wal\.tmp|carry|carry\.tmp)")


def verify_log(
    directory: Path,
    public_key: VerifierKey | str | bytes,
    *,
    earlier_checkpoint: str | None = None,
    in_flight_s: float = 0.0,
    witnesses: Sequence[CosignerKey] = (),
) -> Findings:
    """Check everything that the files in `directory` claim.

    Args:
        directory: a log, or a copy of one; a writer may be at work.
        public_key: a C2SP vkey text (then the log's name is checked, too) or 32 raw bytes.
        earlier_checkpoint: a signed checkpoint that the caller kept: shows forks and roll-backs.
        in_flight_s: for a log that is being written: a number that is missing this shortly before
            the last record is a note, not a problem.
        witnesses: keys of witnesses; their cosignatures must be right, and are counted.

    Returns:
        Findings; `ok` if nothing was found. Damage is reported, never raised.
    """
    unasked = (5,) if earlier_checkpoint is None else ()

    def check() -> Findings:
        found = Collector(unasked=unasked)
        return _whatever_is_there(
            directory,
            found,
            lambda: _checked(
                directory,
                public_key,
                found,
                earlier_checkpoint=earlier_checkpoint,
                in_flight_s=in_flight_s,
                witnesses=witnesses,
            ),
        )

    return checked_anew(directory, check)


def _whatever_is_there(
    directory: Path, found: Collector, checked: Callable[[], Findings]
) -> Findings:
    if not _readable(directory, found):
        return found.findings(read=False)
    try:
        return checked()
    except OSError as exc:
        file, step = _place_of(directory, exc)
        found.problem(step, f"could not read it: {exc.strerror}", file=file)
        found.note("what comes after this was not checked")
        return found.findings(read=False)


def _readable(directory: Path, found: Collector) -> bool:
    """Whether everything can be opened; what cannot is a problem, and nothing is read then."""
    wrong = misshapen(directory)
    for path, what, step in wrong:
        if step is None:
            found.note(f"{path}: {what}; it proves nothing and was not read")
        else:
            found.problem(step, what, file=path)
    if found.problems:
        found.note("nothing else was checked: a log is read when all of it can be")
    return not found.problems


def _place_of(directory: Path, error: OSError) -> tuple[str, int]:
    """Where it was, relative to the log, and the step that reads there."""
    name = Path(os.fsdecode(error.filename or directory))
    file = str(name.relative_to(directory)) if name.is_relative_to(directory) else str(name)
    return file, step_of(file)


def _checked(
    directory: Path,
    public_key: VerifierKey | str | bytes,
    found: Collector,
    *,
    earlier_checkpoint: str | None,
    in_flight_s: float,
    witnesses: Sequence[CosignerKey],
) -> Findings:
    notes = cosigned_notes(directory, witnesses, found)  # before the checkpoint is read
    signed, chain = _signed_checkpoint(directory, public_key, found)
    cosigned = cosigned_trees(notes, chain, witnesses, found)
    cosigned += [] if chain is None else chain.trees
    earlier = _earlier(earlier_checkpoint, chain, found)
    boundary = load_boundary(directory, found)
    kept = kept_checkpoints(directory, chain, found)
    # In this order, so that a living writer is only ever ahead of what was read before.
    tree = TreeChecker(directory, found, signed, earlier, cosigned, boundary=boundary, kept=kept)
    size = 0 if signed is None else signed.size
    leaves = WalLeaves(directory, found, signed_size=size, boundary=boundary)
    contents, lost = ContentChecker(found, boundary), list[range]()
    with _collector_paused():
        for first, entries in leaves:
            if entries is None:
                tree.lost(first)
                lost.append(range(first, leaves.count))
            else:
                tree.leaves(entries)
                contents.entries(first, entries)
    tree.finish()
    end = contents.finish(in_flight_s)
    leaves.check_marker()
    if chain is not None:
        begins = 0 if boundary is None else boundary.first_leaf
        check_rotations(directory, chain, contents.rotated, lost, found, first=begins)
    payloads = 0 if boundary is None else boundary.record.first_payloads
    check_payload_files(
        directory,
        leaves.watermark,
        found,
        contents.erased,
        end,
        first_segment=payloads,
        ends=leaves.payload_ends,
        sealed=contents.sealed,
    )
    _strays(directory, found)
    _unchecked(signed, leaves, found)
    if lost:
        later = {5: [earlier] if earlier else [], 10: cosigned}
        uncompared = [n for n in later if any(tree.size > lost[0].start for tree in later[n])]
        found.unchecked(4, *uncompared, 6, 7, why="leaves are lost", partly=True)
    return found.findings(
        origin=None if signed is None else signed.origin,
        signed_leaves=0 if signed is None else signed.size,
        leaves=leaves.count,
        instances=contents.completeness.instances(),
    )


def _unchecked(signed: Checkpoint | None, leaves: WalLeaves, found: Collector) -> None:
    """Say for which steps too little was there."""
    if signed is None:
        found.unchecked(3, why="no checkpoint is signed by the given key")
    if leaves.tiles_only:
        found.unchecked(2, 8, 9, why="there is no write-ahead log")
    elif any(problem.step == 2 for problem in found.problems):
        why = "the write-ahead log, which says how far the files go, is not whole"
        found.unchecked(9, why=why, partly=True)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of objects come and go, and no cycles: to look for some takes 2 % of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _signed_checkpoint(
    directory: Path, public_key: VerifierKey | str | bytes, found: Collector
) -> tuple[Checkpoint | None, KeyChain | None]:
    chain: KeyChain | None = None
    try:
        note = read_checkpoint(directory)
        if note is None:
            found.problem(1, "there is no signed checkpoint", file=CHECKPOINT_NAME)
            return None, _keys_without_note(directory, public_key)
        chain = chain_of(directory, as_verifier(public_key, note))
        return chain.open(note), chain
    except (NoteError, LogDamaged) as exc:
        found.problem(1, str(exc), file=CHECKPOINT_NAME)
        return None, chain or _keys_without_note(None, public_key)


def _keys_without_note(
    directory: Path | None, public_key: VerifierKey | str | bytes
) -> KeyChain | None:
    """The log's keys where no checkpoint names it; only the given one without the folder."""
    if isinstance(public_key, bytes):
        return None
    if isinstance(public_key, str):
        public_key = VerifierKey.parse(public_key)
    return KeyChain.build(public_key, []) if directory is None else chain_of(directory, public_key)


def _earlier(note: str | None, chain: KeyChain | None, found: Collector) -> Checkpoint | None:
    if note is None:
        return None
    if chain is None:
        found.problem(5, "the earlier checkpoint cannot be checked: the log's name is unknown")
        return None
    try:
        return chain.open(note)
    except NoteError as exc:
        found.problem(5, f"the earlier checkpoint: {exc}")
        return None


def _strays(directory: Path, found: Collector) -> None:
    for path in sorted(directory.iterdir()):
        if is_foreign(path.name):
            found.note(f"{path.name} is not part of the log and was not checked")
    for path in sorted((directory / "wal").glob("*")):
        if not _OF_WAL.fullmatch(path.name):
            found.note(f"wal/{path.name} is not part of the log and was not checked")
