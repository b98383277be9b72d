"""The notary's writing: takes what has queued, writes it as one group, goes on.

Rule 1: natural batching: what queued while one group was made durable is the next. All of it runs
on the event loop, in steps that wait for nothing; only syncing takes time, and another process does
that (syncer.py). So no thread and no lock stands between a record and its acknowledgement. While
nobody waits for a group, others have their turn between its steps.
Rule 2: whatever would wait goes to one thread: a group for which no room is ready, a large one, one
after a fault, every one while there is no such process; and having room ready.
Rule 3: in a crowd, a fast disk would make groups of two or three, and a group costs the processor
more than a record. So while many callers are on their way to an append (`expected`), they get a
few turns of the loop to come. Nobody waits for a "bounded" append, so before it there is a pause,
unless many have come: a large group takes long.
Rule 4: a group that fails tells its appenders, and the next group is tried.
Rule 5: an append that was acknowledged before it was written ("bounded") is never given up: when
its group fails, it stands first in the next one. An "async" one was told where it lies, and is not
told again.
Rule 6: after each group comes the next, whatever went wrong, in here or with those who are told.
Read next: log.py (what a group is), notary.py (who waits).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from .errors import AuditError, LogUnavailable
from .log import Log, Record
from .receipts import Durability, Told
from .steps import Steps
from .syncer import Syncer, Written

_LOGGER = logging.getLogger("weighbridge.audit")
_GROUP_ENTRIES = 1024
_GROUP_BYTES = 4 << 20
_AT_ONCE_BYTES = 1 << 19
_AGAIN_S = 0.2
_CROWD = 8
_PLENTY = 100
_TURNS = 3
_LINGER_S = 0.025
_T = TypeVar("_T")


class Pending(NamedTuple):
    """An append under way; `event_id` is empty where nobody will ask for it again.

    "strict" ones are acknowledged after the sync, "async" ones before it, and nobody waits for a
    "bounded" one, whose `told` is None.
    """

    event_id: str
    record: Record
    leaf: bytes
    durability: Durability
    told: Told | None


class _Task:
    """Something else to do in the thread, between two groups."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.retried = False


