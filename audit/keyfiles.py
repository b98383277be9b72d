"""Key files: one line each, private, checked; and the steps of replacing one.

    <purpose>.key    weighbridge-key <purpose> <hex> <checksum>
    keyring.id       weighbridge-keyring log=<fingerprint>,master=…,unit=… <checksum>
    log.key.next     as log.key: the key that will replace it, while that goes on (rotating.py)

The checksum is the first 8 hex digits of SHA-256 of the line so far.
Rule: a key that is damaged, foreign or readable by others is refused with KeyFileError, which
names the file. A key is replaced in one way only: `write_next`, then, when the log says so,
`promote_next`.
Read next: keys.py (what the keys are for).
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import KeyFileError
from .files import fsync_directory, replace_file

__all__ = [
    "KEY_BYTES",
    "PURPOSES",
    "drop_next",
    "fingerprint",
    "parse_line",
    "promote_next",
    "read_fingerprints",
    "read_key",
    "read_next",
    "write_fingerprints",
    "write_line",
    "write_next",
]

PURPOSES = ("log", "master", "unit")
KEY_BYTES = 32
_LOG_PREFIX = "weighbridge-key log "


def write_line(path: Path, text: str) -> None:
    """Put a line and its checksum at `path`, private, durably."""
    replace_file(path, f"{text} {_checksum(text)}\n".encode(), mode=0o600)


def parse_line(path: Path, prefix: str) -> str:
    """What stands in a key file behind `prefix`.

    Raises:
        KeyFileError: it is missing, damaged, or others may read it.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(
                f"could not use {path}: others may read it; make it private with "
                f"`chmod 600 {path}`, and replace the key if it was exposed"
            )
        line = path.read_text(encoding="ascii")
    except FileNotFoundError as exc:
        raise KeyFileError(
            f"could not read {path}: it is missing; restore it from the backup, since a new key "
            "would not open what the old one closed"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise KeyFileError(f"could not read {path}: {exc}") from exc
    text, _, checksum = line.removesuffix("\n").rpartition(" ")
    if not line.endswith("\n") or checksum != _checksum(text) or not text.startswith(prefix):
        raise KeyFileError(f"could not use {path}: it is damaged; restore it from the backup")
    return text.removeprefix(prefix)


def fingerprint(purpose: str, key: str) -> str:
    """How keyring.id names a key (hex), without giving it away."""
    return hashlib.sha256(f"weighbridge {purpose} fingerprint {key}".encode()).hexdigest()[:32]


def read_fingerprints(directory: Path) -> dict[str, str]:
    """The fingerprints in keyring.id, by purpose.

    Raises:
        KeyFileError: as `parse_line`.
    """
    text = parse_line(directory / "keyring.id", "weighbridge-keyring ")
    return {purpose: value for purpose, _, value in (m.partition("=") for m in text.split(","))}


def write_fingerprints(directory: Path, marks: Mapping[str, str]) -> None:
    """Write keyring.id."""
    text = ",".join(f"{purpose}={mark}" for purpose, mark in marks.items())
    write_line(directory / "keyring.id", f"weighbridge-keyring {text}")


def read_key(directory: Path, purpose: str, known: Mapping[str, str]) -> bytes:
    """A key; it must be the one that keyring.id names.

    Raises:
        KeyFileError: as `parse_line`, or it is another key.
    """
    path = directory / f"{purpose}.key"
    text = parse_line(path, f"weighbridge-key {purpose} ")
    if fingerprint(purpose, text) != known.get(purpose):
        raise KeyFileError(
            f"could not use {path}: it is not the key this keyring was made with (keyring.id)"
        )
    return bytes.fromhex(text)


# --- replacing log.key ------------------------------------------------------------------------


def _next(directory: Path) -> Path:
    return directory / "log.key.next"


def read_next(directory: Path) -> bytes | None:
    """The key that is to replace log.key; None if none is.

    Raises:
        KeyFileError: as `parse_line`.
    """
    if not _next(directory).exists():
        return None
    return bytes.fromhex(parse_line(_next(directory), _LOG_PREFIX))


def write_next(directory: Path) -> bytes:
    """Make the key that is to replace log.key; durable when this returns."""
    seed = secrets.token_bytes(KEY_BYTES)
    write_line(_next(directory), f"{_LOG_PREFIX}{seed.hex()}")
    return seed


def drop_next(directory: Path) -> None:
    """Throw away a key that nothing names."""
    _overwrite(_next(directory))
    _next(directory).unlink()


def promote_next(directory: Path) -> None:
    """Put the new key in the place of log.key; again, if that was interrupted."""
    seed = read_next(directory)
    if seed is None:
        return
    write_fingerprints(
        directory, read_fingerprints(directory) | {"log": fingerprint("log", seed.hex())}
    )
    # If we crash here or below, keyring.id names log.key.next, and Keyring.load uses it.
    if (directory / "log.key").exists():
        _overwrite(directory / "log.key")
    _next(directory).replace(directory / "log.key")
    fsync_directory(directory)


def _overwrite(path: Path) -> None:
    """So that a key's bytes do not stay in free blocks."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes(path.stat().st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
