"""Alerts about the log itself, on record as soon as the log takes records again.

Rule: a refusal of the disk, a checkpoint that could not be signed, and a witness that saw another
tree are each an `alert` when they begin; the first can be written only when it is over, and says
for how long. Answers that were refused meanwhile are in `gap` records.
Boundary: asyncio; asks the notary's state once a second, which costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from audit.cosigning import WitnessState
from audit.errors import AuditError
from audit.notary import Notary
from audit.record import Alert, new_id, now_us

from .tasks import begin

__all__ = ["LogWatch"]

log = logging.getLogger("weighbridge")
_EVERY_S = 1.0
_MAX_TEXT = 400


class LogWatch:
    """Watches one notary, from `start` to `close`."""

    def __init__(self, notary: Notary, witnesses: Callable[[], Sequence[WitnessState]]) -> None:
        """`witnesses` gives what is known of each."""
        self._notary = notary
        self._witnesses = witnesses
        self._since: float | None = None
        self._why = ""
        self._raised: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = begin(self._watch(), "watching the log")

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.look()
                said = ""
            except AuditError as error:
                if str(error) != said:  # it is tried every second, and said once
                    said = str(error)
                    log.warning("could not record an alert: %s", said)

    async def look(self) -> None:
        """Record what began or ended since the last time.

        Raises:
            AuditError: the log refused; it is tried again.
        """
        failure = self._notary.failure
        if failure is not None:
            self._since, self._why = self._since or time.monotonic(), failure
        elif self._since is not None:
            refused_s = round(time.monotonic() - self._since)
            await self._alert(
                "audit_log_unavailable",
                "critical",
                f"the log took no records for about {refused_s} s: {self._why}",
                seconds=refused_s,
            )
            self._since = None
        await self._state(
            "checkpoint_not_signed", "warn", self._notary.checkpoints.failure, witness=None
        )
        for state in self._witnesses():
            why = state.failure if state.alarm else None
            await self._state("witness_alarm", "critical", why, witness=state.name)

    async def _state(
        self, name: str, severity: str, why: str | None, *, witness: str | None
    ) -> None:
        key = f"{name} {witness}"
        if why is None:
            self._raised.discard(key)
        elif key not in self._raised:
            about = {} if witness is None else {"witness": witness}
            await self._alert(name, severity, why, **about)
            self._raised.add(key)

    async def _alert(self, name: str, severity: str, message: str, **details: str | int) -> None:
        await self._notary.append(
            Alert(
                id=new_id(),
                time_us=now_us(),
                name=name,
                severity=severity,
                message=message[:_MAX_TEXT],
                details=dict(details),
            ),
            durability="strict",
        )
