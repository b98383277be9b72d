"""The Merkle tree over the log's entries: roots, inclusion and consistency proofs.

Implements RFC 6962 section 2.1 with SHA-256:

    leaf(d)    = SHA-256(0x00 ‖ d)
    node(l, r) = SHA-256(0x01 ‖ l ‖ r)
    MTH({})    = SHA-256()
    MTH(D[n])  = node(MTH(D[0:k]), MTH(D[k:n])), k the largest power of two below n

Rule: no IO and no clock here; callers hand in a HashReader. Refusals raise ProofError and change
nothing. Verification (the second half) shares no code with proof making.
Read next: tiles.py (where the hashes lie), note.py (who signed the root).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import ProofError

EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256
_LEAF, _NODE = hashlib.sha256(b"\x00").copy, hashlib.sha256(b"\x01").copy  # quicker than new ones


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry as a leaf."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two adjacent subtrees."""
    return _sha256(b"\x01" + left + right).digest()


def leaf_hashes(entries: Iterable[bytes | memoryview]) -> list[bytes]:
    """The hashes of entries as leaves."""
    hashes, begin = [], _LEAF
    for entry in entries:
        leaf = begin()
        leaf.update(entry)
        hashes.append(leaf.digest())
    return hashes


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2**n adjacent hashes, n >= 0."""
    row, begin = hashes, _NODE
    while len(row) > 1:
        above = []
        for left, right in zip(row[::2], row[1::2], strict=True):
            node = begin()
            node.update(left + right)
            above.append(node.digest())
        row = above
    return row[0]


@dataclass(frozen=True, slots=True)
class Subtree:
    """The root of a complete subtree of 2**level leaves, the index-th of its level."""

    level: int
    index: int
    root: bytes


class Frontier:
    """The right edge of a growing tree: one hash per bit of its size.

    Cost: about two hashes per leaf, amortised; memory is log2(size) hashes.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Start empty, or at a tree of `size` leaves whose complete subtrees are `peaks`.

        Args:
            size: number of leaves.
            peaks: roots of the complete subtrees, largest first, one per bit set in `size`.
        """
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ProofError(f"could not resume a tree of {size} leaves: wrong number of peaks")

    def append(self, leaf: bytes) -> list[Subtree]:
        """Add a leaf hash; returns the complete subtrees it closed, of 256, 65,536, … leaves."""
        closed: list[Subtree] = []
        node, below, level = leaf, self.size, 0
        while below & 1:
            node = node_hash(self._peaks.pop(), node)
            below >>= 1
            level += 1
            if level % 8 == 0:
                closed.append(Subtree(level, below, node))
        self._peaks.append(node)
        self.size += 1
        return closed

    def root(self) -> bytes:
        """The tree's root hash, MTH(D[size])."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


class HashReader(Protocol):
    """Gives the root of any complete subtree of the tree it stands for."""

    def node(self, level: int, index: int) -> bytes:
        """MTH(D[index * 2**level : (index + 1) * 2**level])."""
        ...


class LeafHashes:
    """A HashReader over leaf hashes in memory: for tests and small trees."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves

    def node(self, level: int, index: int) -> bytes:
        """See HashReader."""
        if level == 0:
            return self._leaves[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))


def range_root(reader: HashReader, start: int, end: int) -> bytes:
    """MTH(D[start:end]) for a range that RFC 6962's recursion can reach."""
    width = end - start
    if width == 0:
        return EMPTY_ROOT
    level = width.bit_length() - 1
    if width == 1 << level:
        return reader.node(level, start >> level)
    middle = start + _split(width)
    return node_hash(range_root(reader, start, middle), range_root(reader, middle, end))


def peaks(reader: HashReader, size: int) -> list[bytes]:
    """The complete subtrees of a tree of `size` leaves, largest first: see Frontier."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append(reader.node(level, start >> level))
            start += 1 << level
    return found


def inclusion_proof(reader: HashReader, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]): the hashes from the leaf's sibling up to the root's child.

    Raises:
        ProofError: the tree of that size has no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"could not prove leaf {index}: a tree of {size} leaves has none such")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(reader, middle, end))
            end = middle
        else:
            path.append(range_root(reader, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(reader: HashReader, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]): shows that the tree of `new` leaves begins with the one of `old`.

    Empty when either is trivial: `old` is 0 or equals `new`.

    Raises:
        ProofError: `old` is negative or larger than `new`.
    """
    if not 0 <= old <= new:
        raise ProofError(f"could not prove consistency from {old} to {new} leaves")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(range_root(reader, middle, end))
            end = middle
        else:
            path.append(range_root(reader, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(range_root(reader, start, end))
    return path[::-1]


def _split(width: int) -> int:
    return 1 << (width - 1).bit_length() - 1


# --- verification ---------------------------------------------------------------------------


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root to which `proof` leads from `leaf` (RFC 9162, section 2.1.3.2).

    Raises:
        ProofError: the proof has the wrong length, or there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"could not follow the proof: no leaf {index} in a tree of {size}")
    position, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("could not follow the proof: it is too long")
        if position & 1 or position == last:
            root = node_hash(sibling, root)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("could not follow the proof: it is too short")
    return root


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is the index-th of the tree with `root`.

    Raises:
        ProofError: it is not, or the proof is not for this tree.
    """
    found = root_from_inclusion(index, size, leaf, proof)
    if found != root:
        raise ProofError(
            f"could not verify leaf {index} of {size}: the proof leads to root {found.hex()}, "
            f"the signed root is {root.hex()}"
        )


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `new` leaves begins with the tree of `old` (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: it does not, or the proof is not for these sizes.
    """
    if not 0 <= old <= new:
        raise ProofError(f"could not verify consistency from {old} to {new} leaves")
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            raise ProofError(f"could not verify consistency from {old} to {new}: roots differ")
        return
    found_old, found_new = _roots_from_consistency(old, new, old_root, proof)
    if (found_old, found_new) != (old_root, new_root):
        raise ProofError(f"could not verify consistency from {old} to {new}: roots differ")


def _roots_from_consistency(
    old: int, new: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if len(path) == 0:
        raise ProofError("could not verify consistency: the proof is empty")
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    left = right = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("could not verify consistency: the proof is too long")
        if position & 1 or position == last:
            left, right = node_hash(sibling, left), node_hash(sibling, right)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            right = node_hash(right, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("could not verify consistency: the proof is too short")
    return left, right
