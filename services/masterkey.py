"""Where the master key comes from: its file, the environment, or a command that unwraps it.

Rule 1: with `WEIGHBRIDGE_MASTER_KEY` or `WEIGHBRIDGE_MASTER_KEY_COMMAND` no `master.key` is made or
read; `keyring.id` still knows the key by its fingerprint, so that a wrong one is refused.
Rule 2: the command is run without a shell, once per process, and prints the key as 64 hex digits or
as base64 of 32 bytes. Neither the key nor what the command printed is ever in a message or a log.
Boundary: the one place that asks; everybody opens the keyring here.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import subprocess
from functools import lru_cache

from audit.errors import KeyFileError
from audit.keys import Keyring

from .settings import Settings

__all__ = ["load_keyring", "load_or_create_keyring"]

_KEY_BYTES = 32
_COMMAND_S = 30


def load_keyring(settings: Settings, *, signing: bool = True) -> Keyring:
    """The keyring of this deployment.

    Raises:
        KeyFileError: a key is missing, damaged or foreign, or the command failed.
    """
    return Keyring.load(settings.keys_dir, signing=signing, master=_master(settings))


def load_or_create_keyring(settings: Settings) -> Keyring:
    """As `load_keyring`, making what is missing of a new one.

    Raises:
        KeyFileError: as `load_keyring`.
    """
    return Keyring.load_or_create(settings.keys_dir, master=_master(settings))


def _master(settings: Settings) -> bytes | None:
    given, command = settings.master_key.get_secret_value(), settings.master_key_command
    if given and command:
        raise KeyFileError(
            "could not choose a master key: set WEIGHBRIDGE_MASTER_KEY or "
            "WEIGHBRIDGE_MASTER_KEY_COMMAND, not both"
        )
    if given:
        return _parse(given, "WEIGHBRIDGE_MASTER_KEY")
    return _unwrapped(command) if command else None


@lru_cache(maxsize=1)
def _unwrapped(command: str) -> bytes:
    name = "WEIGHBRIDGE_MASTER_KEY_COMMAND"
    try:
        done = subprocess.run(  # noqa: S603  the operator's own command, without a shell
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        raise KeyFileError(f"could not run {name}: {type(exc).__name__}") from None
    if done.returncode != 0:
        raise KeyFileError(f"could not get the master key: {name} ended with {done.returncode}")
    return _parse(done.stdout.decode("ascii", "replace"), name)


def _parse(text: str, name: str) -> bytes:
    text = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyFileError(
            f"could not use {name}: it must give 64 hex digits, or 32 bytes as base64"
        )
    return key
