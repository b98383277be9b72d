"""Who the running call is from, for what puts it on record.

Rule: set by the gate after it let the call in, in the call's own context; None where nobody was
asked who they are. Never taken from what the caller sent.
Boundary: values only.
"""

from __future__ import annotations

from contextvars import ContextVar

from .principal import ANONYMOUS, Principal

__all__ = ["CALLER", "caller_name", "recorded_actor"]

CALLER: ContextVar[Principal | None] = ContextVar("weighbridge_caller", default=None)


def caller_name() -> str | None:
    """The principal's name; None where authentication is off."""
    found = CALLER.get()
    return None if found is None or found is ANONYMOUS else found.name


def recorded_actor(said: str) -> str:
    """Who did something, as a record names them: the principal, and beside it what was said.

    Args:
        said: the name that the caller sent; may be empty.
    """
    name = caller_name() or ANONYMOUS.name
    return f"{name}, for {said}" if said else name
