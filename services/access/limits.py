"""How much: calls per second for each principal, calls at once for each model.

Source: the generic cell rate algorithm (ITU-T I.371 annex A): a token bucket that keeps one number,
the time at which it will be full again.
Rule 1: in any t seconds a principal gets at most `per_s` · t + `burst` calls, whatever the order
of its calls, as long as it is among the last 10,000 that called; an older one begins afresh.
Rule 2: a refused call costs its principal nothing, and is told when to come back.
Rule 3: what was taken is given back exactly once, also by a call that is cancelled.
Rule 4: a limit that is not set costs a dictionary look-up.
Boundary: no clock of its own beyond the one handed in; single-threaded, like the event loop.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

from ..faults import RateLimited
from .principal import Principal, Rate

__all__ = ["Concurrency", "RateLimits", "parse_concurrency"]

_REMEMBERED = 10_000
_MAX_RETRY_S = 3600


class RateLimits:
    """One token bucket per principal."""

    def __init__(
        self,
        default: Rate | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        remembered: int = _REMEMBERED,
    ) -> None:
        """`default` holds for principals without a rate of their own; None is no limit."""
        self._default = default
        self._clock = clock
        self._remembered = remembered
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, principal: Principal) -> None:
        """Count one call.

        Raises:
            RateLimited: the bucket is empty; says in how many seconds it will not be.
        """
        rate = principal.rate or self._default
        if rate is None:
            return
        now = self._clock()
        one = 1.0 / rate.per_s
        full_at = max(self._full_at.get(principal.name, now), now)
        ahead = full_at + one - now - rate.burst * one
        if ahead > 1e-9:  # nanoseconds are rounding
            wait = min(max(math.ceil(ahead), 1), _MAX_RETRY_S)
            raise RateLimited("too many calls by this principal; slow down", wait)
        self._full_at[principal.name] = full_at + one
        self._full_at.move_to_end(principal.name)
        if len(self._full_at) > self._remembered:
            self._full_at.popitem(last=False)

    @property
    def size(self) -> int:
        """How many principals are remembered."""
        return len(self._full_at)


class Place(Protocol):
    """Held while a call runs."""

    def __enter__(self) -> None:
        """Take it, or raise RateLimited."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""


class _Unlimited:
    """The place of a model without a limit."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Places:
    """The places of one model; entered by as many calls as there are places."""

    def __init__(self, model: str, places: int) -> None:
        self._model = model
        self._places = places
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._places:
            raise RateLimited(
                f"model '{self._model}' answers {self._places} calls at once, and does; try again"
            )
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


class Concurrency:
    """How many calls of a model run at once."""

    _unlimited = _Unlimited()

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        """`limits` by model name; others have none."""
        self._places = {name: _Places(name, places) for name, places in (limits or {}).items()}

    def place(self, model: str) -> Place:
        """A place of `model`, for a `with` block; entering it may raise RateLimited."""
        return self._places.get(model, self._unlimited)


def parse_concurrency(text: str) -> dict[str, int]:
    """Limits from `income=64,digits=8`; empty is none.

    Raises:
        ValueError: not of that form; says what is.
    """
    limits: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, places = (side.strip() for side in item.partition("="))
        if not name or not (places.isascii() and places.isdigit()) or int(places) < 1:
            raise ValueError("write MODEL=PLACES, comma separated, e.g. income=64,digits=8")
        if name in limits:
            raise ValueError(f"'{name[:64]}' stands twice")
        limits[name] = int(places)
    return limits
