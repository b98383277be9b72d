"""Entries that lie one behind another, as a bundle and a group of the write-ahead log hold them.

Each lies behind its length, a big-endian uint16 (C2SP tlog-tiles). Most of what is done with many
entries needs only where each begins and ends, and making an object of each costs as much as reading
it did; so a bundle is a sequence of entries that cuts one out when it is asked for.
Rule: no IO, and nothing here is checked but that the lengths add up.
Read next: tiles.py, frames.py (where bundles lie), grammar.py and merkle.py (who look at many).
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

__all__ = ["Bundle", "format_bundle", "parse_bundle"]

_LENGTH = struct.Struct(">H")


class Bundle(Sequence[bytes]):
    """Entries in one piece of bytes.

    Attributes:
        data: the bytes; they may hold more on either side.
        starts, ends: where in `data` each entry begins, and where it ends.
    """

    __slots__ = ("data", "ends", "starts")

    def __init__(self, data: bytes, starts: list[int], ends: list[int]) -> None:
        self.data = data
        self.starts = starts
        self.ends = ends

    @classmethod
    def parse(cls, data: bytes, count: int) -> "Bundle":
        """Exactly `count` entries that fill `data` exactly.

        Raises:
            ValueError: the lengths do not add up.
        """
        starts, ends, position, unpack = [], [], 0, _LENGTH.unpack_from
        try:
            for _ in range(count):
                start = position + 2
                starts.append(start)
                position = start + unpack(data, position)[0]
                ends.append(position)
        except struct.error as exc:
            raise ValueError(f"it ends before entry {len(ends)} of {count}") from exc
        if position != len(data):
            raise ValueError(f"its {count} entries take {position} bytes, it has {len(data)}")
        return cls(data, starts, ends)

    @classmethod
    def of(cls, entries: Sequence[bytes], data: bytes | None = None) -> "Bundle":
        """These entries; `data` is `format_bundle(entries)`, if the caller has it already."""
        data = format_bundle(entries) if data is None else data
        ends = list(accumulate([2 + len(entry) for entry in entries]))
        return cls(data, [2, *[end + 2 for end in ends[:-1]]] if ends else [], ends)

    @property
    def raw(self) -> bytes:
        """The bytes of these entries and of their lengths, and no others."""
        return self.data[self.starts[0] - 2 : self.ends[-1]] if self.ends else b""

    def views(self) -> list[memoryview]:
        """Each entry as it lies there, without a copy."""
        view = memoryview(self.data)
        return [view[start:end] for start, end in zip(self.starts, self.ends, strict=True)]

    def without(self, head: bytes) -> list[int]:
        """The places of the entries that do not begin with `head`."""
        begins = self.data.startswith
        return [place for place, start in enumerate(self.starts) if not begins(head, start)]

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        for start, end in zip(self.starts, self.ends, strict=True):
            yield data[start:end]

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> "Bundle": ...
    def __getitem__(self, at: int | slice) -> "bytes | Bundle":
        if isinstance(at, slice):
            return Bundle(self.data, self.starts[at], self.ends[at])
        return self.data[self.starts[at] : self.ends[at]]


def format_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries behind their lengths; the inverse of `parse_bundle`."""
    pack = _LENGTH.pack
    return b"".join([part for entry in entries for part in (pack(len(entry)), entry)])


def parse_bundle(data: bytes, count: int) -> list[bytes]:
    """Exactly `count` entries that fill `data` exactly; the inverse of `format_bundle`.

    Raises:
        ValueError: the lengths do not add up.
    """
    return list(Bundle.parse(data, count))
