"""The tree: which tiles a pack must hold, and whether each leads to the signed root.

Source: RFC 6962 section 2.1 (hashes), c2sp.org/tlog-tiles (tiles of 256 hashes, entry bundles).
Rule: each hash is used, in the root or against the tile above; what is not needed is not allowed.
"""

import hashlib
from collections.abc import Iterable, Sequence

from . import Broken
from .archive import Pack

WIDTH = 256


def fold(row: Sequence[bytes]) -> bytes:
    """The root over 2**n hashes."""
    while len(row) > 1:
        row = [hashlib.sha256(b"\1" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


def tile_name(level: int | str, index: int, width: int) -> str:
    """Where a tile lies: the index in groups of three digits, all but the last behind an x."""
    name, rest = f"{index % 1000:03d}", index // 1000
    while rest:
        name, rest = f"x{rest % 1000:03d}/{name}", rest // 1000
    return f"tile/{level}/{name}" + ("" if width == WIDTH else f".p/{width}")


class Tree:
    """The tiles of a pack, by level and index. Attributes: `names`, those that belong into it."""

    def __init__(self, pack: Pack, size: int, bundles: range, earlier: Iterable[int]) -> None:
        """Read the bundles, the right edges of this tree and earlier ones, and all parents."""
        self._pack, self._size = pack, size
        edges = [(n, tree >> 8 * n) for tree in (size, *earlier) for n in range(8)]
        todo = [(0, index) for index in bundles]
        todo += [(level, count // WIDTH) for level, count in edges if count % WIDTH]
        self._rows, self.names = dict[tuple[int, int], list[bytes]](), dict[tuple[int, int], str]()
        for level, index in todo:  # grows while it is walked
            if (level, index) in self._rows:
                continue
            width = min(WIDTH, (size >> 8 * level) - index * WIDTH)
            bundle = level == 0 and index in bundles
            self.names[level, index] = tile_name("entries" if bundle else level, index, width)
            if bundle:
                row = [hashlib.sha256(b"\0" + entry).digest() for entry in self.entries(index)]
            else:
                data = pack[self.names[level, index]]
                row = [data[i : i + 32] for i in range(0, len(data), 32)]
            if len(row) != width:
                raise Broken(f"{self.names[level, index]} does not hold {width} hashes or records")
            self._rows[level, index] = row
            if width == WIDTH:
                todo.append((level + 1, index // WIDTH))

    def entries(self, index: int) -> list[bytes]:
        """The entries of a bundle; raises Broken."""
        data, entries, position = self._pack[self.names[0, index]], [], 0
        while position < len(data):
            start = position + 2
            position = start + int.from_bytes(data[position:start], "big")
            entries.append(data[start:position])
        if position != len(data):
            raise Broken(f"{self.names[0, index]} ends within a record")
        return entries

    def check(self, root: bytes) -> None:
        """Whether every tile leads to the signed root; raises Broken, which names others."""
        wrong = []
        for (n, i), row in self._rows.items():
            if len(row) == WIDTH and fold(row) != self._rows[n + 1, i // WIDTH][i % WIDTH]:
                wrong.append(self.names[n, i])
        if wrong or self.root(self._size) != root:
            raise Broken(f"a record or hash was changed, put in, taken out or moved: {wrong[:20]}")

    def root(self, size: int) -> bytes | None:
        """The root of the first `size` leaves; None if their right edge is not among the tiles."""
        root = b""
        for level in range(size.bit_length()):
            if size >> level & 1:
                start = (size >> level) - 1 << level % 8  # in hashes of the tile's level
                if (row := self._rows.get((level // 8, start // WIDTH))) is None:
                    return None
                peak = fold(row[start % WIDTH : start % WIDTH + (1 << level % 8)])
                root = fold([peak, root]) if root else peak
        return root or hashlib.sha256().digest()
