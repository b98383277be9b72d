"""Decision ids that say by themselves which process made them.

    UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, 12 of microseconds (6.2, method 3), 30 random
    bits, 32 bits that name the process: a pseudorandom node id (6.4)
Rule 1: one process never makes two equal ids, even within a microsecond: they take turns.
Rule 2: whoever repeats an id repeats its node. So a notary tells that an id is one of its own
process's decisions without remembering any of them (notary.py, `own`), which would cost more than
storing them.
Boundary: one event loop; another's id looks like an own one once in 2^32.
"""

from collections.abc import Callable

from .entropy import random_bytes
from .record import now_us

__all__ = ["NodeIds"]

_NODE_BYTES = 4
_VERSION, _VARIANT = 0x7 << 76, 0b10 << 62
_MOST_MS, _MOST_RANDOM = (1 << 48) - 1, (1 << 30) - 1
_NEAR_US = 1000


class NodeIds:
    """Makes the ids of one process.

    Args:
        clock: Unix microseconds.
        random: gives that many random bytes.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = now_us,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._clock, self._random = clock, random
        node = random(_NODE_BYTES)
        self._node, self._ends = int.from_bytes(node, "big"), node.hex()
        self._last_us = 0

    def new(self) -> str:
        """An id that was never made before."""
        now = self._clock()
        if 0 <= self._last_us - now < _NEAR_US:  # not where a clock was set back
            now = self._last_us + 1
        self._last_us = now
        milliseconds, microseconds = divmod(now, 1000)
        random = int.from_bytes(self._random(4), "big") & _MOST_RANDOM
        value = (milliseconds & _MOST_MS) << 80 | (microseconds * 4096 // 1000) << 64
        text = f"{value | _VERSION | _VARIANT | random << 32 | self._node:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def made(self, event_id: str) -> bool:
        """Whether this process made it."""
        return event_id.endswith(self._ends)
