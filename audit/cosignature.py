"""Cosignatures: a witness says that it saw this tree, that it extends what it saw before, and when.

Implements C2SP tlog-cosignature, the Ed25519 kind (type 0x04). A cosignature is one more signature
line of the checkpoint's note:

    — <witness name> <base64(key id (4) ‖ time (8, Unix seconds) ‖ Ed25519 signature (64))>

over the message

    cosignature/v1
    time <Unix seconds>
    <the checkpoint's text>

key id = SHA-256(name ‖ 0x0A ‖ 0x04 ‖ public key)[:4]. Sources: c2sp.org/tlog-cosignature,
c2sp.org/signed-note; the same bytes as transparency-dev/formats `note_cosigv1.go`.
Rule: no IO, no clock; a time is an argument. Refusals raise NoteError.
Read next: witness.py (when a witness signs), cosigning.py (who asks it).
"""

import base64
import struct
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import NoteError
from .note import VerifierKey, is_name, parse_signature, split_note

_TIMED = struct.Struct(">Q64s")
_LAST_TIME_S = (1 << 63) - 1


class CosignerKey(VerifierKey):
    """A witness's public key with the name it signs under; its vkey is of type 0x04."""

    algorithm: ClassVar[bytes] = b"\x04"

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether `signature` (72 bytes: time and Ed25519 signature) is this key's over `text`."""
        if len(signature) != _TIMED.size:
            return False
        time_s, signed = _TIMED.unpack(signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signed, _message(text, time_s))
        except (InvalidSignature, ValueError):
            return False
        return bool(time_s <= _LAST_TIME_S)


class Cosigned(NamedTuple):
    """A verified cosignature: whose, and the time it names (Unix seconds)."""

    key: CosignerKey
    time_s: int


class Cosigner:
    """A witness's private key with the name it signs under.

    Args:
        name: not empty, no white space, no plus sign.
        seed: the 32 bytes of an Ed25519 private key, which signs nothing else.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if not is_name(name):
            raise NoteError(f"could not use {name!r} as a witness's name: no spaces, no plus sign")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = CosignerKey(name, self._key.public_key().public_bytes_raw())

    def cosign(self, text: str, time_s: int) -> str:
        """The signature line over a checkpoint's text, newline included."""
        if not 0 <= time_s <= _LAST_TIME_S:
            raise NoteError(f"could not cosign at {time_s}: not a Unix time in seconds")
        timed = _TIMED.pack(time_s, self._key.sign(_message(text, time_s)))
        return f"— {self.key.name} {base64.b64encode(self.key.key_id + timed).decode()}\n"


def cosignatures(note: str, keys: Iterable[CosignerKey]) -> list[Cosigned]:
    """Who of `keys` cosigned a note, each once with the latest time; may be nobody.

    Raises:
        NoteError: the note is malformed, or a signature under one of `keys` is wrong.
    """
    text, lines = split_note(note)
    known = {(key.name, key.key_id): key for key in keys}
    times: dict[CosignerKey, int] = {}
    for name, key_id, signature in map(parse_signature, lines):
        key = known.get((name, key_id))
        if key is None:
            continue
        if not key.verify(text, signature):
            raise NoteError(f"could not trust the note: the cosignature of {name} is wrong")
        times[key] = max(times.get(key, 0), _TIMED.unpack(signature)[0])
    return [Cosigned(key, time_s) for key, time_s in times.items()]


def with_signatures(note: str, lines: Iterable[str]) -> str:
    """A note with more signature lines, each once, in the order given.

    Raises:
        NoteError: the note or a line is malformed.
    """
    text, held = split_note(note)
    for line in lines:
        parse_signature(line)
        if line not in held:
            held.append(line)
    return f"{text}\n" + "".join(f"{line}\n" for line in held)


def _message(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()
