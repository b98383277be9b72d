"""Rotations against the records: a key is rotated by a record, and a record by a rotation.

Rule: a rotation whose leaf is not a `key_rotation` record of its two keys is a problem, and so is
such a record without a rotation: the one would be a key swap that the log does not tell of, the
other a promise that was not kept.
Boundary: reads the log's files; that rotations hold, and that their trees are the beginning of this
log, is checked elsewhere (rotation.py, tree.py).
"""

from pathlib import Path

from .errors import AuditError, LogDamaged
from .events import Event, KeyRotation
from .findings import Collector
from .reader import LogReader
from .record import decode
from .rotation import ROTATIONS_NAME, KeyChain, Rotation

__all__ = ["check_rotations"]

_STEP = 1


def check_rotations(directory: Path, chain: KeyChain, found: Collector) -> None:
    """Report what does not agree; after the records were counted."""
    reader = LogReader(directory)
    try:
        first = reader.first()
    except LogDamaged:
        first = 0  # step 2 names it
    for rotation in chain.rotations:
        file = f"{ROTATIONS_NAME}/{rotation.tree.size:020d}"
        if rotation.leaf < first:
            found.note(f"the record of a key's rotation, leaf {rotation.leaf}, was pruned")
        elif not _says(_event(reader, rotation.leaf), rotation):
            message = "no record there says that the log's key was rotated"
            found.problem(_STEP, message, file=file, leaf=rotation.leaf)
        found.count("key rotations")
        found.note(
            f"the key {rotation.old.key_id.hex()} was replaced by {rotation.new.key_id.hex()} at "
            f"{rotation.tree.size} leaves (recorded as {rotation.leaf})"
        )
    recorded = found.counts.get("key_rotation events", 0)
    if recorded > len(chain.rotations):
        found.problem(
            _STEP,
            f"{recorded} records say that the log's key was rotated, and {len(chain.rotations)} "
            "rotations are there; if the writer was interrupted, its next start finishes them",
        )


def _event(reader: LogReader, leaf: int) -> Event | None:
    try:
        for _, data in reader.raw(leaf, leaf + 1):
            return decode(data)
    except AuditError:  # damage is reported where it is looked for
        pass
    return None


def _says(event: Event | None, rotation: Rotation) -> bool:
    keys = (str(rotation.old), str(rotation.new))
    return isinstance(event, KeyRotation) and (event.old_key, event.new_key) == keys
