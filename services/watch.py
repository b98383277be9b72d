"""Reload definitions when their files change, without a restart.

Rule: a change that cannot be used is logged with file, line and field, and changes nothing; the
watcher goes on. A folder that cannot be watched is no reason not to serve: `POST
/v1/experiments/reload` does the same.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from watchfiles import awatch

from audit.errors import AuditError
from experiments.errors import DefinitionError

from .router import Router
from .tasks import begin

__all__ = ["Watcher", "watch"]

log = logging.getLogger("weighbridge")


class Watcher:
    """A running watch."""

    def __init__(self, folder: Path, router: Router) -> None:
        """Start watching; needs a running event loop."""
        self._stop = asyncio.Event()
        self._task = begin(self._watch(folder, router), "watching the experiments")

    async def _watch(self, folder: Path, router: Router) -> None:
        try:
            async for _ in awatch(folder, stop_event=self._stop, debounce=200, step=50):
                await self._reload(router)
        except OSError as exc:
            log.warning("could not watch %s: %s; reload by request instead", folder, exc)

    async def _reload(self, router: Router) -> None:
        try:
            changed = await router.reload("file changed")
        except DefinitionError as exc:
            log.error("the experiments were not changed:\n%s", exc)
        except AuditError as exc:
            log.error("the experiments were not changed, the log refused: %s", exc)
        else:
            if changed:
                log.warning("experiments in force were changed: %s", ", ".join(changed))

    async def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        await asyncio.wait([self._task])


def watch(folder: Path, router: Router) -> Watcher:
    """Watch `folder` and reload `router` on every change."""
    return Watcher(folder, router)
