"""How long a model's batches take: whether one may run on the event loop itself.

Rule 1: a change of threads and back costs a small model several times its own work, so a batch that
is shorter runs where it stands. Until enough batches of a size were measured, none is short.
Rule 2: the slowest of the last batches counts, in time on the processor: waiting for other threads
is not the model's, and one long batch sends the size back to the thread.
Boundary: for models that do nothing but compute on this processor (`Model.inline`); one that waits
for a card, a network or a lock would stop the loop without using the processor.
"""

from __future__ import annotations

__all__ = ["Pace"]

_SHORT_S = 0.002
_MEASURED = 4
_KEPT = 64


class _Size:
    """Batches of one size: the slowest of this window and of the one before."""

    __slots__ = ("before", "count", "known", "slowest")

    def __init__(self) -> None:
        self.count, self.slowest, self.before, self.known = 0, 0.0, 0.0, False


class Pace:
    """What the last batches of one model took, by the power of two that holds their rows."""

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}

    def short(self, rows: int) -> bool:
        """Whether a batch of `rows` rows is known to be short."""
        size = self._sizes.get(rows.bit_length())
        return size is not None and size.known and max(size.slowest, size.before) < _SHORT_S

    def note(self, rows: int, seconds: float) -> None:
        """Note one batch and its processor time."""
        size = self._sizes.get(rows.bit_length())
        if size is None:
            size = self._sizes[rows.bit_length()] = _Size()
        size.count += 1
        size.slowest = max(size.slowest, seconds)
        if size.count == _MEASURED:
            size.known = True
        if size.count == _KEPT:
            size.count, size.before, size.slowest = 0, size.slowest, 0.0
