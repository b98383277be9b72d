r"""How groups of entries are framed in the write-ahead log, and how far they can be believed.

A segment file `wal/<first leaf, 20 digits>.wal`:

    header   8 bytes "WBWAL1\r\n", uint64 first leaf, uint32 CRC-32 of the 16 bytes before
    frames   one per committed group, each:
        4 bytes  F5 'W' 'B' FE           (F5 and FE never occur in UTF-8, so never inside an entry)
        uint64   first leaf of the group
        uint32   number of entries
        uint32   length of the body
        uint32   blob segment, uint64 blob offset, uint32 subject slots: how far the encrypted
                 payloads had grown, durably, before this group
        uint32   CRC-32 of the body
        uint32   CRC-32 of the 40 bytes before
        body     the entries as a tlog-tiles bundle: big-endian uint16 length, bytes, …

All integers are big-endian. A group is the unit of durability: it was acknowledged whole or not
at all, and the next group is written only after this one is on disk. So damage in any frame but
the last cannot come from a crash.
Rule: no writing here. `scan` yields what is whole and stops, with words, at what is not.
Read next: wal.py (what may be cut, and who decides).
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isal.isal_zlib import crc32

from .bundle import Bundle, format_bundle

SEGMENT_MAGIC = b"WBWAL1\r\n"
FRAME_MAGIC = b"\xf5WB\xfe"
SEGMENT_HEADER_BYTES = 20
_SEGMENT = struct.Struct(">8sQ")
_FRAME = struct.Struct(">4sQIIIQII")
_CRC = struct.Struct(">I")
_NAME = re.compile(r"[0-9]{20}\.wal")
FRAME_HEADER_BYTES = _FRAME.size + 4
MAX_BODY_BYTES = 1 << 28
_LAST_BYTES = (1 << 17, 1 << 20, 1 << 23)


class Watermark(NamedTuple):
    """How far the payload files had grown: segment number, bytes in it, subject slots."""

    blob_segment: int = 0
    blob_bytes: int = 0
    subjects: int = 0


class Frame(NamedTuple):
    """A whole frame: where it lies, which leaves it holds, and its unparsed body."""

    offset: int
    end: int
    first: int
    leaf_count: int
    watermark: Watermark
    body: bytes

    def entries(self) -> list[bytes]:
        """The entries of the group.

        Raises:
            ValueError: the lengths do not add up although the checksum did.
        """
        return list(self.bundle())

    def bundle(self) -> Bundle:
        """The same, cut only when they are asked for.

        Raises:
            ValueError: as `entries`.
        """
        return Bundle.parse(self.body, self.leaf_count)


class Header(NamedTuple):
    """The parsed header of a frame."""

    first: int
    leaf_count: int
    length: int
    watermark: Watermark
    body_crc: int


class Damage(NamedTuple):
    """Where a segment stops making sense, and why; `torn` if a write cut short could look so."""

    offset: int
    expected: str
    found: str
    torn: bool = True


def format_segment_header(first: int) -> bytes:
    """The first 20 bytes of a segment."""
    head = _SEGMENT.pack(SEGMENT_MAGIC, first)
    return head + _CRC.pack(crc32(head))


def format_frame(first: int, entries: Sequence[bytes], watermark: Watermark) -> bytes:
    """The bytes of a group; `scan` reads them back."""
    body = format_bundle(entries)
    crc = crc32(body)
    head = _FRAME.pack(FRAME_MAGIC, first, len(entries), len(body), *watermark, crc)
    return b"".join((head, _CRC.pack(crc32(head)), body))


def parse_header(raw: bytes) -> Header | None:
    """The header in the first 44 bytes of `raw`, or None if they are not one."""
    if len(raw) < FRAME_HEADER_BYTES or raw[:4] != FRAME_MAGIC:
        return None
    if crc32(raw[: _FRAME.size]) != _CRC.unpack_from(raw, _FRAME.size)[0]:
        return None
    _, first, count, length, segment, offset, subjects, crc = _FRAME.unpack_from(raw)
    return Header(first, count, length, Watermark(segment, offset, subjects), crc)


def segment_name(first: int) -> str:
    """The file name of the segment whose first leaf is `first`."""
    return f"{first:020d}.wal"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments below `directory`/wal in order, with the first leaf that their names give.

    A name that is not exactly 20 digits is no segment's.
    """
    paths = sorted((directory / "wal").glob("*.wal"))
    return [(int(path.stem), path) for path in paths if _NAME.fullmatch(path.name)]


