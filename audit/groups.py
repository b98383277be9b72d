"""The notary's writing thread: takes what has queued, writes it as one group, goes on.

Rule 1: natural batching: what queued while one group was written is the next. `put` and the two
callbacks belong to the event loop's thread; everything between happens in one other thread, and
each group comes back in one loop callback. The queue is C's own: handing over an append wakes the
thread only if it rests.
Rule 2: in a crowd, a fast disk would make groups of two or three, and a group costs the processor
more than a record. So while many callers are on their way to an append (`expected`), the thread
gives them up to three milliseconds to come. A few callers never wait. Before a "bounded" append,
for which nobody waits, it always lingers for a moment.
Rule 3: the thread never dies of a failure: the group's appenders learn of it, and the next group is
tried.
Rule 4: an append that was acknowledged before it was written ("bounded") is never given up: when
its group fails, it stands first in the next one.
Read next: log.py (what a group is), notary.py (who waits).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from .errors import AuditError, LogUnavailable
from .log import Log, Record
from .receipts import Durability, Receipt

_GROUP_ENTRIES = 1024
_GROUP_BYTES = 4 << 20
_AGAIN_S = 0.2
_CROWD = 8
_STEP_S = 0.0005
_PATIENCE = 6
_LINGER_S = 0.005
_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class Pending:
    """An append under way.

    "strict" ones are acknowledged after the sync, "async" ones before it, and nobody waits for a
    "bounded" one, whose `future` is None.
    """

    event_id: str
    record: Record
    leaf: bytes
    durability: Durability
    future: asyncio.Future[Receipt] | None
    since: float = field(default_factory=time.monotonic)


class _Task:
    """Something else to do in the thread, between two groups."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future


class GroupWriter:
    """Writes pending appends to a log in groups.

    Args:
        loop: where appends come from.
        log: where they go; nobody else may append to it.
        resolve: called on the loop with stored appends and their leaf indexes.
        reject: called on the loop with the appends of a failed group, and the error.

    Attributes:
        expected: how many callers are on their way, those that have come included; any thread.
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
        self.expected: Callable[[], int] = lambda: 0
        self._queue: SimpleQueue[Pending | _Task | None] = SimpleQueue()
        self._again: list[Pending] = []
        self._oldest: float | None = None
        self._thread = Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many appends no group has taken yet."""
        return self._queue.qsize()

    def behind(self) -> float:
        """For how long, in seconds, the oldest append that the thread took is not yet stored."""
        oldest = self._oldest
        return 0.0 if oldest is None else time.monotonic() - oldest

    def put(self, pending: Pending) -> None:
        """Queue an append, waking the thread if it rests."""
        self._queue.put(pending)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run something else in the thread, after what was queued before it."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._queue.put(_Task(work, future))
        return await future

    async def drain(self) -> int:
        """Wait until all that was queued has been tried; how many appends the log still lacks."""
        return await self.run(lambda: len(self._again))

    def shutdown(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()

    # --- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=_AGAIN_S if self._again else None)
            except Empty:
                self._write_group([])  # only what failed before
                continue
            if isinstance(item, Pending):
                item = self._write_what_queued(item)
            if item is None:
                return
            if isinstance(item, _Task):
                self._do(item)

    def _write_what_queued(self, first: Pending) -> Pending | _Task | None:
        """Write `first` and what queued behind it; the next thing that is no append, or `first`."""
        if first.durability == "bounded" and not self._again:
            time.sleep(_LINGER_S)  # nobody waits for it, and a group costs more than a record
        group, size, patience = [first], _size(first), _PATIENCE
        while len(group) < _GROUP_ENTRIES and size < _GROUP_BYTES:
            try:
                item = self._queue.get_nowait()
            except Empty:
                expected = self.expected()
                if patience and expected >= _CROWD and len(group) < expected // 2:
                    patience -= 1
                    time.sleep(_STEP_S)
                    continue
                break
            if not isinstance(item, Pending):
                self._write_group(group)
                return item
            group.append(item)
            size += _size(item)
        self._write_group(group)
        return first

    def _do(self, task: _Task) -> None:
        if self._again:
            self._write_group([])
        try:
            found = task.work()
        except BaseException as error:  # noqa: BLE001  whoever asked learns of it
            self._loop.call_soon_threadsafe(_settle, task.future, None, error)
        else:
            self._loop.call_soon_threadsafe(_settle, task.future, found, None)

    def _write_group(self, fresh: list[Pending]) -> None:
        group = self._again + fresh if self._again else fresh
        if not group:
            return
        self._oldest = group[0].since
        early = [(place, p) for place, p in enumerate(group) if p.durability == "async"]
        rest = [(place, p) for place, p in enumerate(group) if p.durability != "async"]

        def acknowledge(first: int, some: list[tuple[int, Pending]]) -> None:
            placed = [(first + place, pending) for place, pending in some]
            self._loop.call_soon_threadsafe(self._resolve, placed)

        on_written = (lambda first: acknowledge(first, early)) if early else None
        try:
            first = self._log.append([p.record for p in group], on_written)
        except AuditError as error:
            self._fail(group, error)
        except Exception as error:  # noqa: BLE001 - the thread must live; the appenders learn of it
            self._fail(group, LogUnavailable(f"could not store records: {error!r}"))
        else:
            self._again, self._oldest = [], None
            if rest:
                acknowledge(first, rest)

    def _fail(self, group: list[Pending], error: AuditError) -> None:
        self._again = [pending for pending in group if pending.durability == "bounded"]
        if not self._again:
            self._oldest = None
        refused = [pending for pending in group if pending.durability != "bounded"]
        self._loop.call_soon_threadsafe(self._reject, refused, error)


def _size(pending: Pending) -> int:
    record = pending.record
    return len(record.data) + sum(len(payload.data) for payload in record.payloads)


def _settle(future: asyncio.Future[Any], found: object, error: BaseException | None) -> None:
    """On the loop: hand a task's result to whoever still waits for it."""
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)
