r"""The payload files' formats: records of encrypted payloads, and where they lie.

    blobs/<8 digits>.seg   header: 8 bytes "WBBLOB1\n", uint32 number, uint32 CRC-32; then records:
        4 bytes  F5 'B' 'L' FE
        uint32   length of the meta part, uint32 length of the sealed part
        uint32   CRC-32 of meta and sealed, uint32 CRC-32 of the 16 bytes before
        meta     canonical JSON {"id", "name", "slot"}
        sealed   12 bytes nonce, AES-256-GCM of the payload; additional data = meta
Rule: formats only, told and made without a file being opened.
Read next: blobs.py (who writes them), payloads.py (who reads them), subjects.py (the keys).
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from isal.isal_zlib import crc32

from .errors import EntryTooLarge

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "NONCE_BYTES",
    "RECORD_HEADER_BYTES",
    "RECORD_MAGIC",
    "SEGMENT_HEADER_BYTES",
    "Payload",
    "RecordHeader",
    "as_payloads",
    "blob_segment_path",
    "blob_segments",
    "first_blob_segment",
    "format_blob_header",
    "format_record",
    "parse_record_header",
    "unseal",
]

MAX_PAYLOAD_BYTES = 64 << 20
SEGMENT_HEADER_BYTES = 16
RECORD_MAGIC = b"\xf5BL\xfe"
NONCE_BYTES = 12
_SEGMENT = struct.Struct(">8sI")
_RECORD = struct.Struct(">4sIII")
_CRC = struct.Struct(">I")
RECORD_HEADER_BYTES = _RECORD.size + 4


class Payload(NamedTuple):
    """One payload to store: found again by the decision's id and the name."""

    decision_id: str
    name: str
    subject: str
    data: bytes


def as_payloads(decision_id: str, bodies: Mapping[str, bytes], subject: str) -> tuple[Payload, ...]:
    """The payloads of one event, by name.

    Raises:
        EntryTooLarge: one is larger than 64 MiB.
    """
    for name, body in bodies.items():
        if len(body) > MAX_PAYLOAD_BYTES:
            raise EntryTooLarge(f"could not store payload {name}: {len(body)} bytes")
    return tuple([Payload(decision_id, name, subject, body) for name, body in bodies.items()])


class RecordHeader(NamedTuple):
    """The parsed header of a record."""

    meta_bytes: int
    sealed_bytes: int
    crc: int


def blob_segment_path(directory: Path, number: int) -> Path:
    """Where payload segment `number` (from 0) lies."""
    return directory / "blobs" / f"{number:08d}.seg"


def blob_segments(directory: Path) -> list[int]:
    """The numbers of the payload segments that are there, in order."""
    names = (path.stem for path in (directory / "blobs").glob("*.seg"))
    return sorted(int(name) for name in names if name.isdecimal())


def first_blob_segment(directory: Path) -> int:
    """The first payload segment that is there; pruning takes them from the front."""
    return next(iter(blob_segments(directory)), 0)


def format_blob_header(number: int) -> bytes:
    """The first 16 bytes of payload segment `number`."""
    head = _SEGMENT.pack(b"WBBLOB1\n", number)
    return head + _CRC.pack(crc32(head))


def format_record(meta: bytes, sealed: bytes) -> bytes:
    """A record; the inverse of `parse_record_header` and two reads."""
    head = _RECORD.pack(RECORD_MAGIC, len(meta), len(sealed), crc32(sealed, crc32(meta)))
    return b"".join((head, crc32(head).to_bytes(4, "big"), meta, sealed))


def parse_record_header(raw: bytes) -> RecordHeader | None:
    """The header in the first 20 bytes of `raw`, or None if they are not one."""
    if len(raw) < RECORD_HEADER_BYTES or raw[:4] != RECORD_MAGIC:
        return None
    if crc32(raw[: _RECORD.size]) != _CRC.unpack_from(raw, _RECORD.size)[0]:
        return None
    return RecordHeader(*_RECORD.unpack_from(raw)[1:])


def unseal(key: bytes, meta: bytes, sealed: bytes) -> bytes:
    """The payload in a record.

    Raises:
        InvalidTag: changed bytes or another key.
    """
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], meta)
