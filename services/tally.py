"""What a gateway process counted, put on record: so that the log can be held against the gateway.

Rule: about once a minute while answers are given, and once at the end, a `counters` record says how
many numbers were handed out, recorded, refused, answered and traced. The last one says that nothing
is on its way: then also an answer after the last recorded number cannot be missing unseen. One that
cannot be stored is left out; the next one says the same and more.
Boundary: asyncio; audit/complete.py compares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from audit.errors import AuditError
from audit.record import Counters, new_id, now_us

from .recorder import Appender, Recorder
from .tasks import begin

__all__ = ["Tally"]

_INTERVAL_S: Final = 60.0


class Tally:
    """Records the counters of one process."""

    def __init__(
        self, appender: Appender, recorder: Recorder, *, interval_s: float = _INTERVAL_S
    ) -> None:
        """Nothing is recorded before `start`, but the end is in any case."""
        self._appender = appender
        self._recorder = recorder
        self._interval_s = interval_s
        self._answered: Callable[[], int] = lambda: 0
        self._traced: Callable[[], int] = lambda: 0
        self._seq = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, *, answered: Callable[[], int], traced: Callable[[], int]) -> None:
        """Begin; the arguments tell how many answers were given, and have spans."""
        self._answered, self._traced = answered, traced
        self._task = begin(self._run(), "counting answers")

    async def close(self) -> None:
        """Record the last figures; call it after the recorder is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._recorder.seq:
            with suppress(AuditError):  # then the log says that this process did not end well
                await self._record(final=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            if self._recorder.seq > self._seq:
                with suppress(AuditError):
                    await self._record(final=False)

    async def _record(self, *, final: bool) -> None:
        recorder = self._recorder
        # In this order: what was traced was answered before, and what was answered was recorded.
        traced, answered, recorded = self._traced(), self._answered(), recorder.recorded
        self._seq = recorder.seq
        await self._appender.append(
            Counters(
                id=new_id(),
                time_us=now_us(),
                instance=recorder.instance,
                seq=self._seq,
                recorded=recorded,
                refused=self._seq - recorded - recorder.under_way,
                answered=answered,
                traced=traced,
                final=final,
            )
        )
