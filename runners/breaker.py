"""A circuit breaker: a far side that keeps failing is left alone for a while.

States: closed (calls go through), open (refused at once), half-open (one call tries).
Rule 1: `limit` failures in a row open it; `cool_s` later one call may try; its success closes the
breaker, its failure opens it for twice as long, at most `longest_s`.
Rule 2: an answer is a success, also a refusal of the caller's own mistake: the far side is alive.
Boundary: pure; the clock is an argument. Not thread-safe: one event loop owns it.
Source: M. Nygard (2007), "Release It!", chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half-open"]


class Breaker:
    """The state of one far side."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        limit: int = 5,
        cool_s: float = 2.0,
        longest_s: float = 30.0,
    ) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._limit = limit
        self._first_s = cool_s
        self._longest_s = longest_s
        self._cool_s = cool_s
        self._failures = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        """What the next `admit` would meet."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() - self._opened >= self._cool_s else "open"

    def admit(self) -> bool:
        """Whether a call may go out now; one that may must end in one of the three below."""
        state = self.state
        if state == "closed":
            return True
        if state == "open" or self._trying:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """The far side answered."""
        self._failures, self._opened, self._trying = 0, None, False
        self._cool_s = self._first_s

    def failed(self) -> None:
        """The far side did not answer, or answered that it cannot."""
        self._failures += 1
        if self._trying:
            self._cool_s = min(self._longest_s, 2 * self._cool_s)
        if self._trying or self._failures >= self._limit:
            self._opened = self._clock()
        self._trying = False

    def dropped(self) -> None:
        """The caller went away: nothing was learnt."""
        self._trying = False
