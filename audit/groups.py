"""The notary's writing thread: takes what has queued, writes it as one group, goes on.

Rule: natural batching, no timer. `put` and the two callbacks belong to the event loop's thread;
everything between happens in one other thread, and each group comes back in one loop callback.
The thread never dies of a failure: the group's appenders learn of it, and the next group is tried.
Read next: log.py (what a group is), notary.py (who waits).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from .errors import AuditError, LogUnavailable
from .log import Log, Record
from .receipts import Receipt

_GROUP_ENTRIES = 1024
_GROUP_BYTES = 4 << 20
_T = TypeVar("_T")


@dataclass(slots=True)
class Pending:
    """An append that waits; `relaxed` ones are acknowledged before the sync."""

    event_id: str
    record: Record
    leaf: bytes
    relaxed: bool
    future: asyncio.Future[Receipt]


class GroupWriter:
    """Writes pending appends to a log in groups.

    Args:
        loop: where appends come from.
        log: where they go; nobody else may append to it.
        resolve: called on the loop with stored appends and their leaf indexes.
        reject: called on the loop with the appends of a failed group, and the error.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        resolve: Callable[[list[tuple[int, Pending]]], None],
        reject: Callable[[list[Pending], AuditError], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._resolve = resolve
        self._reject = reject
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-writer")
        self._queue: deque[Pending] = deque()
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many appends no group has taken yet."""
        return len(self._queue)

    def put(self, pending: Pending) -> None:
        """Queue an append, waking the thread if it rests."""
        self._queue.append(pending)
        if not self._busy:
            self._busy = True
            self._executor.submit(self._write_groups)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run something else in the thread, between two groups."""
        return await self._loop.run_in_executor(self._executor, work)

    async def drain(self) -> None:
        """Wait until nothing is queued or being written."""
        while self._busy or self._queue:
            await self.run(_nothing)

    def shutdown(self) -> None:
        """End the thread."""
        self._executor.shutdown()

    def _rest(self) -> None:
        """On the loop: go idle, unless something was queued after the thread last looked."""
        if self._queue:
            self._executor.submit(self._write_groups)
        else:
            self._busy = False

    def _write_groups(self) -> None:
        while group := self._take_group():
            self._write_group(group)
        self._loop.call_soon_threadsafe(self._rest)

    def _take_group(self) -> list[Pending]:
        group: list[Pending] = []
        size = 0
        while self._queue and len(group) < _GROUP_ENTRIES and size < _GROUP_BYTES:
            pending = self._queue.popleft()
            size += len(pending.record.data) + sum(len(p.data) for p in pending.record.payloads)
            group.append(pending)
        return group

    def _write_group(self, group: list[Pending]) -> None:
        strict = [(offset, p) for offset, p in enumerate(group) if not p.relaxed]
        relaxed = [(offset, p) for offset, p in enumerate(group) if p.relaxed]

        def acknowledge(first: int, some: list[tuple[int, Pending]]) -> None:
            placed = [(first + offset, pending) for offset, pending in some]
            self._loop.call_soon_threadsafe(self._resolve, placed)

        on_written = (lambda first: acknowledge(first, relaxed)) if relaxed else None
        try:
            first = self._log.append([p.record for p in group], on_written)
        except AuditError as error:
            self._loop.call_soon_threadsafe(self._reject, group, error)
        except Exception as error:  # noqa: BLE001 - the thread must live; the appenders learn of it
            wrapped = LogUnavailable(f"could not store records: {error!r}")
            self._loop.call_soon_threadsafe(self._reject, group, wrapped)
        else:
            acknowledge(first, strict)


def _nothing() -> None:
    """A place in the thread's queue: when it has run, everything before it has."""
