"""Proofs to carry away: one leaf, its path, and a signed checkpoint, in one text.

Implements C2SP tlog-proof:

    c2sp.org/tlog-proof@v1
    extra <base64 of a JSON list> only if the log's key was rotated: the rotations (rotation.py)
    index <leaf index>
    <base64 hash>                 from the leaf's sibling up
    <empty line>
    <the checkpoint, verbatim>

Rule: `prove` checks its own proof before it hands it out; `verify_proof` needs only the text, the
entry and the public key, and reads no file.
Read next: verify.py (whole logs).
"""

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .canonical import dumps, loads
from .cosignature import with_signatures
from .cosigned import read_cosigned
from .errors import (
    DecodeError,
    LogDamaged,
    NoteError,
    NotFound,
    NotYetCheckpointed,
    ProofError,
)
from .merkle import inclusion_proof, leaf_hash, verify_inclusion
from .note import (
    Checkpoint,
    VerifierKey,
    parse_checkpoint,
    signature_names,
    split_note,
)
from .reader import LogReader
from .rotation import KeyChain, read_rotations
from .tiles import TileReader

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "


@dataclass(frozen=True, slots=True)
class Proof:
    """The parts of a tlog-proof, unverified."""

    index: int
    path: tuple[bytes, ...]
    note: str
    rotations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proven:
    """What a verified proof says: this leaf is in that signed tree."""

    index: int
    checkpoint: Checkpoint


def format_proof(
    index: int, path: Sequence[bytes], note: str, rotations: Sequence[str] = ()
) -> str:
    """The text of a proof; the inverse of `parse_proof`."""
    hashes = [base64.b64encode(node).decode() for node in path]
    extra = [f"{_EXTRA}{base64.b64encode(dumps(list(rotations))).decode()}"] if rotations else []
    return "\n".join([_HEADER, *extra, f"index {index}", *hashes, "", note])


def parse_proof(text: str) -> Proof:
    """Read a proof; extra data is allowed and ignored.

    Raises:
        ProofError: malformed.
    """
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    rotations: tuple[str, ...] = ()
    if lines[1:2] and lines[1].startswith(_EXTRA):
        rotations = _rotations(lines[1].removeprefix(_EXTRA))
        del lines[1]
    if not separator or lines[0] != _HEADER or len(lines) < 2:
        raise ProofError("could not read the proof: it is not a c2sp.org/tlog-proof@v1")
    prefix, _, number = lines[1].partition(" ")
    if prefix != "index" or not number.isascii() or not number.isdecimal():
        raise ProofError("could not read the proof: it has no index line")
    if str(int(number[:20])) != number:
        raise ProofError(f"could not read the proof: {number[:20]!r} is not a leaf index")
    return Proof(int(number), tuple(map(_hash, lines[2:])), note, rotations)


def _rotations(text: str) -> tuple[str, ...]:
    """The rotations in extra data; none in somebody else's, which is ignored."""
    with suppress(DecodeError, ValueError):
        found = loads(base64.b64decode(text, validate=True))
        if isinstance(found, list):
            return tuple(note for note in found if isinstance(note, str))
    return ()


def prove(reader: LogReader, index: int) -> str:
    """The proof that leaf `index` is in the tree of the log's last checkpoint.

    Raises:
        NotFound: the log has no such leaf.
        NotYetCheckpointed: it is durable but not yet signed; ask again in a second.
        ProofError, LogDamaged: the tiles or the log do not lead to the signed root.
    """
    note = _with_cosignatures(reader.directory, reader.checkpoint())
    checkpoint = parse_checkpoint(note[: note.rindex("\n\n") + 1])
    if index >= checkpoint.size:
        if index < reader.size():
            raise NotYetCheckpointed(f"could not prove leaf {index}: not yet in a checkpoint")
        raise NotFound(f"could not prove leaf {index}: the log has {reader.size()} leaves")
    entry = reader.entry(index)
    path = inclusion_proof(TileReader(reader.directory, checkpoint.size), index, checkpoint.size)
    verify_inclusion(index, checkpoint.size, leaf_hash(entry.data), path, checkpoint.root)
    return format_proof(index, path, note, read_rotations(reader.directory))


def _with_cosignatures(directory: Path, note: str) -> str:
    """The checkpoint with what witnesses signed of it, if they did already."""
    with suppress(LogDamaged):  # that is for `verify` to say; the proof stands without
        for cosigned in read_cosigned(directory):
            if split_note(cosigned)[0] == split_note(note)[0]:
                return with_signatures(note, split_note(cosigned)[1])
    return note


def verify_proof(text: str, entry: bytes, public_key: VerifierKey | str | bytes) -> Proven:
    """Check that `entry` is in the log that `public_key` signs for.

    Args:
        text: a tlog-proof.
        entry: the exact bytes of the leaf.
        public_key: a vkey text, or 32 raw bytes (then any origin is accepted and reported). Where
            the log's key was rotated, any key up to the one that signed: a proof carries the
            rotations of before it was made, and cannot know later ones.

    Raises:
        ProofError: malformed, or the entry is not the one proven.
        NoteError: the checkpoint is not signed by that key.
    """
    proof = parse_proof(text)
    trusted = as_verifier(public_key, proof.note)
    try:
        chain = KeyChain.build(trusted, proof.rotations)
        checkpoint = chain.open(proof.note)
    except NoteError as exc:
        hint = "if it was made before the log's key was rotated, take a key of that time"
        raise NoteError(f"{exc}; {hint}, or prove it again") from exc
    leaf = leaf_hash(entry)
    verify_inclusion(proof.index, checkpoint.size, leaf, proof.path, checkpoint.root)
    return Proven(proof.index, checkpoint)


def as_verifier(public_key: VerifierKey | str | bytes, note: str) -> VerifierKey:
    """A verifier key from any of its forms; raw bytes take their name from the note's origin.

    Raises:
        NoteError: the vkey is malformed, or the note has no origin to name raw bytes by.
    """
    if isinstance(public_key, VerifierKey):
        return public_key
    if isinstance(public_key, str):
        return VerifierKey.parse(public_key)
    signature_names(note)
    return VerifierKey(note.partition("\n")[0], public_key)


def _hash(line: str) -> bytes:
    try:
        node = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ProofError("could not read the proof: a path line is not base64") from exc
    if len(node) != 32 or base64.b64encode(node).decode() != line:  # no second spelling of a hash
        raise ProofError("could not read the proof: a path line is not a SHA-256 hash")
    return node
