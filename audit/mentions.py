"""Which subjects a log mentions, in 32 MiB, whatever its size: a Bloom filter (Bloom 1970).

Before a subject is erased it must be known whether the log holds anything about it. An index of ten
million records takes minutes to make; this takes one look at each record, once.
Rule: `perhaps` is never False for a subject that was added. For one that was not it is True by
chance: with k = 3 and 2^28 bits, once in 800 times at 10^7 subjects.
A reference is 32 hex digits of a keyed hash, so its own bits are as good as any hash of them.
Read next: erasing.py.
"""

import mmap

__all__ = ["Mentions", "unit_ref_in"]

_BITS = 28
_MASK = (1 << _BITS) - 1
_KEY = b'"unit_ref":"'
_HEX = 32


def unit_ref_in(entry: bytes) -> bytes | None:
    """The reference of the subject that a record is about, as it stands there; None without one."""
    place = entry.rfind(_KEY)
    if place < 0:
        return None
    start = place + len(_KEY)
    found = entry[start : start + _HEX]
    return found if len(found) == _HEX and entry[start + _HEX : start + _HEX + 1] == b'"' else None


class Mentions:
    """A set of subjects that may say yes by mistake, and never no."""

    def __init__(self) -> None:
        self._bits = mmap.mmap(
            -1, 1 << (_BITS - 3)
        )  # zeros that take no memory before they are set

    def add(self, unit_ref: bytes | str) -> None:
        """Take a reference, 32 hex digits; anything else is passed over."""
        try:
            value = int(unit_ref, 16)
        except ValueError:
            return
        bits = self._bits
        for _ in range(3):
            place = value & _MASK
            bits[place >> 3] |= 1 << (place & 7)
            value >>= _BITS

    def perhaps(self, unit_ref: str) -> bool:
        """Whether it may have been added."""
        try:
            value = int(unit_ref, 16)
        except ValueError:
            return False
        places = [value >> shift & _MASK for shift in (0, _BITS, 2 * _BITS)]
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in places)
