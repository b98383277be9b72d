"""Natural batching: many callers, one model, no timer.

Rule 1: while one batch runs, requests queue; the next batch is everything compatible in the queue,
up to `max_rows`. Nobody waits for company. A call of more rows than that runs in pieces, so that
the memory of a batch is bounded and a caller who leaves ends the work.
Rule 2: compatible means equal names, types and trailing shapes; the queue belongs to one artefact,
so versions and models never meet.
Rule 3: a request that is bad, cancelled or late fails alone. A batch that fails for what is in it
is run again in halves, until the guilty is by itself; a cancelled request is dropped from the
queue, or its result discarded. What fails for another reason (nobody there, no place) fails whole.
Rule 4: a full queue refuses at once.
Rule 5: a model whose signature does not batch runs each request alone, with the shapes it came in.
Rule 6: one alarm watches the nearest deadline, so that a call in a crowd costs no timer of its own.
Boundary: asyncio. Rows are slices, never shared writable memory. Who computes is a subclass.
Read next: batch.py (a model in this process), link.py (one in another).
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
    RunnerError,
)
from .tensor import Array, Batch, Signature

__all__ = ["Answer", "BatchQueue", "Queued"]

log = logging.getLogger("weighbridge")

_Key = tuple[tuple[str, str, tuple[int, ...]], ...]
_ANY: _Key = ()  # the signature fixes every type and trailing dimension, so all are compatible
_OF_ONE = (InputInvalid, ModelFailed)  # what one call of a batch may have brought upon all
_RESOLUTION_S = 0.001


class Answer(NamedTuple):
    """What one caller gets: its own rows, and where its time went (seconds).

    `batch_rows` is the size of the batch that the rows were part of, of each piece where they ran
    in pieces; 0 where that is not known.
    """

    outputs: dict[str, Array]
    queue_s: float
    infer_s: float
    batch_rows: int = 0


@dataclass(slots=True, eq=False)
class Queued:
    """One call; `deadline` and `queued` are times of `time.monotonic()`."""

    batch: Batch
    rows: int
    key: _Key
    future: asyncio.Future[Answer]
    deadline: float | None
    queued: float
    context: str


class BatchQueue(ABC):
    """The queue in front of one model, wherever it runs."""

    def __init__(
        self, name: str, signature: Signature, *, max_rows: int, max_queued_rows: int, depth: int
    ) -> None:
        """`depth` batches may be under way at once: one, and more of them only when full."""
        self._name = name
        self._max_rows = max_rows
        self._max_queued = max_queued_rows
        self._depth = depth
        self._alone = signature.batching == "none"
        self._full = 1 if self._alone else max_rows
        self._queue: deque[Queued] = deque()
        self._queued_rows = 0
        inputs = signature.inputs
        self._fixed = bool(inputs) and all(min(spec.shape[1:], default=0) >= 0 for spec in inputs)
        self._turn: asyncio.Handle | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._watched: set[Queued] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._closed = False

    @abstractmethod
    async def _compute(self, batch: Batch, rows: int, calls: Sequence[Queued]) -> Answer:
        """Answer one batch of at most `max_rows` rows, which `calls` brought together.

        Raises:
            RunnerError: and nothing else.
        """

    def _compute_here(self, batch: Batch, rows: int) -> Answer:
        """Answer one batch that `_short` is true of, on the loop itself."""
        raise NotImplementedError

    def _short(self, rows: int) -> bool:
        """Whether a batch of so many rows is known to be shorter than the way elsewhere."""
        del rows
        return False

    async def infer(self, batch: Batch, rows: int, *, deadline: float | None = None) -> Answer:
        """Answer `rows` rows; `deadline` is a time of `time.monotonic()`, in seconds.

        Raises:
            Overloaded: more than `max_queued_rows` rows would wait.
            DeadlinePassed: the deadline passed while queued or running.
            InputInvalid, ModelFailed: this request's own fault, or the model's.
            ModelNotReady: the model is being unloaded, or what runs it is away.
        """
        if self._closed:
            raise ModelNotReady(f"model '{self._name}' is being unloaded")
        if self._queued_rows and self._queued_rows + rows > self._max_queued:
            raise Overloaded(f"model '{self._name}' has {self._queued_rows} rows waiting")
        loop = asyncio.get_running_loop()
        key = _ANY if self._fixed else _key(batch)
        now, context = time.monotonic(), self._context()
        call = Queued(batch, rows, key, loop.create_future(), deadline, now, context)
        self._queue.append(call)
        self._queued_rows += rows
        if not self._room(len(self._workers)):
            self._watch(call)
        elif self._turn is None:
            self._turn = loop.call_soon(self._gather, len(self._queue))
        try:
            return await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        finally:
            self._watched.discard(call)

    def _room(self, running: int) -> bool:
        """Whether one more batch may begin beside `running` others."""
        return not running or (running < self._depth and self._queued_rows >= self._full)

    def _context(self) -> str:
        """What goes along with the running caller's rows; "" for nothing."""
        return ""

    def _watch(self, call: Queued) -> None:
        """A call that may wait is watched by the clock."""
        if call.deadline is None:
            return
        self._watched.add(call)
        if self._alarm is None or call.deadline < self._alarm_at:
            self._set_alarm(call.deadline)

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at, left = when, max(0.0, when - time.monotonic())
        self._alarm = asyncio.get_running_loop().call_later(left, self._ring)

    def _ring(self) -> None:
        """Tell those whose deadline is now; then sleep until the next one."""
        self._alarm = None
        now = time.monotonic() + _RESOLUTION_S
        for call in [call for call in self._watched if _passed(call, now)]:
            self._watched.discard(call)
            self._withdraw(call)
            _refuse(call, DeadlinePassed("the deadline passed before the model answered"))
        left = [call.deadline for call in self._watched if call.deadline is not None]
        if left:
            self._set_alarm(min(left))

    def _withdraw(self, call: Queued) -> None:
        """Nobody waits for `call`: if it still queues, its place is free at once."""
        if call in self._queue:
            self._queue.remove(call)
            self._queued_rows -= call.rows

    async def close(self) -> None:
        """Refuse new requests, answer what is queued, then return."""
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
            self._begin()
        while self._workers:
            await asyncio.wait(self._workers)
        if self._alarm is not None:
            self._alarm.cancel()

    def _gather(self, seen: int) -> None:
        """Begin when a turn of the loop has brought no more calls: what is ready is one batch."""
        if len(self._queue) > seen and self._queued_rows < self._max_rows:
            self._turn = asyncio.get_running_loop().call_soon(self._gather, len(self._queue))
        else:
            self._begin()

    def _begin(self) -> None:
        """Answer short batches at once; each long one is a task, as far as there is room."""
        self._turn = None
        while self._room(len(self._workers)) and (calls := self._take()):
            rows = _rows(calls)
            if rows <= self._max_rows and self._short(rows):
                self._run_here(calls)
                continue
            for call in calls:
                self._watch(call)
            worker = asyncio.get_running_loop().create_task(self._work(calls))
            self._workers.add(worker)
        for call in self._queue:
            self._watch(call)

    async def _work(self, calls: list[Queued]) -> None:
        """Run batch after batch; every call taken gets an answer or an error."""
        try:
            while calls:
                await self._run(calls)
                calls = self._take() if self._room(len(self._workers) - 1) else []
        except Exception:  # ours; these callers learn that it failed, the log the rest
            log.exception("could not run a batch of %s", self._name)
        finally:  # in this very turn: a call that comes next must find the place free
            self._workers -= {asyncio.current_task()}
            for call in calls:  # none, unless something went wrong
                _refuse(call, ModelFailed(f"a batch of '{self._name}' was not run"))

    def _take(self) -> list[Queued]:
        """Take the oldest live call and every compatible one behind it, in order."""
        taken: list[Queued] = []
        kept: deque[Queued] = deque()
        rows, now = 0, time.monotonic()
        while self._queue:
            call = self._queue.popleft()
            if call.future.done():
                self._queued_rows -= call.rows
            elif _passed(call, now):
                self._queued_rows -= call.rows
                _refuse(call, DeadlinePassed("the deadline passed in the queue"))
            elif not taken or (call.key == taken[0].key and rows + call.rows <= self._max_rows):
                taken.append(call)
                rows += call.rows
                self._queued_rows -= call.rows
                if rows >= self._max_rows or self._alone:
                    break
            else:
                kept.append(call)
        kept.extend(self._queue)
        self._queue = kept
        return taken

    def _run_here(self, calls: list[Queued]) -> None:
        started = time.monotonic()
        try:
            answer = self._checked(self._compute_here(_join(calls), _rows(calls)), calls)
        except RunnerError as exc:
            for part in _parts(calls, exc):
                self._run_here(part)
        else:
            self._hand_out(calls, answer, started)

    async def _run(self, calls: list[Queued]) -> None:
        started = time.monotonic()
        try:
            answer = self._checked(await self._run_pieces(_join(calls), calls), calls)
        except RunnerError as exc:
            for part in _parts(calls, exc):
                await self._run(part)
        else:
            self._hand_out(calls, answer, started)

    def _hand_out(self, calls: list[Queued], answer: Answer, started: float) -> None:
        """Give every caller who still waits its own rows."""
        outputs, waited, infer_s, batch_rows = answer
        first = 0
        for call in calls:
            last = first + call.rows
            if not call.future.done():
                own = outputs
                if not self._alone:
                    own = {name: data[first:last] for name, data in outputs.items()}
                queue_s = started - call.queued + waited
                call.future.set_result(Answer(own, queue_s, infer_s, batch_rows))
            first = last

    def _checked(self, answer: Answer, calls: list[Queued]) -> Answer:
        rows = _rows(calls)
        for data in () if self._alone else answer.outputs.values():
            if data.shape[:1] != (rows,):
                raise ModelFailed(f"'{self._name}' gave outputs whose rows are not the batch's")
        return answer

    async def _run_pieces(self, batch: Batch, calls: list[Queued]) -> Answer:
        """Run a batch; a call of more than `max_rows` rows goes piece by piece."""
        rows, size = _rows(calls), self._max_rows
        if rows <= size:
            return await self._compute(batch, rows, calls)
        pieces: list[Answer] = []
        for first in range(0, rows, size):
            if all(call.future.done() for call in calls):
                raise DeadlinePassed("nobody waits for the rest of the rows")
            piece = {name: data[first : first + size] for name, data in batch.items()}
            pieces.append(await self._compute(piece, min(size, rows - first), calls))
        outputs = {
            name: np.concatenate([piece.outputs[name] for piece in pieces])
            for name in pieces[0].outputs
        }
        waited, spent = [piece.queue_s for piece in pieces], [piece.infer_s for piece in pieces]
        return Answer(outputs, sum(waited), sum(spent), size)


def _passed(call: Queued, now: float) -> bool:
    return call.deadline is not None and call.deadline <= now


def _rows(calls: Sequence[Queued]) -> int:
    return sum([call.rows for call in calls])


def _refuse(call: Queued, error: RunnerError) -> None:
    if not call.future.done():
        call.future.set_exception(error)


def _parts(calls: list[Queued], error: RunnerError) -> list[list[Queued]]:
    """A batch failed: what of it to try again, in halves; who is left is refused."""
    if len(calls) > 1 and isinstance(error, _OF_ONE):
        live = [call for call in calls if not call.future.done()]
        half = len(live) // 2
        return [part for part in (live[:half], live[half:]) if part]
    for call in calls:
        _refuse(call, type(error)(*error.args))
    return []


def _key(batch: Batch) -> _Key:
    return tuple((name, data.dtype.str, data.shape[1:]) for name, data in sorted(batch.items()))


def _join(calls: list[Queued]) -> Batch:
    if len(calls) == 1:
        return calls[0].batch
    return {name: np.concatenate([call.batch[name] for call in calls]) for name in calls[0].batch}
