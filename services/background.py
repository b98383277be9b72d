"""Threads that give way: network threads which do not interrupt the loop that they feed.

Where a server has one core, a thread that wakes to send one reply takes the core from the loop that
is about to hand it the next sixty, sixty times. Under SCHED_BATCH a waking thread waits for its
turn, so that what is sent one by one leaves, and comes in, many at once. With cores to spare it
changes nothing.
Source: sched(7), "SCHED_BATCH": no privilege is needed, and threads inherit it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["in_background"]


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """Threads that are started inside do not interrupt a running one when they wake.

    They get their turn as before, only not at once (SCHED_BATCH, which threads inherit); where the
    system does not know that or does not allow it, they are like all others.
    """
    before = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    if before != getattr(os, "SCHED_OTHER", -1):
        yield
        return
    plain = os.sched_param(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, plain)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, plain)
