"""Finding and opening payloads, in any process that holds the files and the keyring.

Rule: read-only. The place of each payload is learnt by walking over record headers, from where the
last walk ended; where the log says between which places it must lie, only those are looked at, and
nothing is remembered. A payload whose subject was erased is None, one that does not open is an
error.
Read next: blobfile.py (the format), reader.py (who offers this).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from isal.isal_zlib import crc32

from .blobfile import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    blob_segment_path,
    first_blob_segment,
    format_blob_header,
    parse_record_header,
    unseal,
)
from .canonical import loads
from .errors import DecodeError, LogDamaged, PayloadDamaged
from .frames import Watermark
from .keys import Keyring
from .subjects import LIVE, SLOT_BYTES, parse_slot, slots_path, unwrap


class _Place(NamedTuple):
    segment: int
    offset: int
    meta_bytes: int
    sealed_bytes: int
    crc: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + RECORD_HEADER_BYTES + self.meta_bytes + self.sealed_bytes


class Payloads:
    """The payloads of one log, by decision id and name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[tuple[str, str], _Place] = {}
        self._segment = 0
        self._offset = SEGMENT_HEADER_BYTES

    def get(self, keyring: Keyring, decision_id: str, name: str) -> bytes | None:
        """The payload, or None if there is none, or its subject was erased.

        Raises:
            PayloadDamaged: it is there but does not open.
            LogDamaged: its record or its key slot is damaged.
        """
        place = self._places.get((decision_id, name)) or self._find(decision_id, name)
        if place is None:
            return None
        raw = self._read(place)
        if raw is None:  # the writer took back bytes that had been seen: look again from the start
            self._forget()
            place = self._find(decision_id, name)
            raw = None if place is None else self._read(place)
        if place is None:
            return None
        return self._opened(keyring, decision_id, name, place, raw)

    def between(
        self, keyring: Keyring, decision_id: str, name: str, marks: tuple[Watermark, Watermark]
    ) -> bytes | None:
        """The same, if it was written while the files grew from one mark to the other.

        Raises:
            PayloadDamaged, LogDamaged: as `get`.
        """
        before, after = marks
        segment, offset = before.blob_segment, max(before.blob_bytes, SEGMENT_HEADER_BYTES)
        while segment <= after.blob_segment:
            end = after.blob_bytes if segment == after.blob_segment else None
            for key, place in _headers(self._directory, segment, offset, end):
                if key == (decision_id, name):
                    return self._opened(keyring, decision_id, name, place, self._read(place))
            segment, offset = segment + 1, SEGMENT_HEADER_BYTES
        return None

    def kept(self, name: str) -> frozenset[str]:
        """The decisions that have a payload of this name, readable or not."""
        self._walk()
        return frozenset(decision for decision, found in self._places if found == name)

    def _find(self, decision_id: str, name: str) -> _Place | None:
        self._walk()
        return self._places.get((decision_id, name))

    def _forget(self) -> None:
        self._places.clear()
        self._segment, self._offset = 0, SEGMENT_HEADER_BYTES

    def _walk(self) -> None:
        if not blob_segment_path(self._directory, self._segment).exists():
            self._segment = first_blob_segment(self._directory)  # the ones before were pruned
            self._offset = SEGMENT_HEADER_BYTES
        while blob_segment_path(self._directory, self._segment).exists():
            for key, place in _headers(self._directory, self._segment, self._offset):
                if key is not None:
                    self._places[key] = place
                self._offset = place.end
            if not blob_segment_path(self._directory, self._segment + 1).exists():
                return
            self._segment, self._offset = self._segment + 1, SEGMENT_HEADER_BYTES

    def _read(self, place: _Place) -> bytes | None:
        try:
            file = blob_segment_path(self._directory, place.segment).open("rb")
        except FileNotFoundError:
            return None
        with file:
            file.seek(place.offset)
            header = parse_record_header(file.read(RECORD_HEADER_BYTES))
            if header is None or tuple(header) != tuple(place[2:]):
                return None
            raw = file.read(header.meta_bytes + header.sealed_bytes)
        return raw if crc32(raw) == place.crc else None

    def _opened(
        self, keyring: Keyring, decision_id: str, name: str, place: _Place, raw: bytes | None
    ) -> bytes | None:
        if raw is None:
            raise LogDamaged(
                blob_segment_path(self._directory, place.segment),
                offset=place.offset,
                expected=f"payload {name} of {decision_id}",
                found="a different checksum",
            )
        return self._open(keyring, raw[: place.meta_bytes], raw[place.meta_bytes :])

    def _open(self, keyring: Keyring, meta: bytes, sealed: bytes) -> bytes | None:
        number = slot_of(meta)
        if number is None:
            raise PayloadDamaged(f"could not open a payload ({meta!r}): it names no key slot")
        path = slots_path(self._directory)
        with path.open("rb") as file:
            file.seek(number * SLOT_BYTES)
            slot = parse_slot(file.read(SLOT_BYTES))
        if slot is None:
            offset = number * SLOT_BYTES
            raise LogDamaged(path, offset=offset, expected="a whole key slot", found="damage")
        if slot.state != LIVE:
            return None
        try:
            return unseal(unwrap(keyring, slot), meta, sealed)
        except InvalidTag as exc:
            raise PayloadDamaged(f"could not open a payload ({meta.decode()}): changed") from exc


