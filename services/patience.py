"""How long an answer waits for its record: a disk that hangs says nothing, and nobody is told.

Rule: who has waited for `longest_s`, give or take a tenth, is refused. The record stands all the
same where it arrives later: it was on its way, and cannot be called back.
Boundary: asyncio. One timer looks at all who wait, as a timer for each would cost more than that.
Read next: recorder.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from audit.errors import LogUnavailable

__all__ = ["Patience"]

LONGEST_S = 10.0
_LOOKS = 10  # in that time


class Patience:
    """Refuses, with LogUnavailable, futures that have waited for `longest_s` seconds."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._since: dict[asyncio.Future[Any], float] = {}  # in order of beginning
        self._timer: asyncio.TimerHandle | None = None

    def begins(self, future: asyncio.Future[Any]) -> None:
        """Somebody waits for it from now on, until `ends`."""
        loop = future.get_loop()
        self._since[future] = loop.time()
        if self._timer is None:
            self._look_later(loop)

    def ends(self, future: asyncio.Future[Any]) -> None:
        """Nobody waits for it any more."""
        del self._since[future]

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._longest_s / _LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        too_early = loop.time() - self._longest_s
        for future, since in self._since.items():
            if since > too_early:
                break
            if not future.done():
                future.set_exception(
                    LogUnavailable(f"the record was not stored within {self._longest_s:g} s")
                )
        if self._since:
            self._look_later(loop)
