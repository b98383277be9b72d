r"""The keys of sealed parts as a tree of one-way functions: who has a node has all below it.

A sealed part lies in a leaf of the log and can never change, so its key must be what is destroyed.
A key per subject on disk would cost every new subject a durable write. So the keys are the leaves
of a tree (Goldreich, Goldwasser and Micali 1986), of which only the roots are stored, and erasing
is puncturing (Boneh and Waters 2013; Boyle, Goldwasser and Ivan 2014):

    root       of the first 2 bytes of a unit reference: 32 random bytes, stored
    child b    SHA-256(parent ‖ b): the path goes on with the next 3 bytes
    leaf       after 5 bytes: the AES-256-GCM key of every subject whose reference begins so

Rule 1: `punctured` leaves the siblings along a path and a fresh leaf; nobody can compute the old
leaf from those.
Rule 2: 40 bits are told apart. Another subject with the same 40 bits is erased, too: with 10^7
subjects, once in 10^5 erasures.
Boundary: pure, and who seals with these keys; where they are kept is others' (seals.py,
lent_seals.py). Source: docs/adr/0014-erasure.md.
Read next: seals.py.
"""

import binascii
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keys import Keyring
from .mac import Mac

__all__ = [
    "DEPTH",
    "KEY_BYTES",
    "NONCE_BYTES",
    "NO_KEY",
    "ROOTS",
    "Place",
    "Sealer",
    "View",
    "leaf_below",
    "place_of",
    "punctured",
]

ROOTS = 1 << 16
KEY_BYTES = 32
DEPTH = 3
NONCE_BYTES = 12
NO_KEY = bytes(KEY_BYTES)
_KEPT_LEAVES = 16_384
_BYTES = [bytes([value]) for value in range(256)]


class Place(NamedTuple):
    """Where a subject's key is: the number of its root, and the path of 3 bytes below that."""

    root: int
    path: bytes


class View(NamedTuple):
    """The keys that somebody holds.

    Attributes:
        roots: one after the other.
        gone: which of them are none, because they were punctured.
        nodes: what was read of those: keys by their paths.
        leaves: keys of subjects below roots that are there, by reference; of those of late.
    """

    roots: bytes
    gone: frozenset[int]
    nodes: dict[int, dict[bytes, bytes]]
    leaves: dict[str, bytes]

    @classmethod
    def of(cls, roots: bytes, gone: frozenset[int]) -> "View":
        """A view of which nothing was asked yet."""
        return cls(roots, gone, {}, {})


def place_of(unit_ref: str) -> Place:
    """Where the key of a unit reference (hex) is."""
    start = bytes.fromhex(unit_ref[:10])
    return Place(start[0] << 8 | start[1], start[2:])


def leaf_below(nodes: Mapping[bytes, bytes], path: bytes) -> bytes | None:
    """The leaf at `path`, computed from the node above it; None if there is none."""
    for depth in range(DEPTH + 1):
        key = nodes.get(path[:depth])
        if key is not None:
            return _descend(key, path[depth:])
    return None


def punctured(nodes: Mapping[bytes, bytes], path: bytes, fresh: bytes) -> dict[bytes, bytes]:
    """The nodes without the one above `path`: its siblings along the way, and `fresh` as the leaf.

    Raises:
        KeyError: no node is above `path`.
    """
    left = dict(nodes)
    depth = next((d for d in range(DEPTH + 1) if path[:d] in left), DEPTH)
    key = left.pop(path[:depth])
    for place in range(depth, DEPTH):
        for byte in range(256):
            if byte != path[place]:
                left[path[:place] + _BYTES[byte]] = sha256(key + _BYTES[byte]).digest()
        key = sha256(key + _BYTES[path[place]]).digest()
    left[path] = fresh
    return left


class Sealer(ABC):
    """Seals the private parts of records with the keys that it holds. For one thread at a time.

    Args:
        keyring: source of nonces.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        # Swapped whole, because one thread may puncture while another seals.
        self._view = View.of(b"", frozenset(range(ROOTS)))

    def seal(self, data: bytes, unit_ref: str, decision: str) -> str:
        """Encrypt the private part of a record: base64 of nonce and AES-256-GCM."""
        nonce = self._keyring.random(NONCE_BYTES)
        sealed = AESGCM(self.key(unit_ref)).encrypt(nonce, data, decision.encode())
        return binascii.b2a_base64(nonce + sealed, newline=False).decode()

    def nonce(self, unit_ref: str, purpose: str) -> bytes:
        """16 bytes to commit with: the same for the same purpose until the subject is erased."""
        return Mac(self.key(unit_ref)).digest(b"nonce\x00" + purpose.encode())[:16]

    def key(self, unit_ref: str) -> bytes:
        """The key of a subject, 32 bytes; the one of now, if it was erased."""
        view = self._view
        key = view.leaves.get(unit_ref)
        if key is not None:
            return key
        start = bytes.fromhex(unit_ref[:10])
        root = start[0] << 8 | start[1]
        if root in view.gone:
            return self._punctured_key(view, Place(root, start[2:]))
        key = view.roots[root * KEY_BYTES : (root + 1) * KEY_BYTES]
        key = sha256(key + _BYTES[start[2]]).digest()  # `_descend`, for each record
        key = sha256(key + _BYTES[start[3]]).digest()
        key = sha256(key + _BYTES[start[4]]).digest()
        if len(view.leaves) >= _KEPT_LEAVES:
            view.leaves.clear()
        view.leaves[unit_ref] = key
        return key

    @abstractmethod
    def refresh(self) -> None:
        """Forget keys that were destroyed elsewhere."""

    @abstractmethod
    def _punctured_key(self, view: View, place: Place) -> bytes:
        """The key at a place whose root is none."""


def _descend(key: bytes, path: bytes) -> bytes:
    for byte in path:
        key = sha256(key + _BYTES[byte]).digest()
    return key
