"""How long a model's batches take: whether one may run on the event loop itself.

Rule 1: a change of threads and back costs a small model several times its own work, so a batch that
is shorter runs where it stands. Until enough batches of a size were measured, none is short.
Rule 2: the slowest of the last batches counts, in time on the processor: waiting for other threads
is not the model's, and one long batch sends the size back to the thread.
Boundary: for models that do nothing but compute on this processor (`Model.inline`); one that waits
for a card, a network or a lock would stop the loop without using the processor.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

_SHORT_S = 0.0008
_MEASURED = 4
_KEPT = 64


class Pace:
    """What the last batches of one model took, by the power of two that holds their rows."""

    def __init__(self) -> None:
        self._taken: dict[int, deque[float]] = {}
        self._slowest: dict[int, float] = {}

    def short(self, rows: int) -> bool:
        """Whether a batch of `rows` rows is known to be short."""
        return self._slowest.get(rows.bit_length(), _SHORT_S) < _SHORT_S

    @contextmanager
    def measured(self, rows: int) -> Iterator[None]:
        """Note the processor time of what runs inside, in this thread."""
        began = time.thread_time()
        try:
            yield
        finally:
            self.note(rows, time.thread_time() - began)

    def note(self, rows: int, seconds: float) -> None:
        """Note one batch."""
        size = rows.bit_length()
        taken = self._taken.setdefault(size, deque(maxlen=_KEPT))
        taken.append(seconds)
        if len(taken) >= _MEASURED:
            self._slowest[size] = max(taken)
