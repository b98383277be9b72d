"""One data key per subject, in slots that can be destroyed one by one.

A slot of `blobs/subjects.keys`, 128 bytes:
    4 bytes "WBSK", 1 byte state (1 live, 2 destroyed), 3 bytes zero
    32 bytes subject (HMAC-SHA256 of its name), 12 bytes nonce, 48 bytes wrapped key (AES-256-GCM
    under the master key, additional data = subject), 24 bytes zero, uint32 CRC-32 of the above
Rule: a slot number never changes its subject. Destroying overwrites nonce and key with zeros, in
place and durably; a subject that comes back gets a new slot, and its old payloads stay lost.
Read next: blobs.py (who uses the keys), payloads.py (reading them in another process).
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .appendfile import AppendFile
from .errors import LogDamaged, PayloadDamaged
from .files import FileLayer, replace_file
from .keys import Keyring
from .mac import Mac
from .syncer import Written

SLOT_BYTES = 128
LIVE, DESTROYED = 1, 2
_SLOT = struct.Struct(">4sB3x32s12s48s24x")
_CRC = struct.Struct(">I")
_KEY = slice(40, 100)  # nonce and wrapped key
_MAGIC = b"WBSK"
_RESERVE_BYTES = 1 << 18
_CACHED_KEYS = 65_536


class Slot(NamedTuple):
    """The parsed content of a slot."""

    state: int
    subject: bytes
    nonce: bytes
    wrapped: bytes


def slots_path(directory: Path) -> Path:
    """Where the slots lie."""
    return directory / "blobs" / "subjects.keys"


def format_slot(slot: Slot) -> bytes:
    """The 128 bytes of a slot; the inverse of `parse_slot`."""
    head = _SLOT.pack(_MAGIC, *slot)
    return head + _CRC.pack(zlib.crc32(head))


def parse_slot(raw: bytes) -> Slot | None:
    """The slot in `raw`, or None if it is not a whole one."""
    if len(raw) != SLOT_BYTES or zlib.crc32(raw[: _SLOT.size]) != _CRC.unpack(raw[-4:])[0]:
        return None
    magic, state, subject, nonce, wrapped = _SLOT.unpack_from(raw)
    return Slot(state, subject, nonce, wrapped) if magic == _MAGIC else None


def holds_key(raw: bytes) -> bool:
    """Whether anything stands where a slot has its key, be the slot whole or not."""
    return any(raw[_KEY])


def subject_digest(names: Mac, subject: str) -> bytes:
    """How a subject is named in a slot: keyed, so that the file tells nobody who is in it."""
    return names.digest(subject.encode())


def unwrap(keyring: Keyring, slot: Slot) -> bytes:
    """The data key in a live slot.

    Raises:
        PayloadDamaged: wrapped by another master key, or changed.
    """
    try:
        wrapper = AESGCM(keyring.derived("wrap"))
        return wrapper.decrypt(slot.nonce, slot.wrapped, slot.subject)
    except InvalidTag as exc:
        raise PayloadDamaged("could not unwrap a data key: not made by this keyring") from exc


class SubjectKeys:
    """The write end of the slots, for one thread."""

    def __init__(self, directory: Path, keyring: Keyring, count: int, files: FileLayer) -> None:
        self._keyring = keyring
        self._wrapper = AESGCM(keyring.derived("wrap"))
        names = Mac(keyring.derived("subject"))
        self._digest = lru_cache(_CACHED_KEYS)(partial(subject_digest, names))
        self._slots: dict[bytes, list[int]] = {}
        self._keys: dict[int, bytes] = {}
        self._doomed: set[int] = set()
        self._path = slots_path(directory)
        if not self._path.exists() and count == 0:
            replace_file(self._path, b"", mode=0o600)
        self._load(count)
        self._file = AppendFile(self._path, count * SLOT_BYTES, files, reserve=_RESERVE_BYTES)

    @property
    def count(self) -> int:
        """How many slots are durable."""
        return self._file.size // SLOT_BYTES

    @property
    def ahead(self) -> int:
        """How many slots there are, if those that were begun become durable."""
        return self._file.end // SLOT_BYTES

    def ready(self, subjects: int) -> bool:
        """Whether `begin` can take so many without waiting for the disk."""
        return self._file.ready(subjects * SLOT_BYTES)

    def begin(self, subjects: Sequence[str]) -> tuple[list[int], list[Written]]:
        """A live slot for each subject, and the pieces to sync for those that are new.

        `commit` or `roll_back` must follow, as the sync did or did not succeed.

        Raises:
            OSError: nothing was added.
        """
        digests = list(map(self._digest, subjects))
        slots, doomed = self._slots, self._doomed
        fresh = [
            digest
            for digest in dict.fromkeys(digests)
            if not (numbers := slots.get(digest)) or numbers[-1] in doomed
        ]
        syncs = []
        if fresh:
            keys = [self._keyring.random(32) for _ in fresh]
            made = [self._wrap(d, key) for d, key in zip(fresh, keys, strict=True)]
            syncs.append(self._file.begin(b"".join(format_slot(slot) for slot in made)))
            for number, (digest, key) in enumerate(zip(fresh, keys, strict=True), self.count):
                slots.setdefault(digest, []).append(number)
                self._remember(number, key)
        return [slots[digest][-1] for digest in digests], syncs

    def check_there(self) -> None:
        """See AppendFile.check_there."""
        self._file.check_there()

    def more_room(self) -> Callable[[], None] | None:
        """See AppendFile.more_room."""
        return self._file.more_room()

    def commit(self) -> None:
        """Believe the slots that `begin` made."""
        self._file.commit()

    def key(self, number: int) -> bytes:
        """The data key of a live slot."""
        key = self._keys.get(number)
        if key is None:
            key = unwrap(self._keyring, self._read(number))
            self._remember(number, key)
        return key

    def slots_of(self, subject: str) -> list[int]:
        """The numbers of the live slots of `subject`."""
        return list(self._slots.get(self._digest(subject), ()))

    def live(self) -> list[int]:
        """The numbers of all live slots."""
        return sorted(number for numbers in self._slots.values() for number in numbers)

    def destroy(self, subject: str) -> bool:
        """Overwrite every live key of `subject`; whether there was one.

        Raises:
            OSError: call again.
        """
        return self.destroy_slots(self.slots_of(subject)) > 0

    def destroy_slots(self, numbers: Sequence[int]) -> int:
        """Overwrite the keys in these slots; how many were live. Unknown numbers are passed over.

        One whose overwriting failed counts as live until it is durable, but nothing new is put
        under it: who comes back meanwhile gets a new slot.

        Raises:
            OSError: call again.
        """
        destroyed = 0
        known = [number for number in numbers if 0 <= number < self.count]
        self._doomed.update(known)
        for number in known:
            slot = self._read(number)
            # Or destroyed in the file alone: its sync failed, do it again.
            if slot.state == LIVE or number in self._slots.get(slot.subject, ()):
                self._keys.pop(number, None)
                dead = format_slot(Slot(DESTROYED, slot.subject, bytes(12), bytes(48)))
                self._file.overwrite(dead, number * SLOT_BYTES)
                kept = [other for other in self._slots.pop(slot.subject, ()) if other != number]
                if kept:
                    self._slots[slot.subject] = kept
                destroyed += 1
            self._doomed.discard(number)
        return destroyed

    def roll_back(self, count: int) -> None:
        """Forget slots from `count` on, those that were begun included."""
        if count < self.count or self._file.begun:
            self._slots = {
                digest: kept
                for digest, numbers in self._slots.items()
                if (kept := [number for number in numbers if number < count])
            }
            self._keys = {n: key for n, key in self._keys.items() if n < count}
            self._file.roll_back(count * SLOT_BYTES)

    def close(self) -> None:
        """Release the file and forget the keys."""
        self._keys.clear()
        self._file.close()

    def _wrap(self, digest: bytes, key: bytes) -> Slot:
        nonce = self._keyring.random(12)
        return Slot(LIVE, digest, nonce, self._wrapper.encrypt(nonce, key, digest))

    def _remember(self, number: int, key: bytes) -> None:
        self._keys[number] = key
        if len(self._keys) > _CACHED_KEYS:
            self._keys.pop(next(iter(self._keys)))

    def _load(self, count: int) -> None:
        raw = self._path.read_bytes()[: count * SLOT_BYTES] if self._path.exists() else b""
        if len(raw) < count * SLOT_BYTES:
            raise LogDamaged(
                self._path, offset=len(raw), expected=f"{count} slots", found="the end of the file"
            )
        for number in range(count):
            slot = parse_slot(raw[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])
            if slot is None:
                raise self._damaged(number)
            if slot.state == LIVE:
                self._slots.setdefault(slot.subject, []).append(number)

    def _read(self, number: int) -> Slot:
        with self._path.open("rb") as file:
            file.seek(number * SLOT_BYTES)
            slot = parse_slot(file.read(SLOT_BYTES))
        if slot is None:
            raise self._damaged(number)
        return slot

    def _damaged(self, number: int) -> LogDamaged:
        offset = number * SLOT_BYTES
        return LogDamaged(self._path, offset=offset, expected="a whole key slot", found="damage")
