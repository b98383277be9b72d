"""What was just made durable, kept until it is in the tree: so that nobody need read it back.

Reading a group again, checking it and hashing its entries costs the signer's thread four times what
building tiles from it does, and a busy loop waits for the interpreter meanwhile.
Rule 1: a group comes here after its commit and not before, so what is here is in the log.
Rule 2: nothing depends on it. Where it has a hole, or was thrown away because the signer did not
come by, the log is read.
Boundary: one thread adds, another takes; both only use what a deque does in one step.
Read next: publish.py (who takes), log.py (who adds).
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Fresh", "Stored"]

_MOST_BYTES = 16 << 20


class Stored(NamedTuple):
    """A group in the log: its first leaf, its entries, their hashes, and their bundle's bytes."""

    first: int
    entries: Sequence[bytes]
    leaves: Sequence[bytes]
    bundle: bytes


class Fresh:
    """The last groups, in order."""

    def __init__(self) -> None:
        self._groups: deque[Stored] = deque()
        self._added = self._taken = 0  # bytes, each counted by its own thread

    def add(self, group: Stored) -> None:
        """Keep a group that is durable and committed."""
        if self._added - self._taken > _MOST_BYTES:
            self._groups.clear()
            self._added = self._taken
        self._groups.append(group)
        self._added += len(group.bundle)

    def take(self, size: int, upto: int) -> Stored | None:
        """The group that begins at leaf `size` and ends by `upto`, if it is here."""
        try:
            while True:
                group = self._groups[0]
                if group.first > size or group.first + len(group.entries) > upto:
                    return None
                self._groups.popleft()
                self._taken += len(group.bundle)
                if group.first == size:
                    return group
        except IndexError:  # no more, or thrown away meanwhile
            return None
