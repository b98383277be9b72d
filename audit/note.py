"""Signed notes and checkpoints: who vouches for a tree, in public formats.

Implements C2SP signed-note (Ed25519, type 0x01) and tlog-checkpoint:

    <text, ends in a newline>
    <empty line>
    — <key name> <base64(key id (4) ‖ signature)>

    <origin>
    <tree size>
    <base64 root hash>

key id = SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)[:4].
Rule: no IO, no clock. Ed25519 is deterministic: the same tree gives the same bytes. Refusals
raise NoteError; text is trusted only after `open_note`.
Read next: merkle.py (what the root means).
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import NoteError

_MAX_SIGNATURES = 100
_SIGNATURE_LINE = re.compile("— ([^\\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs under."""

    algorithm: ClassVar[bytes] = b"\x01"  # Ed25519 over the note's text
    name: str
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read C2SP's text form, `name+hexkeyid+base64(type ‖ key)`; the inverse of `str`.

        Raises:
            NoteError: malformed, of another kind, or the key id does not match.
        """
        name, _, rest = vkey.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = decode_base64(encoded, "the verifier key")
        if len(raw) != 33 or raw[:1] != cls.algorithm or not is_name(name):
            raise NoteError(
                f"could not read the verifier key {vkey!r}: not an Ed25519 vkey of type "
                f"{cls.algorithm.hex()}"
            )
        key = cls(name, raw[1:])
        if key.key_id.hex() != key_id:
            raise NoteError(f"could not read the verifier key {vkey!r}: its key id is wrong")
        return key

    def __str__(self) -> str:
        encoded = base64.b64encode(self.algorithm + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @cached_property
    def key_id(self) -> bytes:
        """The four bytes that name this key in a signature."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.algorithm + self.public).digest()[
            :4
        ]

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key with the name it signs under.

    Args:
        name: not empty, no white space, no plus sign.
        seed: the 32 bytes of an Ed25519 private key.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if not is_name(name):
            raise NoteError(f"could not use {name!r} as a log's name: no spaces, no plus sign")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier_key = VerifierKey(name, self._key.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """The signed note of `text`, which must end in a newline."""
        if not _is_text(text):
            raise NoteError(
                "could not sign: a note is text without control characters, ending in a newline"
            )
        signature = self.verifier_key.key_id + self._key.sign(text.encode())
        line = f"— {self.verifier_key.name} {base64.b64encode(signature).decode()}\n"
        return f"{text}\n{line}"


def open_note(note: str, *keys: VerifierKey) -> str:
    """The text of `note`, if at least one of `keys` signed it and none of them badly.

    Signatures of other keys are ignored, so that witnesses may add theirs.

    Raises:
        NoteError: malformed, or not signed by any of `keys`.
    """
    text, lines = split_note(note)
    verified = False
    for name, key_id, signature in map(parse_signature, lines):
        for key in keys:
            if (key.name, key.key_id) == (name, key_id):
                if not key.verify(text, signature):
                    raise NoteError(f"could not trust the note: the signature of {name} is wrong")
                verified = True
    if not verified:
        wanted = ", ".join(f"{key.name}+{key.key_id.hex()}" for key in keys)
        raise NoteError(f"could not trust the note: no signature by {wanted}")
    return text


def signature_names(note: str) -> list[str]:
    """Who claims to have signed `note`; proves nothing."""
    return [parse_signature(line)[0] for line in split_note(note)[1]]


class Checkpoint(NamedTuple):
    """A tree of `size` leaves with `root`, in the log `origin`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text; the inverse of `parse_checkpoint`."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's note text; extension lines are allowed and ignored.

    Raises:
        NoteError: malformed.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or not all(lines[:-1]):
        raise NoteError("could not read the checkpoint: it needs origin, size and root lines")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size):
        raise NoteError(f"could not read the checkpoint: {size!r} is not a tree size")
    raw = decode_base64(root, "the root hash")
    if len(raw) != 32:
        raise NoteError("could not read the checkpoint: the root hash is not 32 bytes")
    return Checkpoint(origin, int(size), raw)


def open_checkpoint(note: str, *keys: VerifierKey) -> Checkpoint:
    """The checkpoint in a signed note, after `open_note`; its origin must be a signer's name.

    Raises:
        NoteError: as `open_note` and `parse_checkpoint`.
    """
    checkpoint = parse_checkpoint(open_note(note, *keys))
    if checkpoint.origin not in {key.name for key in keys}:
        raise NoteError(f"could not trust the checkpoint: {checkpoint.origin!r} is another log")
    return checkpoint


def split_note(note: str) -> tuple[str, list[str]]:
    """The text of a note and its signature lines, unverified.

    Raises:
        NoteError: malformed.
    """
    text, separator, tail = note.rpartition("\n\n")
    text += "\n"
    lines = tail.split("\n")
    if not separator or lines[-1] != "" or not lines[:-1] or not _is_text(text):
        raise NoteError("could not read the note: it is not text, an empty line and signatures")
    if len(lines) > _MAX_SIGNATURES + 1:
        raise NoteError(f"could not read the note: more than {_MAX_SIGNATURES} signatures")
    return text, lines[:-1]


def parse_signature(line: str) -> tuple[str, bytes, bytes]:
    """Name, key id (4 bytes) and signature of one signature line, unverified.

    Raises:
        NoteError: malformed.
    """
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match or not is_name(match[1]):
        raise NoteError(f"could not read the note: {line!r} is not a signature line")
    raw = decode_base64(match[2], "a signature")
    if len(raw) < 5:
        raise NoteError("could not read the note: a signature is too short")
    return match[1], raw[:4], raw[4:]


def decode_base64(text: str, what: str) -> bytes:
    """Read base64 in its one form; `what` names it in the refusal.

    Raises:
        NoteError: not base64, or not as an encoder writes it.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NoteError(f"could not read {what}: not base64") from exc
    if base64.b64encode(raw).decode() != text:
        raise NoteError(f"could not read {what}: not in its one base64 form")
    return raw


def is_name(name: str) -> bool:
    """Whether a key may sign under `name`."""
    return bool(name) and not any(c.isspace() or c < " " or c == "+" for c in name)


def _is_text(text: str) -> bool:
    return text.endswith("\n") and all(c >= " " or c == "\n" for c in text)
