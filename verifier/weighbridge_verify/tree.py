"""The tree: which tiles a pack must hold, and whether each leads to the signed root.

Source: RFC 6962 section 2.1 (hashes), c2sp.org/tlog-tiles (tiles of 256 hashes, entry bundles).
Rule: each hash of each tile is used: a tile on the right edge goes into the root, a full tile is
compared with the hash of it in the tile above. What is not needed is not allowed.
"""

import hashlib
from collections.abc import Iterable, Sequence

from . import Broken
from .archive import Pack

WIDTH = 256


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry as a leaf."""
    return hashlib.sha256(b"\0" + entry).digest()


def fold(row: Sequence[bytes]) -> bytes:
    """The root over 2**n hashes."""
    while len(row) > 1:
        pairs = range(0, len(row), 2)
        row = [hashlib.sha256(b"\1" + row[i] + row[i + 1]).digest() for i in pairs]
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
        """Read every tile; raises Broken where one is missing or has the wrong length.

        They are the bundles, the right edges of the tree and of earlier trees, and all parents.
        """
        self._pack, self._size = pack, size
        todo = [(0, index) for index in bundles]
        for tree in (size, *earlier):
            edges = ((level, tree >> 8 * level) for level in range(8))
            todo += [(level, count // WIDTH) for level, count in edges if count % WIDTH]
        self._rows: dict[tuple[int, int], list[bytes]] = {}
        self.names: dict[tuple[int, int], str] = {}
        for level, index in todo:  # grows while it is walked
            if (level, index) in self._rows:
                continue
            width = min(WIDTH, (size >> 8 * level) - index * WIDTH)
            bundle = level == 0 and index in bundles
            self.names[level, index] = tile_name("entries" if bundle else level, index, width)
            row = map(leaf_hash, self.entries(index)) if bundle else self._hashes(level, index)
            self._rows[level, index] = list(row)
            if len(self._rows[level, index]) != width:
                raise Broken(f"{self.names[level, index]} does not hold {width}")
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
        above = (
            (level, index, self._rows.get((level + 1, index // WIDTH), []))
            for level, index in self._rows
        )
        wrong = [
            self.names[level, index]
            for level, index, row in above
            if len(self._rows[level, index]) == WIDTH
            and fold(self._rows[level, index]) != row[index % WIDTH]
        ]
        if wrong:
            raise Broken(f"changed, exchanged or moved: {', '.join(wrong[:20])}")
        if self.root(self._size) != root:
            raise Broken(
                "the hashes lead to another root than the signed one: a record or a hash "
                "was changed, put in, taken out or moved"
            )

    def root(self, size: int) -> bytes | None:
        """The root of the first `size` leaves; None if their right edge is not among the tiles."""
        root = None
        for level in range(size.bit_length()):
            if size >> level & 1:
                start = (size >> level) - 1 << level % 8  # in hashes of the tile's level
                row = self._rows.get((level // 8, start // WIDTH))
                if row is None:
                    return None
                peak = fold(row[start % WIDTH : start % WIDTH + (1 << level % 8)])
                root = peak if root is None else fold([peak, root])
        return hashlib.sha256(b"").digest() if root is None else root

    def _hashes(self, level: int, index: int) -> list[bytes]:
        data = self._pack[self.names[level, index]]
        return [data[i : i + 32] for i in range(0, len(data), 32)]
