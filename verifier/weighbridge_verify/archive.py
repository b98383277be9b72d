"""The archive: a zip file in its one form, read without unpacking it.

A pack's members are sorted by name, stored, dated 1980-01-01, mode 0644: one right value each byte.
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
MAX_BYTES, _MEMBER_BYTES = 1 << 32, 64 << 20  # of the file; of a member, which is held in memory
_LOCAL, _ENTRY, _END = map(struct.Struct, ("<4s5H3I2H", "<4s6H3I5H2I", "<4s4H2IH"))
_FIXED = (20, 0, 0, 0, 1 << 5 | 1)  # version, flags, method "stored", time, date
_NAME = re.compile(rb"[A-Za-z0-9]+([./][A-Za-z0-9]+)*")  # no "..", no leading slash, no backslash


class Pack:
    """The members of a pack, by name. Attributes: `names`."""

    def __init__(self, path: Path) -> None:
        """Raises Unreadable: the file is not an archive in a pack's form."""
        if not _END.size <= path.stat().st_size <= MAX_BYTES or not path.is_file():
            raise Unreadable(f"it is not a file of {_END.size} bytes to 4 GiB")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._damaged, self._places = set[str](), dict[str, tuple[int, int]]()
        self._read()
        self.names = set(self._places)

    def __getitem__(self, name: str) -> bytes:
        """The bytes of a member; raises Broken if the pack has none of that name."""
        start, length = self._places.get(name, (0, 0))
        if not start:
            raise Broken(f"{name} is missing from the pack")
        return self._data[start : start + length]

    def check(self) -> None:
        """Compare every member with its checksum, and with the manifest; raises Broken."""
        files = {name: hashlib.sha256(self[name]).hexdigest() for name in self.names - {MANIFEST}}
        data = self[MANIFEST]
        named = {digest.decode() for digest in re.findall(rb"[0-9a-f]{64}", data)}
        changed = {name for name, digest in files.items() if digest not in named}
        if self._damaged or changed:
            raise Broken(f"these files were changed: {', '.join(sorted(self._damaged | changed))}")
        right = json.dumps({"files": files, "format": FORMAT}, sort_keys=True)
        if data != right.replace(" ", "").encode():
            raise Broken("manifest.json does not name just the files of this pack")

    def _read(self) -> None:
        """Read the members one after the other, then compare the directory that must follow."""
        listing, offset, before = bytearray(), 0, b""
        while self._data[offset : offset + 4] == b"PK\3\4":
            head = self._data[offset : offset + _LOCAL.size].ljust(_LOCAL.size, b"\0")
            _, *fixed, check, packed, length, named, extra = _LOCAL.unpack(head)
            start = offset + _LOCAL.size + named
            name = self._data[offset + _LOCAL.size : start]
            if tuple(fixed) != _FIXED or packed != length or extra or not _NAME.fullmatch(name):
                raise Unreadable(f"the member at byte {offset} is not in the one form of a pack")
            if name <= before or length > min(_MEMBER_BYTES, len(self._data) - start):
                raise Unreadable(f"the member at byte {offset} is cut, too large or out of place")
            if zlib.crc32(self._data[start : start + length]) != check:
                self._damaged.add(name.decode())
            entry = (b"PK\1\2", 3 << 8 | 20, *_FIXED, check, length, length, len(name), 0)
            listing += _ENTRY.pack(*entry, 0, 0, 0, 0o100644 << 16, offset) + name
            self._places[name.decode()], before, offset = (start, length), name, start + length
        count = len(self._places)
        if not 0 < count < 0xFFFF:
            raise Unreadable("it is not a zip archive that begins with a member")
        end = _END.pack(b"PK\5\6", 0, 0, count, count, len(listing), offset, 0)
        if self._data[offset : offset + len(listing) + _END.size + 1] != listing + end:
            raise Unreadable("its directory is not that of its members: cut, extended or changed")