def check_segment_header(raw: bytes, first: int) -> Damage | None:
    """What is wrong with the first 20 bytes of the segment that should begin at leaf `first`."""
    if not first >> 64 and raw == format_segment_header(first):
        return None
    return Damage(0, f"the header of a segment that begins at leaf {first}", _describe(raw))


def scan(
    file: BinaryIO, *, offset: int = SEGMENT_HEADER_BYTES, first: int, end: int | None = None
) -> Iterator[Frame | Damage]:
    """Every whole frame from `offset` on; if bytes remain, one Damage, and then nothing more.

    Zeros up to the end of the file are room that was reserved (appendfile.py), unless `end` says
    that there was more.

    Args:
        file: a segment, open for reading.
        offset: where a frame begins.
        first: the leaf which that frame must begin with.
        end: where to stop; the end of the file if None.
    """
    file.seek(offset)
    while end is None or offset < end:
        raw = file.read(FRAME_HEADER_BYTES)
        if not raw:
            return
        frame = _read_frame(file, raw, offset, first)
        if end is None and not any(raw) and only_zeros(file):
            return
        yield frame
        if isinstance(frame, Damage):
            return
        offset, first = frame.end, frame.first + frame.leaf_count


def last_frame(file: BinaryIO, end: int) -> Frame | None:
    """The frame that ends before leaf `end`, if it is whole and nothing but room follows it."""
    size = file.seek(0, os.SEEK_END)
    for length in (*_LAST_BYTES, size):
        start = max(size - length, SEGMENT_HEADER_BYTES)
        file.seek(start)
        raw = file.read()
        place = raw.rfind(FRAME_MAGIC)
        while place >= 0:
            header = parse_header(raw[place : place + FRAME_HEADER_BYTES])
            if header is not None:
                found = list(scan(file, offset=start + place, first=header.first))
                whole = found[0] if len(found) == 1 and isinstance(found[0], Frame) else None
                return whole if header.first + header.leaf_count == end else None
            place = raw.rfind(FRAME_MAGIC, 0, place)
        if start == SEGMENT_HEADER_BYTES:
            break
    return None


def only_zeros(file: BinaryIO) -> bool:
    """Whether nothing but zeros follows."""
    while piece := file.read(1 << 18):
        if piece.count(0) != len(piece):
            return False
    return True


def _read_frame(file: BinaryIO, raw: bytes, offset: int, first: int) -> Frame | Damage:
    header = parse_header(raw)
    if header is None:
        return Damage(offset, "a frame header with a matching checksum", _describe(raw))
    if header.first != first or not 0 < header.length <= MAX_BODY_BYTES:
        found = f"one that begins at {header.first}, {header.length} bytes long"
        return Damage(offset, f"a frame that begins at leaf {first}", found, torn=False)
    body = file.read(header.length)
    if len(body) != header.length:
        return Damage(offset, f"a body of {header.length} bytes", f"{len(body)} bytes")
    if crc32(body) != header.body_crc:
        return Damage(offset, "a body with a matching checksum", "a different checksum")
    end = offset + FRAME_HEADER_BYTES + header.length
    return Frame(offset, end, header.first, header.leaf_count, header.watermark, body)


def next_frame_after(data: bytes, start: int) -> int | None:
    """Where the next whole frame header lies in `data` at or after `start`, if anywhere."""
    position = data.find(FRAME_MAGIC, start)
    while position >= 0:
        if parse_header(data[position : position + FRAME_HEADER_BYTES]) is not None:
            return position
        position = data.find(FRAME_MAGIC, position + 1)
    return None


def _describe(raw: bytes) -> str:
    return f"{len(raw)} bytes beginning {raw[:8].hex() or '(none)'}"
