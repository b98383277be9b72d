"""The keys of one installation: a signing key, a master key and a unit key, in files.

Files in the key folder (mode 0700), each 0600 and one line (keyfiles.py):
    log.key     Ed25519 seed: signs checkpoints; only the notary needs it. Beside it, while it is
                being replaced, log.key.next (rotating.py)
    master.key  AES-256: wraps the keys of subjects (subjects.py, seals.py); absent where the caller
                brings this key from elsewhere
    unit.key    HMAC-SHA256: turns unit names into references
    keyring.id  the fingerprints of the three; written last, so its absence means that making
                the keyring was interrupted and may be finished, its presence that a missing key
                is a loss and must not be papered over by a new one
Rule: a key that is damaged, foreign or readable by others is refused with KeyFileError, which
names the file; no key is ever replaced here.
Read next: note.py (what log.key signs), blobs.py (what master.key wraps).
"""

import base64
import binascii
import fcntl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .entropy import random_bytes
from .errors import KeyFileError, PayloadDamaged
from .files import fsync_directory
from .keyfiles import (
    KEY_BYTES,
    PURPOSES,
    fingerprint,
    parse_line,
    read_fingerprints,
    read_key,
    read_next,
    write_fingerprints,
    write_line,
)
from .mac import Mac
from .note import Signer, VerifierKey

_NONCE_BYTES = 12

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True)
class Keyring:
    """The keys, and what may be done with them. Never printed: its repr shows no bytes.

    Args:
        log_seed: 32 bytes; empty in a process that must not sign.
        master: 32 bytes; empty in a process that is lent what follows from it (lent_seals.py).
        unit: 32 bytes.
        random: source of nonces.
        next_seed: 32 bytes that may come to sign instead; empty but while a key is rotated.
    """

    log_seed: bytes = field(repr=False)
    master: bytes = field(repr=False)
    unit: bytes = field(repr=False)
    random: RandomBytes = field(default=random_bytes, repr=False, compare=False)
    next_seed: bytes = field(default=b"", repr=False)

    @classmethod
    def load_or_create(
        cls, directory: Path, *, random: RandomBytes = random_bytes, master: bytes | None = None
    ) -> "Keyring":
        """Read the keyring, making it first if the folder has none. Safe for many processes.

        With `master`, 32 bytes that are kept elsewhere, no master.key is made or read.

        Raises:
            KeyFileError: a file is missing, damaged, or open to others; or not readable.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (directory / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (directory / "keyring.id").exists():
                    _create(directory, random, master)
        except OSError as exc:
            raise KeyFileError(f"could not open the key folder {directory}: {exc}") from exc
        return cls.load(directory, random=random, master=master)

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        signing: bool = True,
        random: RandomBytes = random_bytes,
        master: bytes | None = None,
    ) -> "Keyring":
        """Read an existing keyring; `signing=False` leaves the signing key unread.

        `master` is as for `load_or_create`.

        Raises:
            KeyFileError: as `load_or_create`.
        """
        known = read_fingerprints(directory)
        coming = read_next(directory) if signing else None
        if master is not None and fingerprint("master", master.hex()) != known.get("master"):
            raise KeyFileError(
                "could not use the given master key: it is not the key this keyring was made with "
                f"({directory / 'keyring.id'})"
            )
        if master is None:
            master = read_key(directory, "master", known)
        log = b""
        if signing:
            # If a rotation was interrupted in its last step, log.key is gone or the old one.
            renamed = coming is not None and fingerprint("log", coming.hex()) == known.get("log")
            log = coming if coming and renamed else read_key(directory, "log", known)
        unit = read_key(directory, "unit", known)
        return cls(log, master, unit, random, coming or b"")

    def unit_ref(self, unit: str) -> str:
        """The keyed reference of a unit, 32 hex digits: stable, and meaningless without the key."""
        return self._units.digest(b"unit\x00" + unit.encode()).hex()[:32]

    def seal(self, data: bytes, aad: str) -> str:
        """Encrypt the private part of a record; the inverse of `open`.

        Each `aad` (the record's id) has a key of its own, so random nonces never run out.
        """
        nonce = self.random(_NONCE_BYTES)
        sealed = AESGCM(self._seal_key(aad)).encrypt(nonce, data, aad.encode())
        return binascii.b2a_base64(nonce + sealed, newline=False).decode()

    def open(self, sealed: str, aad: str) -> bytes:
        """Decrypt what `seal` made for the same `aad`; `open(seal(x, a), a) == x`.

        Raises:
            PayloadDamaged: changed bytes, another record's bytes, or another keyring.
        """
        try:
            raw = base64.b64decode(sealed, validate=True)
            key = AESGCM(self._seal_key(aad))
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], aad.encode())
        except (InvalidTag, ValueError) as exc:
            raise PayloadDamaged(f"could not open the sealed part of {aad}: {exc!r}") from exc

    def signer(self, origin: str) -> Signer:
        """The signer of checkpoints of the log named `origin`.

        Raises:
            KeyFileError: this keyring was loaded without its signing key.
        """
        if not self.log_seed:
            raise KeyFileError("could not sign: this process loaded the keyring without log.key")
        return Signer(origin, self.log_seed)

    def signer_of(self, key: VerifierKey) -> Signer:
        """The signer whose public key is `key`: of a log whose key was rotated, the newest one.

        Raises:
            KeyFileError: this keyring does not have it.
        """
        for seed in (self.log_seed, self.next_seed):
            if seed and Signer(key.name, seed).verifier_key == key:
                return Signer(key.name, seed)
        raise KeyFileError(
            f"could not sign for {key.name}: its key was rotated to {key}, and log.key is another "
            "one; restore the key folder of after the rotation"
        )

    def verifier_key(self, origin: str) -> VerifierKey:
        """The public key to hand to auditors; `str()` of it is C2SP's vkey text."""
        return self.signer(origin).verifier_key

    @cached_property
    def public_key(self) -> bytes:
        """The raw 32 bytes of the Ed25519 public key."""
        if not self.log_seed:
            raise KeyFileError("could not name the public key: loaded without log.key")
        return Ed25519PrivateKey.from_private_bytes(self.log_seed).public_key().public_bytes_raw()

    def derived(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose, derived from the master key."""
        return self._masters.digest(b"derive\x00" + purpose.encode())

    def _seal_key(self, aad: str) -> bytes:
        return self._masters.digest(b"seal\x00" + aad.encode())

    @cached_property
    def _units(self) -> Mac:
        return Mac(self.unit)

    @cached_property
    def _masters(self) -> Mac:
        if not self.master:
            raise KeyFileError("could not use the master key: this process does not have it")
        return Mac(self.master)


def _create(directory: Path, random: RandomBytes, master: bytes | None) -> None:
    # A crash in here leaves no keyring.id: the next call keeps the keys already made and goes on.
    marks = {}
    for purpose in PURPOSES:
        if purpose == "master" and master is not None:
            marks[purpose] = fingerprint(purpose, master.hex())
            continue
        path = directory / f"{purpose}.key"
        if not path.exists():
            write_line(path, f"weighbridge-key {purpose} {random(KEY_BYTES).hex()}")
        key = parse_line(path, f"weighbridge-key {purpose} ")
        marks[purpose] = fingerprint(purpose, key)
    write_fingerprints(directory, marks)
    fsync_directory(directory)
