r"""The formats of the sealed parts' key files, and what they say to who has no key.

    blobs/seal.roots       "WBSEAL1\n", 12 bytes nonce, uint32 CRC-32 of the nonce, then 65,536
                           entries of 32 bytes, encrypted with AES-256-CTR under the master key and
                           that nonce; one that was punctured is all zeros. Then uint32 CRC-32 of
                           each entry
    blobs/seal/<4 hex>     a punctured root: "WBSEALP1", uint32 CRC-32 of the rest, uint16 number
                           of erasures, their ids (16 bytes each) and paths (3 bytes each), 12 bytes
                           nonce, AES-256-GCM of the nodes left: depth, path, 32 bytes each
    blobs/seal/<4 hex>.new its successor, while that is being put in its place
Rule: whole or not, lost or not, and who was erased is told without any key.
Boundary: reads files. Read next: keytree.py (what the keys are), sealroots.py (who writes these).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from isal.isal_zlib import crc32

from .keytree import DEPTH, KEY_BYTES, NO_KEY, NONCE_BYTES, ROOTS, Place, place_of

__all__ = [
    "Mark",
    "Marked",
    "damaged_keys",
    "format_marks",
    "format_punctured",
    "format_roots",
    "is_erased",
    "marks_of",
    "node_path",
    "read_marked",
    "roots_in",
    "roots_lost",
    "roots_path",
    "whole",
    "zero_entries",
    "zeroing",
]

_MAGIC, _PUNCTURED = b"WBSEAL1\n", b"WBSEALP1"
_COUNT = struct.Struct(">H")
_CRC = struct.Struct(">I")
_ROOTS_AT = len(_MAGIC) + NONCE_BYTES + _CRC.size
_CRCS_AT = _ROOTS_AT + ROOTS * KEY_BYTES
_FILE_BYTES = _CRCS_AT + ROOTS * _CRC.size
_MARK = struct.Struct(f"16s{DEPTH}s")


class Mark(NamedTuple):
    """That an erasure took the key at a path: the 16 bytes of its record's id, and the path."""

    erasure: bytes
    path: bytes

    @classmethod
    def of(cls, erasure: str, path: bytes) -> "Mark":
        """The mark of the record with this id."""
        return cls(bytes.fromhex(erasure.replace("-", "")), path)


class Marked(NamedTuple):
    """A punctured root's file: its marks, the bytes that say them, and what is encrypted."""

    marks: list[Mark]
    head: bytes
    sealed: bytes


def roots_path(directory: Path) -> Path:
    """Where the roots lie, in the log's directory."""
    return directory / "blobs" / "seal.roots"


def roots_lost(directory: Path) -> bool:
    """Whether the roots are gone: the folder beside them is made after them."""
    return (directory / "blobs" / "seal").is_dir() and not roots_path(directory).exists()


def damaged_keys(directory: Path) -> Iterator[tuple[Path, int]]:
    """Every file of these keys that is not whole, or missing beside the roots, and where."""
    path = roots_path(directory)
    punctured = {*(directory / "blobs" / "seal").glob("[0-9a-f]" * 4)}
    raw = path.read_bytes() if path.exists() else None
    found = None if raw is None else roots_in(raw)
    if raw is not None and found is None:
        yield path, 0
    elif raw is not None and found is not None:
        _, stored = found
        if raw[_CRCS_AT:] != (is_ := _crcs(stored)):
            pairs = zip(_CRC.iter_unpack(raw[_CRCS_AT:]), _CRC.iter_unpack(is_), strict=True)
            wrong = next(place for place, (said, one) in enumerate(pairs) if said != one)
            yield path, _ROOTS_AT + wrong * KEY_BYTES
        else:  # a root is zeroed after its file was put there, and that stays
            punctured |= {node_path(directory, root) for root in zero_entries(stored)}
    for file in sorted(punctured):
        if read_marked(file) is None:
            yield file, 0