def _headers(
    directory: Path, segment: int, offset: int, end: int | None = None
) -> Iterator[tuple[tuple[str, str] | None, _Place]]:
    """Decision, name and place of each whole record from `offset` on, in one segment."""
    try:
        file = blob_segment_path(directory, segment).open("rb")
    except FileNotFoundError:
        return
    with file:
        while end is None or offset < end:
            file.seek(offset)
            header = parse_record_header(file.read(RECORD_HEADER_BYTES))
            if header is None:
                return
            place, meta = _Place(segment, offset, *header), file.read(header.meta_bytes)
            if file.seek(0, os.SEEK_END) < place.end or not any(meta):
                return  # still being written
            yield _key_of(meta), place
            offset = place.end


def _key_of(meta: bytes) -> tuple[str, str] | None:
    try:
        body = loads(meta)
    except DecodeError:
        return None
    if not isinstance(body, dict):
        return None
    decision_id, name = body.get("id"), body.get("name")
    return (decision_id, name) if isinstance(decision_id, str) and isinstance(name, str) else None


def slot_of(meta: bytes) -> int | None:
    """The number of the key slot that a record's meta part names; None if it names none."""
    try:
        body = loads(meta)
    except DecodeError:
        return None
    slot = body.get("slot") if isinstance(body, dict) else None
    return slot if isinstance(slot, int) else None


def payloads_whole(directory: Path, before: Watermark, after: Watermark) -> bool:
    """Whether what was added to the payload files between two watermarks is all there."""
    return _slots_whole(directory, before.subjects, after.subjects) and _records_whole(
        directory, before, after
    )


def _slots_whole(directory: Path, first: int, end: int) -> bool:
    if first >= end:
        return True
    path = slots_path(directory)
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(first * SLOT_BYTES)
        return all(parse_slot(file.read(SLOT_BYTES)) is not None for _ in range(first, end))


def _records_whole(directory: Path, before: Watermark, after: Watermark) -> bool:
    if (before.blob_segment, before.blob_bytes) == (after.blob_segment, after.blob_bytes):
        return True
    path = blob_segment_path(directory, after.blob_segment)
    if not path.exists():
        return False
    start = before.blob_bytes if before.blob_segment == after.blob_segment else 0
    with path.open("rb") as file:
        if file.read(SEGMENT_HEADER_BYTES) != format_blob_header(after.blob_segment):
            return False
        position = file.seek(max(start, SEGMENT_HEADER_BYTES))
        while position < after.blob_bytes:
            header = parse_record_header(file.read(RECORD_HEADER_BYTES))
            if header is None:
                return False
            body = file.read(header.meta_bytes + header.sealed_bytes)
            if len(body) < header.meta_bytes + header.sealed_bytes or crc32(body) != header.crc:
                return False
            position = file.tell()
    return position == after.blob_bytes
