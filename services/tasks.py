"""Work that goes on beside the answers: begun here, so that none of it ends in silence.

Rule: each such loop handles what it foresees. What it does not ends it, and is said in the process
log by its kind, without its text, which may hold what came with a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["begin"]

log = logging.getLogger("weighbridge")


def begin(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """Run `work` as a task; `what` names it where it ends over something unforeseen."""
    task = asyncio.create_task(work, name=what)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("%s ended over a %s, until the next start", task.get_name(), type(error).__name__)
