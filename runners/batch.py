"""Natural batching: many callers, one session, no timer.

Rule 1: while one batch runs, requests queue; the next batch is everything compatible in the queue,
up to `max_rows`. Nobody waits for company. A call of more rows than that runs in pieces, so that
the memory of a batch is bounded and a caller who leaves ends the work.
Rule 2: compatible means equal names, types and trailing shapes; the queue belongs to one artefact,
so versions and models never meet.
Rule 3: a request that is bad, cancelled or late fails alone. A batch that fails is run again
request by request; a cancelled request is dropped from the queue, or its result discarded.
Rule 4: a full queue refuses at once.
Rule 5: a batch that is known to be shorter than a change of threads runs on the loop itself
(pace.py); every other runs in the one thread that is handed in.
Rule 6: a model whose signature does not batch runs each request alone, with the shapes it came in.
Boundary: asyncio. Rows are slices, never shared writable memory.
Read next: pace.py (what is known of a model's speed), fleet.py (who owns the queues).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import DeadlinePassed, ModelFailed, ModelNotReady, Overloaded, RunnerError
from .model import Model
from .pace import Pace
from .tensor import Array, Batch

__all__ = ["Answer", "Batcher"]


_Key = tuple[tuple[str, str, tuple[int, ...]], ...]
_ANY: _Key = ()  # the signature fixes every type and trailing dimension, so all are compatible


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
class _Call:
    batch: Batch
    rows: int
    key: _Key
    future: asyncio.Future[Answer]
    deadline: float | None
    queued: float
    timer: asyncio.TimerHandle | None = None


class Batcher:
    """The queue in front of one model."""

    def __init__(
        self, model: Model, executor: Executor, *, max_rows: int = 64, max_queued_rows: int = 2048
    ) -> None:
        """Own the queue of `model`; `executor` has one thread that no other model needs."""
        self.model = model
        self._executor = executor
        self._max_rows = max_rows
        self._max_queued = max_queued_rows
        self._alone = model.signature.batching == "none"
        self._queue: deque[_Call] = deque()
        self._queued_rows = 0
        inputs = model.signature.inputs
        self._fixed = bool(inputs) and all(min(spec.shape[1:], default=0) >= 0 for spec in inputs)
        # Where sizes vary with the caller, no batch says how long the next one takes.
        self._pace = Pace() if model.inline and self._fixed and not self._alone else None
        self._turn: asyncio.Handle | None = None
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def infer(self, batch: Batch, rows: int, *, deadline: float | None = None) -> Answer:
        """Answer `rows` rows; `deadline` is a time of `time.monotonic()`, in seconds.

        Raises:
            Overloaded: more than `max_queued_rows` rows would wait.
            DeadlinePassed: the deadline passed while queued or running.
            InputInvalid, ModelFailed: this request's own fault, or the model's.
            ModelNotReady: the model is being unloaded.
        """
        if self._closed:
            raise ModelNotReady(f"model '{self.model.name}' is being unloaded")
        if self._queued_rows and self._queued_rows + rows > self._max_queued:
            raise Overloaded(f"model '{self.model.name}' has {self._queued_rows} rows waiting")
        loop = asyncio.get_running_loop()
        key = _ANY if self._fixed else _key(batch)
        call = _Call(batch, rows, key, loop.create_future(), deadline, time.monotonic())
        self._queue.append(call)
        self._queued_rows += rows
        if self._worker is not None:
            self._arm(call)
        elif self._turn is None:
            self._turn = loop.call_soon(self._gather, len(self._queue))
        try:
            return await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        finally:
            if call.timer is not None:
                call.timer.cancel()

    def _arm(self, call: _Call) -> None:
        """A call that may wait for a thread is watched by the clock."""
        if call.deadline is not None and call.timer is None:
            left = max(0.0, call.deadline - time.monotonic())
            call.timer = asyncio.get_running_loop().call_later(left, self._expire, call)

    def _expire(self, call: _Call) -> None:
        self._withdraw(call)
        if not call.future.done():
            error = DeadlinePassed("the deadline passed before the model answered")
            call.future.set_exception(error)

    def _withdraw(self, call: _Call) -> None:
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
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _gather(self, seen: int) -> None:
        """Begin when a turn of the loop has brought no more calls: what is ready is one batch."""
        if len(self._queue) > seen and self._queued_rows < self._max_rows:
            self._turn = asyncio.get_running_loop().call_soon(self._gather, len(self._queue))
        else:
            self._begin()

    def _begin(self) -> None:
        """Answer short batches at once; the first long one moves the queue to the thread."""
        self._turn = None
        while calls := self._take():
            rows = sum(call.rows for call in calls)
            if self._pace is not None and rows <= self._max_rows and self._pace.short(rows):
                self._run_here(calls)
                continue
            for call in (*calls, *self._queue):
                self._arm(call)
            self._worker = asyncio.get_running_loop().create_task(self._work(calls))
            return

    async def _work(self, calls: list[_Call]) -> None:
        """Run batches until the queue is empty; every call taken gets an answer or an error."""
        try:
            while calls:
                await self._run(calls)
                calls = self._take()
        finally:
            self._worker = None

    def _take(self) -> list[_Call]:
        """Take the oldest live call and every compatible one behind it, in order."""
        taken: list[_Call] = []
        kept: deque[_Call] = deque()
        rows, now = 0, time.monotonic()
        while self._queue:
            call = self._queue.popleft()
            if call.future.done():
                self._queued_rows -= call.rows
            elif call.deadline is not None and call.deadline <= now:
                self._queued_rows -= call.rows
                call.future.set_exception(DeadlinePassed("the deadline passed in the queue"))
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

    def _run_here(self, calls: list[_Call]) -> None:
        started = time.monotonic()
        try:
            outputs = self._checked(self._paced(_join(calls)), calls)
        except RunnerError as exc:
            if len(calls) > 1:
                for call in calls:
                    self._run_here([call])
            else:
                calls[0].future.set_exception(exc)
        else:
            self._hand_out(calls, outputs, started)

    async def _run(self, calls: list[_Call]) -> None:
        started = time.monotonic()
        try:
            outputs = self._checked(await self._infer_pieces(_join(calls), calls), calls)
        except RunnerError as exc:
            await self._run_alone(calls, exc)
        else:
            self._hand_out(calls, outputs, started)

    async def _run_alone(self, calls: list[_Call], error: RunnerError) -> None:
        """A batch failed: the guilty call fails by itself, its peers are answered."""
        if len(calls) > 1:
            for call in calls:
                if not call.future.done():
                    await self._run([call])
        elif not calls[0].future.done():
            calls[0].future.set_exception(error)

    def _hand_out(self, calls: list[_Call], outputs: dict[str, Array], started: float) -> None:
        """Give every caller who still waits its own rows."""
        spent, first = time.monotonic() - started, 0
        rows = min(sum(call.rows for call in calls), self._max_rows)
        for call in calls:
            last = first + call.rows
            if not call.future.done():
                own = outputs
                if not self._alone:
                    own = {name: data[first:last] for name, data in outputs.items()}
                call.future.set_result(Answer(own, started - call.queued, spent, rows))
            first = last

    def _checked(self, outputs: dict[str, Array], calls: list[_Call]) -> dict[str, Array]:
        rows = sum(call.rows for call in calls)
        for data in () if self._alone else outputs.values():
            if data.shape[:1] != (rows,):
                raise ModelFailed(
                    f"'{self.model.name}' gave outputs whose rows are not the batch's"
                )
        return outputs

    async def _infer_pieces(self, batch: Batch, calls: list[_Call]) -> dict[str, Array]:
        """Run a batch; a call of more than `max_rows` rows goes piece by piece."""
        loop, rows = asyncio.get_running_loop(), sum(call.rows for call in calls)
        if rows <= self._max_rows:
            return await loop.run_in_executor(self._executor, self._paced, batch)
        pieces = []
        for first in range(0, rows, self._max_rows):
            if all(call.future.done() for call in calls):
                raise DeadlinePassed("nobody waits for the rest of the rows")
            piece = {name: data[first : first + self._max_rows] for name, data in batch.items()}
            pieces.append(await loop.run_in_executor(self._executor, self._paced, piece))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _paced(self, batch: Batch) -> dict[str, Array]:
        """Run the model, in whatever thread, and note how long it took."""
        try:
            if self._pace is None:
                return self.model.infer(batch)
            began = time.thread_time()
            outputs = self.model.infer(batch)
            self._pace.note(len(next(iter(batch.values()))), time.thread_time() - began)
        except RunnerError:
            raise
        except Exception as exc:  # a backend's own bug: the callers of this batch learn of it
            raise ModelFailed(f"could not run {self.model.name}: {exc!r}") from exc
        return outputs


def _key(batch: Batch) -> _Key:
    return tuple((name, data.dtype.str, data.shape[1:]) for name, data in sorted(batch.items()))


def _join(calls: list[_Call]) -> Batch:
    if len(calls) == 1:
        return calls[0].batch
    return {name: np.concatenate([call.batch[name] for call in calls]) for name in calls[0].batch}
