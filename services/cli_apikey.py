"""`weighbridge apikey …`: make, list and revoke API keys, also while a server runs.

Rule: a key is printed once, alone on standard output, so that it can be piped into a secret store;
everything else that is said goes to standard error. A running server follows within a second.
"""

from __future__ import annotations

import math
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from .access import apikeys
from .access.checks import keys_path
from .access.principal import MAX_PER_S, ROLES, Rate, known_roles
from .cli_table import print_rows
from .settings import settings

__all__ = ["apikey"]

apikey = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
console = Console()
notes = Console(stderr=True)

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])\Z")
_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


@apikey.command()
def add(
    name: Annotated[str, typer.Argument(help="who will use the key")],
    role: Annotated[list[str], typer.Option(help=f"one of {', '.join(ROLES)}; may be repeated")],
    expires: Annotated[str, typer.Option(help="e.g. 12h, 90d or 8w; never when left out")] = "",
    rate: Annotated[float, typer.Option(help="calls per second, instead of the settings'")] = 0,
    burst: Annotated[int, typer.Option(help="calls at once after a rest; one second's if 0")] = 0,
) -> None:
    """Make a key and print it, once."""
    unknown = sorted(set(role) - set(ROLES))
    if unknown:
        raise ValueError(f"there is no role '{unknown[0]}'; roles: {', '.join(ROLES)}")
    now = time.time()
    made = apikeys.new_key(
        name, known_roles(role), now=now, expires=_expiry(expires, now), rate=_rate(rate, burst)
    )
    path = keys_path(settings())
    apikeys.add(path, made)
    sys.stdout.write(made.text + "\n")
    notes.print(
        f"shown once; {path} keeps a hash. Its id is {made.entry.id}.", soft_wrap=True, markup=False
    )


@apikey.command("list")
def list_keys() -> None:
    """List ids, names, roles and states; never a key."""
    path = keys_path(settings())
    try:
        entries = apikeys.read(path).values()
    except FileNotFoundError:
        console.print(f"no API keys in {path}", soft_wrap=True, markup=False)
        return
    now = time.time()
    rows = [
        (
            entry.name,
            ", ".join(sorted(entry.roles)),
            _day(entry.created),
            _day(entry.expires) if entry.expires else "never",
            _state(entry, now),
            f"{entry.rate.per_s:g}/s" if entry.rate else "",
            entry.id,
        )
        for entry in sorted(entries, key=lambda entry: (entry.name, entry.created))
    ]
    print_rows(("name", "roles", "created", "expires", "state", "rate", "id"), rows)


@apikey.command()
def revoke(which: Annotated[str, typer.Argument(help="a key's id or name")]) -> None:
    """Revoke a key; a running server refuses it within a second."""
    for entry in apikeys.revoke(keys_path(settings()), which, now=time.time()):
        console.print(f"revoked {entry.id} ({entry.name})", soft_wrap=True, markup=False)


def _expiry(span: str, now: float) -> int | None:
    if not span:
        return None
    found = _SPAN.match(span)
    if found is None:
        raise ValueError("--expires takes a number and h, d or w, e.g. 90d")
    return int(now) + int(found[1]) * _SECONDS[found[2]]


def _rate(per_s: float, burst: int) -> Rate | None:
    if not 0 <= per_s <= MAX_PER_S or burst < 0 or (burst and not per_s):
        raise ValueError(f"--rate is calls per second, up to {MAX_PER_S:g}; --burst needs it")
    return Rate(per_s, burst or max(1, math.ceil(per_s))) if per_s else None


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def _state(entry: apikeys.ApiKey, now: float) -> str:
    if entry.revoked is not None:
        return "revoked"
    return "usable" if entry.usable(now) else "expired"
