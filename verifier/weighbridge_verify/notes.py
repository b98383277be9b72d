"""Signed notes, checkpoints and cosignatures: who vouches for a tree.

Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature: Ed25519 over text, or time and text.
Rule: a signature under a known key must be right; others are named, and prove nothing.
"""

import base64
import hashlib
import re
from contextlib import suppress
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import Broken

LOG, WITNESS = 1, 4
_LINE = re.compile("— ([^\\s+]+) ([A-Za-z0-9+/]+={0,2})")


class Key(NamedTuple):
    """A public key: its name, its kind (LOG or WITNESS), its 32 bytes, and the id in signatures."""

    name: str
    kind: int
    public: bytes
    key_id: bytes

    @classmethod
    def parse(cls, vkey: str, kind: int) -> "Key":
        """Read `name+hexid+base64(kind ‖ key)`; raises Broken."""
        name, shown, encoded = [*vkey.strip().split("+", 2), "", ""][:3]
        raw = _base64(encoded)
        hashed = hashlib.sha256(name.encode(errors="replace") + b"\n" + raw).digest()[:4]
        if len(raw) != 33 or raw[0] != kind or not name or hashed.hex() != shown:
            raise Broken(f"'{vkey}' is no key of kind {kind}: NAME+ID+BASE64, as a C2SP vkey is")
        return cls(name, kind, raw[1:], hashed)

    def check(self, text: str, signature: bytes) -> int:
        """The time that a right signature names (0 for a log's); raises Broken if it is wrong."""
        time_s, message = 0, text
        if self.kind == WITNESS:
            time_s, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = f"cosignature/v1\ntime {time_s}\n{text}"
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message.encode())
        except (InvalidSignature, ValueError) as exc:
            raise Broken(f"the signature of {self.name} is wrong") from exc
        return time_s


class Signed(NamedTuple):
    """A checkpoint as it was read: what it says, and its signature lines; nothing verified."""

    origin: str
    size: int
    root: bytes
    text: str
    lines: list[tuple[str, bytes, bytes]]  # name, key id, signature

    @classmethod
    def parse(cls, data: bytes) -> "Signed":
        """Read a signed checkpoint; raises Broken."""
        note = data[: 1 << 18].decode(errors="replace")
        text, _, tail = note.rpartition("\n\n")
        body, lines = text.split("\n"), [_LINE.fullmatch(line) for line in tail.split("\n")[:-1]]
        if note.encode() != data or any(c < " " and c != "\n" for c in note) or note[-1:] != "\n":
            raise Broken("a checkpoint is too long, or not text in UTF-8")
        root = _base64("".join(body[2:3]))
        sized = re.fullmatch("0|[1-9][0-9]{0,17}", "".join(body[1:2]))
        split = [(line[1], _base64(line[2])[:4], _base64(line[2])[4:]) for line in lines if line]
        if len(root) != 32 or "" in body or not sized or not all(lines) or not all(map(all, split)):
            raise Broken("a checkpoint is not origin, size, root, an empty line and signatures")
        return cls(body[0], int(body[1]), root, text + "\n", split)

    def by(self, key: Key) -> int | None:
        """The time of the key's signature (0 for a log's), None without one; raises Broken."""
        mine = [line[2] for line in self.lines if line[:2] == (key.name, key.key_id)]
        return max((key.check(self.text, signature) for signature in mine), default=None)


def _base64(text: str) -> bytes:
    with suppress(ValueError):
        raw = base64.b64decode(text, validate=True)
        return raw if base64.b64encode(raw).decode() == text else b""
    return b""
