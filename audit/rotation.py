"""Rotated keys: which key signs a log at which size, and how trust passes from one to the next.

A rotation is a checkpoint with one more line, signed by the old key and by the new one, and kept
beside the log as `rotations/<size, 20 digits>`:

    <origin>
    <tree size>
    <base64 root hash>
    weighbridge-key-rotation/1 <leaf> <old vkey> <new vkey>

It is a C2SP checkpoint with an extension line. The tree holds, as `leaf`, the `key_rotation` record
that names both keys. The old key signs trees up to this size, the new one from this size on.
Rule 1: whoever trusts one key of the log follows the rotations forwards and backwards from it; what
is not signed by both keys, or does not follow on, is refused. Without a rotation there is one key.
Rule 2: a key that was replaced vouches for nothing larger than the tree of its rotation.
Rule 3: no clock and no private key here; texts are trusted after `KeyChain.build` only.
Read next: rotating.py (the deed), verify.py.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import LogDamaged, NoteError
from .note import (
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    split_note,
)

__all__ = [
    "ROTATIONS_NAME",
    "KeyChain",
    "Rotation",
    "chain_of",
    "read_rotations",
    "rotation_path",
    "rotation_sizes",
    "rotation_text",
]

ROTATIONS_NAME = "rotations"
_MARK = "weighbridge-key-rotation/1"


class Rotation(NamedTuple):
    """One rotation, as its note says.

    Attributes:
        leaf: of the record.
        tree: that both keys signed.
        old, new: the keys.
        note: the signed note, verbatim.
    """

    leaf: int
    tree: Checkpoint
    old: VerifierKey
    new: VerifierKey
    note: str

    @classmethod
    def parse(cls, note: str) -> "Rotation":
        """Read a rotation's note and check that both keys signed it.

        Raises:
            NoteError: it is not such a note, or a signature is missing or wrong.
        """
        text, _ = split_note(note)
        tree = parse_checkpoint(text)
        mark, *said = text.split("\n")[3].split(" ")
        if mark != _MARK or len(said) != 3 or not said[0].isdecimal():
            raise NoteError("could not read the rotation: it does not name a leaf and two keys")
        leaf, old, new = int(said[0]), VerifierKey.parse(said[1]), VerifierKey.parse(said[2])
        if not leaf < tree.size or {old.name, new.name} != {tree.origin} or old == new:
            raise NoteError("could not trust the rotation: its leaf or keys are not this tree's")
        for key in (old, new):
            open_note(note, key)
        return cls(leaf, tree, old, new, note)


def rotation_text(tree: Checkpoint, leaf: int, old: VerifierKey, new: VerifierKey) -> str:
    """The text that both keys sign."""
    return f"{tree.text()}{_MARK} {leaf} {old} {new}\n"


class KeyChain:
    """The keys of one log, from first to last. Make it with `build`.

    Attributes:
        keys: in order.
        rotations: between them; one fewer.
    """

    def __init__(self, keys: Sequence[VerifierKey], rotations: Sequence[Rotation]) -> None:
        self.keys = tuple(keys)
        self.rotations = tuple(rotations)

    @classmethod
    def build(cls, trusted: VerifierKey, notes: Sequence[str]) -> "KeyChain":
        """Follow the rotations in `notes` (any order) from a key that is trusted.

        Raises:
            NoteError: a rotation does not hold or does not follow on, or none has that key.
        """
        rotations = sorted(map(Rotation.parse, notes), key=lambda found: found.tree.size)
        if not rotations:
            return cls([trusted], [])
        keys = [rotations[0].old, *(found.new for found in rotations)]
        for before, after in itertools.pairwise(rotations):
            if before.new != after.old or before.tree.size >= after.tree.size:
                raise NoteError("could not trust the log's keys: two rotations do not follow on")
        if len(set(keys)) < len(keys):
            raise NoteError("could not trust the log's keys: one of them came back")
        if trusted not in keys:
            raise NoteError(
                f"could not trust the log's keys: no rotation leads to or from {trusted}"
            )
        return cls(keys, rotations)

    @property
    def newest(self) -> VerifierKey:
        """The key that signs now."""
        return self.keys[-1]

    @property
    def trees(self) -> list[Checkpoint]:
        """What the rotations signed; each must be the beginning of the log."""
        return [rotation.tree for rotation in self.rotations]

    def at(self, size: int) -> list[VerifierKey]:
        """Who may sign a tree of `size` leaves; two where it is a rotation's."""
        starts = [0, *(tree.size for tree in self.trees)]
        ends = [*(tree.size for tree in self.trees), size]
        spans = zip(self.keys, starts, ends, strict=True)
        return [key for key, start, end in spans if start <= size <= end]

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in a signed note; the key that was in force must have signed it.

        Raises:
            NoteError: as note.open_checkpoint.
        """
        size = parse_checkpoint(split_note(note)[0]).size
        return open_checkpoint(note, *self.at(size))


def rotation_path(directory: Path, size: int) -> Path:
    """Where the rotation of a tree of `size` leaves lies."""
    return directory / ROTATIONS_NAME / f"{size:020d}"


def read_rotations(directory: Path) -> list[str]:
    """The notes of all rotations of a log, in order, unverified.

    Raises:
        LogDamaged: a file is not even text.
    """
    notes = []
    for path in sorted((directory / ROTATIONS_NAME).glob("[0-9]" * 20)):
        try:
            notes.append(path.read_bytes().decode())
        except UnicodeDecodeError as exc:
            raise LogDamaged(
                path, offset=exc.start, expected="text in UTF-8", found="other bytes"
            ) from exc
    return notes


def rotation_sizes(directory: Path) -> list[int]:
    """The sizes of the trees that rotations of a log signed, from the names of their files."""
    return sorted(int(path.name) for path in (directory / ROTATIONS_NAME).glob("[0-9]" * 20))


def chain_of(directory: Path, trusted: VerifierKey) -> KeyChain:
    """The keys of the log in `directory`, from one that is trusted.

    Raises:
        NoteError, LogDamaged: as `KeyChain.build` and `read_rotations`.
    """
    return KeyChain.build(trusted, read_rotations(directory))
