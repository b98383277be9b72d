"""The archive: a zip file in its one form, read without unpacking it.

A pack's zip has members sorted by name, stored, dated 1980-01-01, mode 0644, and nothing else. So
it cannot grow when unpacked, and every byte of it has one right value, which is compared here.
Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
"""

import hashlib
import json
import mmap
import re
import struct
import zlib
from pathlib import Path

from . import Broken, Unreadable

FORMAT, MANIFEST = "weighbridge-evidence-pack/1", "manifest.json"
MAX_BYTES = 1 << 32
_LOCAL, _ENTRY = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_FIXED = (20, 0, 0, 0, 1 << 5 | 1)  # version, flags, method "stored", time, date
_MODE = 0o100644 << 16
_NAME = re.compile(r"[A-Za-z0-9]+([./][A-Za-z0-9]+)*")  # no "..", no leading slash, no backslash
_NAME_BYTES = 200
_MEMBER_BYTES = 64 << 20  # each is held in memory whole; a bundle has at most 16 MiB


class Pack:
    """The members of a pack, by name."""

    def __init__(self, path: Path) -> None:
        """Raises Unreadable: the file is not an archive in a pack's form."""
        try:
            if not path.is_file() or not _END.size <= path.stat().st_size <= MAX_BYTES:
                raise Unreadable(f"it is not a file of {_END.size} bytes to 4 GiB")
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as exc:
            raise Unreadable(f"it cannot be read: {exc.strerror}") from exc
        self.size = len(self._data)
        self._damaged: list[str] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._read()

    def names(self) -> set[str]:
        """The names of all members."""
        return set(self._places)

    def __getitem__(self, name: str) -> bytes:
        """The bytes of a member; raises Broken if the pack has none of that name or size."""
        start, length = self._places.get(name, (0, 0))
        if not start or length > _MEMBER_BYTES:
            raise Broken(f"{name} is missing from the pack, or larger than {_MEMBER_BYTES} bytes")
        return self._data[start : start + length]

    def check(self) -> None:
        """Compare every member with its checksum, and with the manifest; raises Broken."""
        files = {name: hashlib.sha256(self[name]).hexdigest() for name in self.names() - {MANIFEST}}
        right = {"files": files, "format": FORMAT}
        data = self[MANIFEST]
        wrong = [name for name, digest in files.items() if digest.encode() not in data]
        if self._damaged or wrong:
            raise Broken(f"these files were changed: {', '.join(sorted({*self._damaged, *wrong}))}")
        if data != json.dumps(right, sort_keys=True, separators=(",", ":")).encode():
            raise Broken("manifest.json does not name just the files of this pack")

    def _read(self) -> None:
        """Read the members one after the other, then compare the directory that must follow."""
        directory, offset, before = [], 0, ""
        while self._data[offset : offset + 4] == b"PK\3\4":
            name, check, length, start = self._member(offset)
            if name <= before:
                raise Unreadable(f"its members are not sorted, or one is there twice: {name}")
            if start + length > self.size:
                raise Unreadable(f"it ends within {name}")
            if zlib.crc32(self._data[start : start + length]) != check:
                self._damaged.append(name)
            head = (*_FIXED, check, length, length, len(name), 0)
            entry = (b"PK\1\2", 3 << 8 | 20, *head, 0, 0, 0, _MODE, offset)
            directory.append(_ENTRY.pack(*entry) + name.encode())
            self._places[name], before, offset = (start, length), name, start + length
        listing, count = b"".join(directory), len(directory)
        if not 0 < count < 0xFFFF:
            raise Unreadable("it is not a zip archive that begins with a member")
        end = _END.pack(b"PK\5\6", 0, 0, count, count, len(listing), offset, 0)
        if self._data[offset:] != listing + end:
            raise Unreadable(
                "its directory is not that of its members: it was cut off, appended to or changed"
            )

    def _member(self, offset: int) -> tuple[str, int, int, int]:
        head = self._data[offset : offset + _LOCAL.size].ljust(_LOCAL.size, b"\0")
        _, *fixed, check, packed, length, named, extra = _LOCAL.unpack(head)
        if tuple(fixed) != _FIXED or packed != length or extra or named > _NAME_BYTES:
            raise Unreadable(
                f"the member at byte {offset} is compressed, encrypted, dated or otherwise not in "
                "the one form that a pack has"
            )
        start = offset + _LOCAL.size + named
        name = self._data[offset + _LOCAL.size : start].decode("latin-1")
        if len(name) != named or not _NAME.fullmatch(name):
            raise Unreadable(f"the member at byte {offset} has a name that no pack has: {name}")
        return name, check, length, start
