"""Natural batching: many callers, one session, no timer.

Rule 1: while one batch runs, requests queue; the next batch is everything compatible in the queue,
up to `max_rows`. Nobody waits for company. A call of more rows than that runs in pieces, so that
the memory of a batch is bounded and a caller who leaves ends the work.
Rule 2: compatible means equal names, types and trailing shapes; the queue belongs to one artefact,
so versions and models never meet.
Rule 3: a request that is bad, cancelled or late fails alone. A batch that fails is run again
request by request; a cancelled request is dropped from the queue, or its result discarded.
Rule 4: a full queue refuses at once.
Rule 5: a model whose signature does not batch runs each request alone, with the shapes it came in.
Boundary: asyncio; the model runs in the one thread that is handed in. Rows are slices, never shared
writable memory.
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
from .tensor import Array, Batch

__all__ = ["Answer", "Batcher"]


class Answer(NamedTuple):
    """What one caller gets: its own rows, and where its time went (seconds)."""

    outputs: dict[str, Array]
    queue_s: float
    infer_s: float


@dataclass(slots=True, eq=False)
class _Call:
    batch: Batch
    rows: int
    key: tuple[tuple[str, str, tuple[int, ...]], ...]
    future: asyncio.Future[Answer]
    deadline: float | None
    queued: float


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
        call = _Call(batch, rows, _key(batch), loop.create_future(), deadline, time.monotonic())
        self._queue.append(call)
        self._queued_rows += rows
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        left = None if deadline is None else max(0.0, deadline - call.queued)
        try:
            async with asyncio.timeout(left):
                return await call.future
        except TimeoutError as exc:
            self._withdraw(call)
            raise DeadlinePassed("the deadline passed before the model answered") from exc
        except asyncio.CancelledError:
            self._withdraw(call)
            raise

    def _withdraw(self, call: _Call) -> None:
        """Nobody waits for `call`: if it still queues, its place is free at once."""
        if call in self._queue:
            self._queue.remove(call)
            self._queued_rows -= call.rows

    async def close(self) -> None:
        """Refuse new requests, answer what is queued, then return."""
        self._closed = True
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        """Run batches until the queue is empty; every call taken gets an answer or an error."""
        try:
            while calls := self._take():
                await self._run(calls)
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

    async def _run(self, calls: list[_Call]) -> None:
        started = time.monotonic()
        try:
            outputs = await self._infer(calls)
        except RunnerError as exc:
            await self._run_alone(calls, exc)
            return
        spent = time.monotonic() - started
        first = 0
        for call in calls:
            last = first + call.rows
            if self._alone and not call.future.done():
                call.future.set_result(Answer(outputs, started - call.queued, spent))
            elif not call.future.done():
                own = {name: data[first:last] for name, data in outputs.items()}
                call.future.set_result(Answer(own, started - call.queued, spent))
            first = last

    async def _run_alone(self, calls: list[_Call], error: RunnerError) -> None:
        """A batch failed: the guilty call fails by itself, its peers are answered."""
        if len(calls) > 1:
            for call in calls:
                if not call.future.done():
                    await self._run([call])
        elif not calls[0].future.done():
            calls[0].future.set_exception(error)

    async def _infer(self, calls: list[_Call]) -> dict[str, Array]:
        rows = sum(call.rows for call in calls)
        try:
            outputs = await self._infer_pieces(_join(calls), rows, calls)
        except RunnerError:
            raise
        except Exception as exc:  # a backend's own bug: the callers of this batch learn of it
            raise ModelFailed(f"could not run {self.model.name}: {exc!r}") from exc
        if not self._alone and any(data.shape[:1] != (rows,) for data in outputs.values()):
            raise ModelFailed(f"'{self.model.name}' gave outputs whose rows are not the batch's")
        return outputs

    async def _infer_pieces(self, batch: Batch, rows: int, calls: list[_Call]) -> dict[str, Array]:
        """Run a batch; a call of more than `max_rows` rows goes piece by piece."""
        infer, loop = self.model.infer, asyncio.get_running_loop()
        if rows <= self._max_rows:
            return await loop.run_in_executor(self._executor, infer, batch)
        pieces = []
        for first in range(0, rows, self._max_rows):
            if all(call.future.done() for call in calls):
                raise DeadlinePassed("nobody waits for the rest of the rows")
            piece = {name: data[first : first + self._max_rows] for name, data in batch.items()}
            pieces.append(await loop.run_in_executor(self._executor, infer, piece))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _key(batch: Batch) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, data.dtype.str, data.shape[1:]) for name, data in sorted(batch.items()))


def _join(calls: list[_Call]) -> Batch:
    if len(calls) == 1:
        return calls[0].batch
    return {name: np.concatenate([call.batch[name] for call in calls]) for name in calls[0].batch}
