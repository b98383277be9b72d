"""API keys: how one looks, how it is kept, and the file that holds them.

    wb_ + 12 hex digits (the id: public, finds the entry) + _ + 43 characters (256 random bits)

Rule 1: a key is shown once, when it is made; the file keeps HMAC-SHA256 of it under a salt of its
own. A fast hash is right here and would be wrong for a password: Argon2 and the like make guessing
dear, but 256 random bits cannot be guessed at any price, and a slow hash would let anyone with a
socket burn our processor. The salt makes equal keys unequal and tables useless.
Rule 2: comparing takes the same time for a wrong secret, an unknown id and an expired entry.
Rule 3: the file is replaced whole (audit.files.replace_file), under a lock; who may write it may
grant roles, so a file that others may write is refused. Reading it gives no key away.
Source: NIST SP 800-63B section 5.1.2 (look-up secrets of 112 bits and more need no slow hash).
Read next: keybook.py (the file as a running server sees it).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from audit.files import replace_file

from .principal import MAX_PER_S, ROLES, Principal, Rate, Role, known_roles

__all__ = ["ApiKey", "KeyFileDamaged", "NewKey", "add", "matches", "new_key", "read", "revoke"]

_KEY = re.compile(r"wb_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_SALT_BYTES = 16
_FORMAT = 1


class KeyFileDamaged(ValueError):
    """The file of API keys cannot be used; says why and what to do, never what it holds."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry; times are Unix seconds. Holds no key, and shows no hash."""

    id: str
    name: str
    roles: frozenset[Role]
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    created: int
    expires: int | None = None
    revoked: int | None = None
    rate: Rate | None = None

    def usable(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    @property
    def principal(self) -> Principal:
        """Whom the key stands for."""
        return Principal(f"key:{self.name}", self.roles, self.rate)


class NewKey(NamedTuple):
    """A key at the only moment when it is known."""

    text: str
    entry: ApiKey


_NOBODY = ApiKey("0" * 12, "nobody", frozenset(), bytes(16), bytes(32), created=0, revoked=0)


def new_key(
    name: str,
    roles: frozenset[Role],
    *,
    now: float,
    expires: int | None = None,
    rate: Rate | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> NewKey:
    """Make a key of 256 random bits.

    Raises:
        ValueError: the name is not 1 to 64 letters, digits and `._@-`, or no role is given.
    """
    if not _NAME.match(name):
        raise ValueError("a key's name is 1 to 64 letters, digits, '.', '_', '@' or '-'")
    if not roles:
        raise ValueError(f"a key needs at least one role: {', '.join(ROLES)}")
    ident = random(6).hex()
    secret = base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()
    text = f"wb_{ident}_{secret}"
    salt = random(_SALT_BYTES)
    digest = _digest(salt, text)
    return NewKey(text, ApiKey(ident, name, roles, salt, digest, int(now), expires, None, rate))


def _digest(salt: bytes, text: str) -> bytes:
    return hmac.digest(salt, text.encode(), hashlib.sha256)


def matches(text: str, entries: dict[str, ApiKey], now: float) -> ApiKey | None:
    """The usable entry that `text` is the key of, or None; constant time, a few microseconds."""
    form = _KEY.match(text)
    entry = entries.get(form[1], _NOBODY) if form else _NOBODY
    same = hmac.compare_digest(_digest(entry.salt, text), entry.digest)
    return entry if same and entry.usable(now) else None


def read(path: Path) -> dict[str, ApiKey]:
    """The entries of the file, by id.

    Raises:
        FileNotFoundError: there is none.
        KeyFileDamaged: it is not a file of API keys, or others may write it.
    """
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileDamaged(f"could not trust {path}: others may write it; chmod 600 {path}")
    try:
        found = orjson.loads(path.read_bytes())
        if found["format"] != _FORMAT:
            raise ValueError("unknown format")
        entries = [_parse_entry(item) for item in found["keys"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise KeyFileDamaged(
            f"could not read {path}: it is not a file of API keys; restore it, or move it away and "
            "make keys anew with `weighbridge apikey add`"
        ) from exc
    return {entry.id: entry for entry in entries}


def _parse_entry(item: dict[str, Any]) -> ApiKey:
    rate = item["rate"]
    entry = ApiKey(
        id=str(item["id"]),
        name=str(item["name"]),
        roles=known_roles(item["roles"]),
        salt=bytes.fromhex(item["salt"]),
        digest=bytes.fromhex(item["hmac_sha256"]),
        created=int(item["created"]),
        expires=None if item["expires"] is None else int(item["expires"]),
        revoked=None if item["revoked"] is None else int(item["revoked"]),
        rate=None if rate is None else Rate(float(rate["per_s"]), int(rate["burst"])),
    )
    whole = len(entry.salt) == _SALT_BYTES and len(entry.digest) == hashlib.sha256().digest_size
    held = entry.rate is None or (0 < entry.rate.per_s <= MAX_PER_S and entry.rate.burst >= 1)
    if not (whole and held and _NAME.match(entry.name)):
        raise ValueError("a damaged entry")
    return entry


def _format_entry(entry: ApiKey) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name,
        "roles": sorted(entry.roles),
        "salt": entry.salt.hex(),
        "hmac_sha256": entry.digest.hex(),
        "created": entry.created,
        "expires": entry.expires,
        "revoked": entry.revoked,
        "rate": None if entry.rate is None else entry.rate._asdict(),
    }


@contextmanager
def _locked(path: Path) -> Iterator[dict[str, ApiKey]]:
    """The entries, to be changed in place; written when the block ends well."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            entries = read(path)
        except FileNotFoundError:
            entries = {}
        yield entries
        data = {"format": _FORMAT, "keys": [_format_entry(entry) for entry in entries.values()]}
        replace_file(path, orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n", mode=0o600)


def add(path: Path, made: NewKey) -> None:
    """Put a new key's entry into the file, making the file if there is none.

    Raises:
        ValueError: a usable key of that name exists; revoke it first, or choose another name.
        KeyFileDamaged, OSError: the file cannot be used.
    """
    with _locked(path) as entries:
        for entry in entries.values():
            if entry.name == made.entry.name and entry.usable(made.entry.created):
                raise ValueError(f"a key named '{entry.name}' exists; revoke it or choose a name")
        entries[made.entry.id] = made.entry


def revoke(path: Path, which: str, *, now: float) -> list[ApiKey]:
    """Revoke the usable keys whose id or name is `which`; returns them.

    Raises:
        ValueError: there is none.
        KeyFileDamaged, OSError: the file cannot be used.
    """
    with _locked(path) as entries:
        named = [
            entry
            for entry in entries.values()
            if which in (entry.id, entry.name) and entry.revoked is None
        ]
        if not named:
            raise ValueError(f"no key has the id or name '{which[:64]}', or it is revoked already")
        for entry in named:
            entries[entry.id] = replace(entry, revoked=int(now))
    return named
