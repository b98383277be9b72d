"""SIGTERM in order: first say so, then finish what is under way, then end.

Rule: the first SIGTERM starts what was asked for and only then reaches the server's own handler;
a second one reaches it at once. So a balancer that watches readiness has time to look elsewhere,
and a process that others still need (a runner) ends after them.
Source: uvicorn's `Server.handle_exit` stands as the handler when a startup hook runs.
Boundary: one process, main thread, POSIX signals.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

__all__ = ["before_stopping"]

log = logging.getLogger("weighbridge")


def before_stopping(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` between the first SIGTERM and the server's own handling of it."""
    own = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()
    running: list[asyncio.Task[None]] = []

    def end(frame: FrameType | None = None) -> None:
        if callable(own):
            own(signal.SIGTERM, frame)

    async def finish() -> None:
        try:
            await work()
        except Exception:  # the process must end whatever happens
            log.exception("could not stop in order")
        end()

    def begin() -> None:
        running.append(loop.create_task(finish()))

    def handle(_: int, frame: FrameType | None) -> None:
        if running:
            end(frame)
        else:
            loop.call_soon_threadsafe(begin)

    signal.signal(signal.SIGTERM, handle)
