"""The queue of a model in this process: in a thread of its own, or on the loop itself.

Rule: a batch that is known to be shorter than a change of threads runs on the loop (pace.py); every
other runs in the one thread that is handed in, one at a time.
Boundary: asyncio; how calls meet and part is batchqueue.py's.
Read next: pace.py (what is known of a model's speed), fleet.py (who owns the queues).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor

from .batchqueue import Answer, BatchQueue, Queued
from .errors import ModelFailed, RunnerError
from .model import Model
from .pace import Pace
from .tensor import Array, Batch

__all__ = ["Answer", "Batcher"]


class Batcher(BatchQueue):
    """The queue in front of one loaded model."""

    def __init__(
        self, model: Model, executor: Executor, *, max_rows: int = 64, max_queued_rows: int = 2048
    ) -> None:
        """Own the queue of `model`; `executor` has one thread that no other model needs."""
        super().__init__(
            model.name,
            model.signature,
            max_rows=max_rows,
            max_queued_rows=max_queued_rows,
            depth=1,
        )
        self.model = model
        self._executor = executor
        # Where sizes vary with the caller, no batch says how long the next one takes.
        self._pace = Pace() if model.inline and self._fixed and not self._alone else None

    def _short(self, rows: int) -> bool:
        return self._pace is not None and self._pace.short(rows)

    def _compute_here(self, batch: Batch, rows: int) -> Answer:
        started = time.monotonic()
        outputs = self._paced(batch)
        return Answer(outputs, 0.0, time.monotonic() - started, rows)

    async def _compute(self, batch: Batch, rows: int, _: Sequence[Queued]) -> Answer:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(self._executor, self._paced, batch)
        return Answer(outputs, 0.0, time.monotonic() - started, rows)

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
