r"""What a reader of the log made of all leaves before one, so that a start reads only the rest.

    "WBSNAP2\n", HMAC-SHA256 of the rest, uint32 length of a JSON object, that object, a body

Rule 1: derived, and proves nothing. It names its kind, how many leaves it is made of, how far it
has seen, and the hashes of the last of each: where the log does not have those leaves, or the file
is not whole, not ours, or of another kind, there is no snapshot, and the whole log is read.
Rule 2: not synced: after a power cut it may be an older one, or none.
Rule 3: numbers and texts are the object's, whatever is large is the body.
Read next: standing.py and services/following.py (who use it).
"""

import hashlib
import hmac
import os
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from .files import replace_file
from .merkle import leaf_hash
from .reader import LogReader

__all__ = ["FOLLOWED", "SNAPSHOTS", "STANDING", "Snapshot", "SnapshotFile", "misformed"]

STANDING: Final = "standing"
FOLLOWED: Final = "followed"
SNAPSHOTS: Final = (STANDING, FOLLOWED)
"""The names of snapshots in a log's folder: of what is said of subjects, and of the explainer's."""


_MAGIC: Final = b"WBSNAP2\n"
_ANY_VERSION: Final = b"WBSNAP"
_BEGIN: Final = len(_MAGIC) + hashlib.sha256().digest_size
_LENGTH: Final = struct.Struct(">I")


class Snapshot(NamedTuple):
    """What a reader made of the log.

    Attributes:
        leaves: of how many it is made, at least one; a start goes on there.
        said: what JSON can say of them.
        body: the rest.
        seen: of how many leaves anything in it is made; `leaves`, if it is less.
    """

    leaves: int
    said: Mapping[str, Any]
    body: bytes | memoryview = b""
    seen: int = 0


class SnapshotFile:
    """Where one reader's snapshot is kept, mode 0600.

    Args:
        path: of the file.
        kind: what it is a snapshot of, and in which form.
        key: who does not have it cannot make such a file.
    """

    def __init__(self, path: Path, kind: str, key: bytes) -> None:
        self._path = path
        self._kind = kind
        self._key = key

    def save(self, reader: LogReader, snapshot: Snapshot) -> None:
        """Put it in place of the one before; where the disk refuses, that one stays.

        Raises:
            LogDamaged: the log cannot be read.
        """
        leaves, said, body, seen = snapshot
        ends = [leaves, max(leaves, seen)]
        hashes = [_hash_of(reader, end - 1) for end in ends]
        if None in hashes:
            return  # it could not be told whether it fits
        head = orjson.dumps({"kind": self._kind, "ends": ends, "hashes": hashes, "said": said})
        rest = b"".join((_LENGTH.pack(len(head)), head, body))
        with suppress(OSError):  # a start without it reads the log
            whole = b"".join((_MAGIC, self._mac(rest), rest))
            replace_file(self._path, whole, mode=0o600, durable=False)

    def load(self, reader: LogReader) -> Snapshot | None:
        """What was saved last, if it is whole, of this kind, and of this log.

        Raises:
            LogDamaged: the log cannot be read.
        """
        raw = _read(self._path)
        rest = memoryview(raw)[_BEGIN:]
        if raw[: len(_MAGIC)] != _MAGIC or not hmac.compare_digest(
            raw[len(_MAGIC) : _BEGIN], self._mac(rest)
        ):
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
        head = orjson.loads(rest[_LENGTH.size : end])
        if head["kind"] != self._kind:
            return None
        leaves, seen = head["ends"]
        if head["hashes"] != [_hash_of(reader, one - 1) for one in (leaves, seen)]:
            return None
        return Snapshot(leaves, head["said"], rest[end:], seen)

    def _mac(self, rest: bytes | memoryview) -> bytes:
        return hmac.digest(self._key, rest, "sha256")


def misformed(path: Path) -> str | None:
    """Why it does not look like a snapshot of this version; without the key nobody can say more."""
    raw = _read(path)
    if raw.startswith(_ANY_VERSION) and not raw.startswith(_MAGIC):
        return "of another version"
    try:
        end = _BEGIN + _LENGTH.size + _LENGTH.unpack_from(raw, _BEGIN)[0]
        head = orjson.loads(raw[_BEGIN + _LENGTH.size : end])
    except (struct.error, orjson.JSONDecodeError):
        return "damaged"
    whole = raw.startswith(_MAGIC) and len(raw) >= end and isinstance(head, dict)
    return None if whole else "damaged"


def _read(path: Path) -> bytes:
    """A file's bytes; none where there is no file that can be read. A pipe is not waited for."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:  # noqa: PTH123  a descriptor
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read()
    return b""


def _hash_of(reader: LogReader, leaf: int) -> str | None:
    """The hash of a leaf, in hex; None if the log does not have it."""
    if not reader.first() <= leaf < reader.size():
        return None
    return "".join(leaf_hash(data).hex() for _, data in reader.raw(leaf, leaf + 1))
