"""Rotations against the records: a key is rotated by a record, and a record by a rotation.

Rule: a rotation whose leaf is not a `key_rotation` record of its two keys is a problem, and so is
such a record without a rotation: the one would be a key swap that the log does not tell of, the
other a promise that was not kept, or not yet: where the key that it replaces is in force still, the
writer was interrupted. What a lost leaf said is not guessed.
Boundary: takes what was met while the leaves were walked, and reads names of files; that rotations
hold, and that their trees are this log's beginning, is checked elsewhere (rotation.py, tree.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .findings import Collector, amount
from .rotation import ROTATIONS_NAME, KeyChain, rotation_sizes

__all__ = ["INTERRUPTED", "check_rotations"]

_STEP = 1
INTERRUPTED = "a key rotation was interrupted"
"""How the problem begins that the writer's next start mends."""


def check_rotations(
    directory: Path,
    chain: KeyChain,
    recorded: Mapping[int, tuple[str, str]],
    lost: Sequence[range],
    found: Collector,
    *,
    first: int,
) -> None:
    """Report what does not agree; after the records were counted.

    Args:
        directory: the log's.
        chain: the log's keys, and the rotations between them.
        recorded: the old and the new key of each `key_rotation` record, by leaf.
        lost: leaves that could not be read.
        found: told of what does not agree.
        first: the first leaf that the log holds.
    """
    for rotation in chain.rotations:
        file, leaf = f"{ROTATIONS_NAME}/{rotation.tree.size:020d}", rotation.leaf
        if leaf < first:
            found.note(f"the record of a key's rotation, leaf {leaf}, was pruned")
        elif any(leaf in leaves for leaves in lost):
            found.note(f"the record of a key's rotation, leaf {leaf}, is lost and was not checked")
        elif recorded.get(leaf) != (str(rotation.old), str(rotation.new)):
            message = "no record there says that the log's key was rotated"
            found.problem(_STEP, message, file=file, leaf=leaf)
        found.count("key rotations")
        found.note(
            f"the key {rotation.old.key_id.hex()} was replaced by {rotation.new.key_id.hex()} at "
            f"{amount(rotation.tree.size, 'leaves')} (recorded as {leaf})"
        )
    records, there = found.counts.get("key_rotation events", 0), len(rotation_sizes(directory))
    begun = [leaf for leaf, (old, _) in recorded.items() if old == str(chain.newest)]
    for leaf in begun:
        message = f"{INTERRUPTED}: the new key does not sign yet; the next start finishes it"
        found.problem(_STEP, message, file=ROTATIONS_NAME, leaf=leaf)
    if records - len(begun) > there:
        message = (
            f"{records} records say that the log's key was rotated, and {there} rotations are there"
        )
        found.problem(_STEP, message, file=ROTATIONS_NAME)
