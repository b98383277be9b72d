"""The frontier of a tree: the roots of its complete subtrees, and the ways to them.

    leaves            0 … 511 | 512 … 767 | 768 …
    frontier of 768   [root of 512 leaves, root of 256 leaves]

It is what a tree needs of leaves that are gone: with it the tree can be continued, and a leaf that
was there can still be shown to have been, by its path to its subtree.
Rule: pure but for the tiles that it is handed; sizes are multiples of 256 where rows are meant.
Read next: boundary.py (where a pruned log begins), carrying.py (who makes paths).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LogDamaged
from .merkle import HashReader, node_hash
from .tiles import HASH_BYTES, WIDTH, TileReader

__all__ = ["fold", "path_to_peak", "peak_of", "peaks_of", "rows_at"]


def peaks_of(rows: Mapping[int, bytes], size: int) -> list[bytes]:
    """The roots of the complete subtrees of the first `size` leaves, a multiple of 256.

    Raises:
        LogDamaged: a row is missing or short.
    """
    found = []
    for bit in reversed(range(size.bit_length())):
        if not size >> bit & 1:
            continue
        level, height = divmod(bit, 8)
        start = size >> bit + 1 << bit + 1
        base = size >> 8 * (level + 1) << 8
        first = (start >> 8 * level) - base
        row = rows.get(level, b"")
        places = range(first, first + (1 << height))
        nodes = [row[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in places]
        if any(len(node) != HASH_BYTES for node in nodes):
            raise LogDamaged(
                Path("pruned"),
                offset=None,
                expected=f"the hashes of level {level} left of leaf {size}",
                found=f"{len(row)} bytes",
            )
        while len(nodes) > 1:
            nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
        found.append(nodes[0])
    return found


def rows_at(hashes: TileReader, size: int) -> dict[int, bytes]:
    """The rows of a boundary before leaf `size`, from the tiles.

    Raises:
        LogDamaged: a tile is missing.
    """
    rows = {}
    for level in range(1, (size.bit_length() + 7) // 8):
        count = (size >> 8 * level) % WIDTH
        if count:
            rows[level] = hashes.hashes(level, size >> 8 * (level + 1))[: count * HASH_BYTES]
    return rows


def path_to_peak(hashes: HashReader, leaf: int, size: int, begun: int = 0) -> list[bytes]:
    """The hashes beside the way from a leaf (or its subtree of 2**begun leaves) to its peak."""
    bit = next(b for b in reversed(range(size.bit_length())) if _holds(leaf, size, b))
    return [hashes.node(level, leaf >> level ^ 1) for level in range(begun, bit)]


def fold(leaf: int, node: bytes, path: Sequence[bytes]) -> bytes:
    """The root of the subtree that `path` leads to from a leaf's hash."""
    for level, beside in enumerate(path):
        right = leaf >> level & 1
        node = node_hash(beside, node) if right else node_hash(node, beside)
    return node


def peak_of(leaf: int, size: int) -> int:
    """Which of the peaks of a tree of `size` leaves holds `leaf`."""
    bits = [b for b in reversed(range(size.bit_length())) if size >> b & 1]
    return next(place for place, b in enumerate(bits) if _holds(leaf, size, b))


def _holds(leaf: int, size: int, bit: int) -> bool:
    """Whether the peak of 2**bit leaves exists and holds `leaf`."""
    start = size >> bit + 1 << bit + 1
    return bool(size >> bit & 1) and start <= leaf < start + (1 << bit)
