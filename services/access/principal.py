"""Who calls: a name, the roles that were granted to it, and its own rate if it has one.

Rule 1: roles are a closed list; a role that is not on it grants nothing.
Rule 2: names of different origins never meet: `key:` and `jwt:` stand before them, so that a
token's subject cannot be taken for an API key.
Boundary: values only; who proves to be a principal is decided in guard.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["ANONYMOUS", "MAX_PER_S", "ROLES", "Principal", "Rate", "Role", "known_roles"]

Role = Literal["infer", "operate", "review", "force-arm", "erase"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
MAX_PER_S: Final = 1e6
"""The largest rate, calls per second: beyond it a limit is none."""


class Rate(NamedTuple):
    """How much one principal may ask: calls per second, and at once after a rest."""

    per_s: float
    burst: int


class Principal(NamedTuple):
    """An authenticated caller; `rate` None means the rate of the settings."""

    name: str
    roles: frozenset[Role]
    rate: Rate | None = None


ANONYMOUS: Final = Principal("anonymous", frozenset(ROLES))
"""Everybody, where nobody is asked to authenticate."""


def known_roles(names: Iterable[object]) -> frozenset[Role]:
    """The roles among `names`; anything else grants nothing."""
    found = [name for name in names if isinstance(name, str)]
    return frozenset(role for role in ROLES if role in found)
