"""The archive of an evidence pack: a zip file with exactly one possible form.

Rule: members sorted by name, stored without compression, dated 1980-01-01, mode 0644, no comments,
no extra fields, nothing between or after them. So the same members are the same bytes on every
machine, every byte of the file has one right value, and no pack can be larger unpacked than packed.
Any zip program opens it.
Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (its end).
"""

import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from .errors import RequestError

MAX_MEMBERS = 65_534
MAX_BYTES = (1 << 32) - 2
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _UNIX = 20, 3
_DATE = 1 << 5 | 1  # 1980-01-01
_MODE = 0o100644 << 16


class PackTooLarge(RequestError):
    """The range does not fit into one archive."""


def write_archive(file: BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Write members, which come sorted by name (ASCII), each name once.

    Raises:
        PackTooLarge: more than 65,534 members, or 4 GiB.
        OSError: the disk refused.
    """
    directory: list[bytes] = []
    offset = 0
    for name, data in members:
        encoded, check = name.encode("ascii"), zlib.crc32(data)
        common = (_VERSION, 0, 0, 0, _DATE, check, len(data), len(data), len(encoded), 0)
        if len(directory) == MAX_MEMBERS or offset + len(data) > MAX_BYTES - (32 << 20):
            raise PackTooLarge("could not write the pack: choose a shorter range, or several")
        file.write(_LOCAL.pack(b"PK\3\4", *common) + encoded)
        file.write(data)
        entry = (b"PK\1\2", _UNIX << 8 | _VERSION, *common, 0, 0, 0, _MODE, offset)
        directory.append(_ENTRY.pack(*entry) + encoded)
        offset += _LOCAL.size + len(encoded) + len(data)
    listing, count = b"".join(directory), len(directory)
    file.write(listing + _END.pack(b"PK\5\6", 0, 0, count, count, len(listing), offset, 0))
