r"""What a reader of the log made of all leaves before one, so that a start reads only the rest.

    8 bytes "WBSNAP1\n", SHA-256 of the rest, uint32 length of a JSON object, that object, a body

Rule 1: derived, and proves nothing. It names its kind, how many leaves it is made of, and the hash
of the last of them: where the log does not have that leaf, or the file is not whole, or of another
kind, there is no snapshot, and the whole log is read. Whoever can change it lies beside the keys.
Rule 2: not synced: after a power cut it may be an older one, or none.
Rule 3: numbers and texts are the object's, whatever is large is the body.
Read next: standing.py and services/following.py (who use it).
"""

import hashlib
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from .files import replace_file
from .merkle import leaf_hash
from .reader import LogReader

__all__ = ["FOLLOWED", "SNAPSHOTS", "STANDING", "Snapshot", "SnapshotFile"]

STANDING: Final = "standing"
FOLLOWED: Final = "followed"
SNAPSHOTS: Final = (STANDING, FOLLOWED)
"""The names of snapshots in a log's folder: of what is said of subjects, and of the explainer's."""


_MAGIC: Final = b"WBSNAP1\n"
_BEGIN: Final = len(_MAGIC) + hashlib.sha256().digest_size
_LENGTH: Final = struct.Struct(">I")


class Snapshot(NamedTuple):
    """Of how many leaves it is made, at least one; what JSON can say of them; the rest."""

    leaves: int
    said: Mapping[str, Any]
    body: bytes | memoryview = b""


class SnapshotFile:
    """Where one reader's snapshot is kept, mode 0600.

    Args:
        path: of the file.
        kind: what it is a snapshot of, and in which form.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind

    def save(self, reader: LogReader, snapshot: Snapshot) -> None:
        """Put it in place of the one before; where the disk refuses, that one stays.

        Raises:
            LogDamaged: the log cannot be read.
        """
        leaves, said, body = snapshot
        last = _hash_of(reader, leaves - 1)
        head = orjson.dumps({"kind": self._kind, "leaves": leaves, "last": last, "said": said})
        rest = b"".join((_LENGTH.pack(len(head)), head, body))
        with suppress(OSError):  # a start without it reads the log
            whole = b"".join((_MAGIC, hashlib.sha256(rest).digest(), rest))
            replace_file(self._path, whole, mode=0o600, durable=False)

    def load(self, reader: LogReader) -> Snapshot | None:
        """What was saved last, if it is whole, of this kind, and of this log.

        Raises:
            LogDamaged: the log cannot be read.
        """
        try:
            raw = self._path.read_bytes()
        except OSError:
            return None
        rest = memoryview(raw)[_BEGIN:]
        if raw[:_BEGIN] != _MAGIC + hashlib.sha256(rest).digest():
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
        head = orjson.loads(rest[_LENGTH.size : end])
        leaves = head["leaves"]
        if head["kind"] != self._kind or leaves > reader.size():
            return None
        if head["last"] != _hash_of(reader, leaves - 1):
            return None
        return Snapshot(leaves, head["said"], rest[end:])


def _hash_of(reader: LogReader, leaf: int) -> str:
    """The hash of a leaf, in hex; empty if it was pruned."""
    if leaf < reader.first():
        return ""
    return "".join(leaf_hash(data).hex() for _, data in reader.raw(leaf, leaf + 1))
