"""Stay awake between calls that follow one another closely.

A loop with nothing to do lets its processor sleep, and waking up costs a lone caller more than half
of a small model: the interrupt, and caches that belong to others by then. So after the last answer
the loop looks for the next call for a moment before it sleeps.
Rule 1: only where it pays. The pause before the last call says whether the next is worth waiting
for, as in the kernel's halt polling: after a longer one the loop sleeps at once. So an idle gateway
is idle, and one that is asked now and then is, too.
Rule 2: only while no call runs. Who waits for a disk or a model must leave it the processor.
Source: Linux, Documentation/virt/guest-halt-polling.rst.
Boundary: this process's event loop.
"""

from __future__ import annotations

import asyncio
import time

__all__ = ["Awake"]


class Awake:
    """Keeps one loop awake.

    Args:
        for_s: the longest time to stay awake for the next call; 0 never does.
    """

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._worth = self._looking = False
        self._since = 0.0

    def asked(self) -> None:
        """The first call after a pause has come."""
        self._worth = time.monotonic() - self._since <= self._for_s
        self._looking = False

    def rest(self) -> None:
        """The last call that ran is about to be answered."""
        self._since = time.monotonic()
        if self._worth and not self._looking:
            self._looking = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop look for what has come, and then do this again."""
        if not self._looking:
            return
        if time.monotonic() - self._since > self._for_s:
            self._worth = self._looking = False
            return
        loop.call_soon(self._look, loop)