class GroupWriter:
    """Writes pending appends to a log in groups.

    Args:
        loop: where all of it runs.
        log: where they go; nobody else may append to it.
        syncer: syncs its files; closed with this.
        resolve: called with stored appends and their leaf indexes.
        reject: called with the appends of a failed group, and the error.

    Attributes:
        expected: how many callers are on their way, those that have come included.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        syncer: Syncer,
        resolve: Callable[[list[tuple[int, Pending]]], None],
        reject: Callable[[list[Pending], AuditError], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._resolve = resolve
        self._reject = reject
        self.expected: Callable[[], int] = lambda: 0
        self._queue: deque[Pending | _Task] = deque()
        self._again: list[Pending] = []
        self._group: list[Pending] = []
        self._busy = self._retrying = self._awaited = self._told_early = False
        self._since = 0.0
        self._hurry = False
        self._turn: asyncio.Handle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._turns = 0
        self._filling = 0
        self._syncer = syncer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit-writer")

    @property
    def waiting(self) -> int:
        """How many appends no group has taken yet."""
        return len(self._queue)

    def behind(self) -> float:
        """For how many seconds the oldest append that a group took has not been stored."""
        under_way = self._group or self._again
        return time.monotonic() - self._since if under_way else 0.0

    def put(self, pending: Pending) -> None:
        """Queue an append."""
        self._queue.append(pending)
        if pending.told is not None:
            self._awaited = True
        if not self._busy and self._turn is None:
            self._go_on()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run something else in the thread, after what was queued before it."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._queue.append(_Task(work, future))
        self._awaited = True
        if not self._busy:
            self._turns = 0
            self._begin()
        return await future

    async def drain(self) -> int:
        """Wait until all that was queued has been tried; how many appends the log still lacks."""
        return await self.run(lambda: len(self._again))

    def shutdown(self) -> None:
        """End the thread."""
        self._stop_waiting()
        self._syncer.close()
        self._thread.shutdown()

    # --- one group ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the next group or task, unless more appends are worth a turn of the loop."""
        self._stop_waiting()
        if self._busy or (not self._queue and not self._again):
            return  # two groups at once would be written over one another
        if self._turns and len(self._queue) < _GROUP_ENTRIES:
            expected = self.expected()
            if expected >= _CROWD and len(self._queue) < expected // 2:
                self._turns -= 1
                self._turn = self._loop.call_soon(self._begin)
                return
        self._busy = True
        first = self._queue[0] if self._queue else None
        if isinstance(first, _Task) and (first.retried or not self._again):
            self._queue.popleft()
            self._do(first)
            return
        if isinstance(first, _Task):
            first.retried = True  # what failed before is tried once more, and then it is its turn
        self._group = self._take()
        try:
            self._write(self._group)
        except Exception as error:  # noqa: BLE001 - the appenders learn of it
            self._wrote(None, error)

    def _stop_waiting(self) -> None:
        for handle in (self._turn, self._pause):
            if handle is not None:
                handle.cancel()
        self._turn = self._pause = None

    def _take(self) -> list[Pending]:
        """What failed before, and what queued, up to the next task."""
        group, size, queue = self._again, 0, self._queue
        self._again, self._retrying = [], bool(group)
        while queue and len(group) < _GROUP_ENTRIES and size < _GROUP_BYTES:
            item = queue[0]
            if not isinstance(item, Pending):
                break
            queue.popleft()
            group.append(item)
            size += _size(item)
        self._awaited = bool(queue)  # what did not fit should not have to wait
        return group

    def _write(self, group: list[Pending]) -> None:
        if not self._retrying:
            self._since = time.monotonic()
        self._told_early = False
        self._hurry = any(pending.told is not None for pending in group)
        records = [pending.record for pending in group]
        on_written = None
        if any(pending.durability == "async" for pending in group):
            early = [(place, p) for place, p in enumerate(group) if p.durability == "async"]

            def on_written(first: int) -> None:
                self._told_early = True
                placed = [(first + place, pending) for place, pending in early]
                self._loop.call_soon_threadsafe(self._resolve, placed)

        steps = self._log.steps(records, on_written)
        small = sum(map(_size, group)) <= _AT_ONCE_BYTES
        if self._syncer.ready and small and self._log.ready(records):
            self._advance(steps, self._syncer)
        else:
            self._in_thread(lambda: self._log.finish(steps), self._wrote)

    def _advance(self, steps: Steps[int], syncer: Syncer) -> None:
        """Go on with a group, on the loop, to its next sync or its end."""
        try:
            syncs = next(steps)
            while not syncs and self._hurry:
                syncs = next(steps)
        except StopIteration as done:
            self._wrote(done.value, None)
        except Exception as error:  # noqa: BLE001 - the appenders learn of it
            self._wrote(None, error)
        else:
            self._sync(steps, syncs, syncer)

    def _sync(self, steps: Steps[int], syncs: list[Written], syncer: Syncer) -> None:
        """Have files synced, and go on with the group."""
        if not syncs:  # a turn for others
            self._loop.call_soon(self._advance, steps, syncer)
            return

        def told(error: OSError | None) -> None:
            if error is None:
                self._advance(steps, syncer)
            else:  # mending may wait for the disk
                self._in_thread(lambda: self._log.finish(steps, error), self._wrote)

        try:
            self._log.start_sync(syncer, syncs, told)
        except OSError as error:
            self._loop.call_soon(told, error)

    def _wrote(self, first: int | None, error: BaseException | None) -> None:
        """The end of a group: whoever waits learns of it."""
        group, self._group = self._group, []
        try:
            if first is None:
                self._failed(group, error)
            else:
                told = [(first + n, p) for n, p in enumerate(group) if p.durability != "async"]
                self._resolve(told)
            self._have_room()
        except Exception as unforeseen:  # noqa: BLE001  rule 6
            _LOGGER.error("after a group of records came a %s", type(unforeseen).__name__)
        finally:
            self._go_on()

    def _failed(self, group: list[Pending], error: BaseException | None) -> None:
        if not isinstance(error, AuditError):
            error = LogUnavailable(f"could not store records: {error!r}")
        self._again = [pending for pending in group if pending.durability == "bounded"]
        refused = [pending for pending in group if pending.durability != "bounded"]
        if self._told_early:
            refused = [p._replace(told=None) if p.durability == "async" else p for p in refused]
        self._reject(refused, error)

    def _go_on(self) -> None:
        """Begin the next group at once if somebody waits for it, else after a pause."""
        self._busy = False
        if self._awaited or (len(self._queue) >= _PLENTY and not self._again):
            self._turns = _TURNS if self._awaited else 0
            self._turn = self._loop.call_soon(self._begin)
        elif self._pause is None and (self._queue or self._again):
            self._turns = 0
            pause = _AGAIN_S if self._again else _LINGER_S
            self._pause = self._loop.call_later(pause, self._begin)

    # --- the thread ---------------------------------------------------------------------------

    def _do(self, task: _Task) -> None:
        def done(found: object, error: BaseException | None) -> None:
            _settle(task.future, found, error)
            self._go_on()

        self._in_thread(task.work, done)

    def _have_room(self) -> None:
        if self._filling:
            return
        for fill in self._log.more_room():
            self._filling += 1
            self._in_thread(fill, self._filled)

    def _filled(self, _: object, __: BaseException | None) -> None:
        self._filling -= 1

    def _in_thread(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Run `work` in the thread, and `done` with its result or its error on the loop.

        Here, where the system lends no thread: later than others would like, and not never.
        """

        def run() -> None:
            try:
                found = work()
            except BaseException as error:  # noqa: BLE001  whoever asked learns of it
                self._loop.call_soon_threadsafe(done, None, error)
            else:
                self._loop.call_soon_threadsafe(done, found, None)

        try:
            self._thread.submit(run)
        except RuntimeError:
            run()


def _size(pending: Pending) -> int:
    size = len(pending.record.data)
    for payload in pending.record.payloads:
        size += len(payload.data)
    return size


def _settle(future: asyncio.Future[Any], found: object, error: BaseException | None) -> None:
    """Hand a task's result to whoever still waits for it."""
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)
