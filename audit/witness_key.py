"""A witness's private key, in a file of its own.

    <state>/witness.key     mode 0600, one line: PRIVATE+KEY+<name>+<hex id>+<base64(0x01 ‖ seed)>

Source: the signer key of golang.org/x/mod/sumdb/note, which other witness programs read, too; the
id is that of the plain Ed25519 key (type 0x01), as theirs is.
Rule: the key is made once, together with its state, and after the state's folder; a key without
that folder has lost what it signed, and must never sign again. No key is ever replaced here.
Read next: witness.py.
"""

import base64
import stat
from collections.abc import Callable
from pathlib import Path

from .cosignature import Cosigner
from .entropy import random_bytes
from .errors import KeyFileError, NoteError
from .files import make_directory, replace_file
from .note import Signer, decode_base64

_PREFIX = "PRIVATE+KEY+"
_SEED_BYTES = 32


def load_or_create(
    directory: Path, name: str | None, *, random: Callable[[int], bytes] = random_bytes
) -> Cosigner:
    """The key of the witness whose state is in `directory`.

    Args:
        directory: made if missing.
        name: what it signs under; needed for a new key, compared with an old one.
        random: source of the seed.

    Raises:
        KeyFileError: damaged, readable by others, of another name, or without its state.
        NoteError: `name` cannot be a key's name.
    """
    path = directory / "witness.key"
    if not path.exists():
        if not name:
            raise KeyFileError(f"there is no key in {directory} yet: name the witness with --name")
        make_directory(directory, mode=0o700)
        seed = random(_SEED_BYTES)
        signer = Signer(name, seed)
        make_directory(directory / "checkpoints")
        replace_file(path, _format(signer, seed).encode(), mode=0o600)
    return _load(path, name)


def _format(signer: Signer, seed: bytes) -> str:
    key, encoded = signer.verifier_key, base64.b64encode(b"\x01" + seed).decode()
    return f"{_PREFIX}{key.name}+{key.key_id.hex()}+{encoded}\n"


def _load(path: Path, name: str | None) -> Cosigner:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"could not use {path}: others may read it; chmod 600 {path}")
    if not (path.parent / "checkpoints").is_dir():
        raise KeyFileError(
            f"could not use {path}: what it signed is lost ({path.parent / 'checkpoints'}), so it "
            "could contradict itself; make a new witness, with a new key, in another folder"
        )
    try:
        line = path.read_text(encoding="utf-8")
        held, _, encoded = line.removeprefix(_PREFIX).strip().split("+", 2)
        raw = decode_base64(encoded, "the key")
        signer = Signer(held, raw[1:])
    except (OSError, ValueError, NoteError) as exc:
        raise KeyFileError(f"could not use {path}: it is damaged; restore it") from exc
    if line != _format(signer, raw[1:]):
        raise KeyFileError(f"could not use {path}: it is damaged; restore it")
    if name not in (None, held):
        raise KeyFileError(f"could not use {path}: it is the key of {held}, not of {name}")
    return Cosigner(held, raw[1:])
