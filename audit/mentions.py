"""Which subjects a log mentions, in 32 MiB, whatever its size: a Bloom filter (Bloom 1970).

Before a subject is erased it must be known whether the log holds anything about it. An index of ten
million records takes minutes to make; this takes one look at each record, once.
Rule 1: `perhaps` is never False for a subject that was added. For one that was not it is True by
chance: with k = 3 and 2^28 bits, once in 800 times at 10^7 subjects.
Rule 2: a start waits for this, so references are added by the thousand: 0.6 µs each, half of what
they take one by one. A reference is 32 hex digits of a keyed hash, so its own bits are as good as
any hash of them.
Read next: erasing.py.
"""

import mmap
import re
import struct
from collections.abc import Iterable

from isal import isal_zlib

__all__ = ["Mentions", "unit_ref_in"]

_BITS = 28
_MASK = (1 << _BITS) - 1
_PAGE, _QUICK = 4096, 1
_NOTHING = bytes(_PAGE)
_KEY = b'"unit_ref":"'
_HEX = 32
_REFERENCE = re.compile(rb"[0-9a-f]{32}")


def unit_ref_in(data: bytes, start: int = 0, end: int | None = None) -> bytes | None:
    """The reference of the subject that a record is about, as it stands there; None without one.

    The record is `data` from `start` to `end`.
    """
    place = data.rfind(_KEY, start, end)
    if place < 0:
        return None
    place += len(_KEY)
    found = data[place : place + _HEX]
    return found if data.startswith(b'"', place + _HEX) else None


class Mentions:
    """A set of subjects that may say yes by mistake, and never no."""

    def __init__(self) -> None:
        self._bits = mmap.mmap(
            -1, 1 << (_BITS - 3)
        )  # zeros that take no memory before they are set

    @classmethod
    def unpack(cls, packed: bytes | memoryview) -> "Mentions":
        """The inverse of `pack`."""
        mentions, raw = cls(), isal_zlib.decompress(packed)
        for start in range(0, len(raw), _PAGE):  # pages of zeros are not touched: they cost memory
            page = raw[start : start + _PAGE]
            if page != _NOTHING:
                mentions._bits[start : start + _PAGE] = page
        return mentions

    def pack(self) -> bytes:
        """All of it, as small as it can be made quickly: 32 MiB take some 50 ms."""
        return isal_zlib.compress(self._bits, _QUICK)

    def add(self, unit_refs: Iterable[bytes]) -> None:
        """Take references of 32 hex digits in lower case; anything else is passed over."""
        bits = self._bits
        for place in _places(unit_refs):
            bits[place >> 3] |= 1 << (place & 7)

    def perhaps(self, unit_ref: str) -> bool:
        """Whether it may have been added."""
        if not _REFERENCE.fullmatch(unit_ref.encode()):
            return False
        return all(self._bits[at >> 3] >> (at & 7) & 1 for at in _places([unit_ref.encode()]))


def _places(unit_refs: Iterable[bytes]) -> list[int]:
    """The bits that stand for references: 28 of each 32 of their own but the first."""
    found = list(unit_refs)
    raw = _unhex(found) if set(map(len, found)) <= {_HEX} else None
    if raw is None:  # something else is among them
        raw = _unhex(list(filter(_REFERENCE.fullmatch, found))) or b""
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    return [word & _MASK for number in (1, 2, 3) for word in words[number::4]]


def _unhex(found: list[bytes]) -> bytes | None:
    try:
        raw = bytes.fromhex(b"".join(found).decode())
    except ValueError:
        return None
    return raw if len(raw) * 2 == len(found) * _HEX else None  # it passes over spaces