def is_erased(directory: Path, unit_ref: str, erasure: str) -> bool:
    """Whether the key files hold no key for what an erasure took.

    True where there are no key files at all: records of schema 1 have other keys.
    """
    place = place_of(unit_ref)
    try:
        with roots_path(directory).open("rb") as file:
            file.seek(_ROOTS_AT + place.root * KEY_BYTES)
            stored = file.read(KEY_BYTES)
    except FileNotFoundError:
        return True
    return stored == NO_KEY and Mark.of(erasure, place.path) in marks_of(directory, place)


def marks_of(directory: Path, place: Place) -> list[Mark]:
    """The erasures below one root; none where it was never punctured."""
    marked = read_marked(node_path(directory, place.root))
    return [] if marked is None else marked.marks


def roots_in(raw: bytes) -> tuple[bytes, bytes] | None:
    """The nonce and the encrypted entries of the roots' file; None if that is not whole."""
    nonce = raw[len(_MAGIC) : len(_MAGIC) + NONCE_BYTES]
    whole = len(raw) == _FILE_BYTES and raw.startswith(_MAGIC)
    crc = raw[_ROOTS_AT - _CRC.size : _ROOTS_AT]
    return (nonce, raw[_ROOTS_AT:_CRCS_AT]) if whole and crc == _CRC.pack(crc32(nonce)) else None


def format_roots(nonce: bytes, entries: bytes) -> bytes:
    """The roots' file; the inverse of `roots_in`."""
    return _MAGIC + nonce + _CRC.pack(crc32(nonce)) + entries + _crcs(entries)


def zeroing(root: int) -> list[tuple[int, bytes]]:
    """What to write where in the roots' file, so that a root is none."""
    crc = _CRC.pack(crc32(NO_KEY))
    return [(_CRCS_AT + root * _CRC.size, crc), (_ROOTS_AT + root * KEY_BYTES, NO_KEY)]


def format_marks(marks: list[Mark]) -> bytes:
    """The part of a punctured root's file that needs no key (`Marked.head`)."""
    return _COUNT.pack(len(marks)) + b"".join(_MARK.pack(*mark) for mark in marks)


def format_punctured(head: bytes, sealed: bytes) -> bytes:
    """A punctured root's file of these two parts; the inverse of `whole`."""
    return _PUNCTURED + _CRC.pack(crc32(head + sealed)) + head + sealed


def zero_entries(stored: bytes) -> frozenset[int]:
    """Which entries are all zeros; random ones never are."""
    found, at = [], stored.find(NO_KEY)
    while at >= 0:
        entry = -(-at // KEY_BYTES)
        if stored[entry * KEY_BYTES : (entry + 1) * KEY_BYTES] == NO_KEY:
            found.append(entry)
        at = stored.find(NO_KEY, entry * KEY_BYTES + 1)
    return frozenset(found)


def _crcs(stored: bytes) -> bytes:
    keys = [crc32(key) for (key,) in struct.iter_unpack(f"{KEY_BYTES}s", stored)]
    return struct.pack(f">{len(keys)}I", *keys)


def node_path(directory: Path, root: int) -> Path:
    """Where a punctured root's file lies, in the log's directory."""
    return directory / "blobs" / "seal" / f"{root:04x}"


def read_marked(file: Path) -> Marked | None:
    """What a punctured root's file says in clear; None if there is no whole file.

    One that was being replaced when the process ended is spoken for by its successor beside it.
    """
    return whole(file) or whole(file.with_suffix(".new"))


def whole(file: Path) -> Marked | None:
    """What one such file says in clear; None if it is missing or not whole."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    rest = raw[len(_PUNCTURED) + _CRC.size :]
    if raw[: len(_PUNCTURED)] != _PUNCTURED or len(rest) < _COUNT.size:
        return None
    if _CRC.unpack_from(raw, len(_PUNCTURED))[0] != crc32(rest):
        return None
    end = _COUNT.size + _COUNT.unpack_from(rest)[0] * _MARK.size
    if len(rest) < end:
        return None
    marks = [Mark(*found) for found in _MARK.iter_unpack(rest[_COUNT.size : end])]
    return Marked(marks, rest[:end], rest[end:])
