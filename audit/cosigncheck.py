"""What a verifier checks of witnesses: what they cosigned is rightly signed, and said to whom asks.

Rule: reports to a Collector, raises nothing about the evidence. A witness whose key is not given is
nobody's business here; where keys are given and nothing is kept, that is said.
Read next: cosigned.py (where the notes lie), tree.py (whether their trees begin this log).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .cosignature import CosignerKey, cosignatures
from .cosigned import COSIGNED_NAME, read_cosigned
from .errors import LogDamaged, NoteError
from .findings import Collector, amount
from .note import Checkpoint
from .rotation import KeyChain

__all__ = ["cosigned_notes", "cosigned_trees"]

_STEP = 10
_LAST_S = 1 << 36  # a time that a date can show


def cosigned_notes(
    directory: Path, witnesses: Sequence[CosignerKey], found: Collector
) -> list[str]:
    """Every kept note, unverified; read first, since a living log may have more cosigned."""
    try:
        notes = read_cosigned(directory)
    except LogDamaged as exc:
        found.problem(_STEP, str(exc), file=COSIGNED_NAME)
        return []
    if not notes:
        found.unchecked(_STEP, why="no cosignatures are kept here" if witnesses else "")
    return notes


def cosigned_trees(
    notes: list[str], chain: KeyChain | None, witnesses: Sequence[CosignerKey], found: Collector
) -> list[Checkpoint]:
    """The trees that were cosigned; who cosigned the newest of them is noted."""
    trees = []
    for note in notes:
        if chain is None:
            found.problem(
                _STEP, "cosigned checkpoints cannot be checked: the log's name is unknown"
            )
            break
        try:
            tree = chain.open(note)
            signers = cosignatures(note, witnesses)
        except NoteError as exc:
            found.problem(_STEP, str(exc), file=COSIGNED_NAME)
            continue
        trees.append(tree)
        found.count("checkpoints that witnesses cosigned")
        for name, time_s in ((signer.key.name, signer.time_s) for signer in signers):
            when = datetime.fromtimestamp(min(time_s, _LAST_S), UTC)
            found.count("witnesses that cosigned")
            leaves = amount(tree.size, "leaves")
            found.note(f"{name} cosigned {leaves} at {when:%Y-%m-%d %H:%M:%S} UTC")
    return trees
