"""What was asked of the notary and not answered yet: numbered, bounded, each for so long.

Rule 1: each call is answered once: by the notary, by a refusal, or because its time is over.
Rule 2: what waits is bounded in number and bytes; beyond that it is LogOverloaded. One call alone
may be of any size that a frame has.
Rule 3: the bytes of a call are kept until it is answered, to be sent again.
Boundary: no clock, no connection. Read next: link_client.py (who sends), wire.py (the bytes).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from .errors import AuditError, LogOverloaded, LogUnavailable
from .wire import DONE, STORED, format_frame, parse_refusal

__all__ = ["Answer", "Answered", "Calls"]

_MAX_WAITING = 16_384
_MAX_WAITING_BYTES = 256 << 20
_LAST_NUMBER = 0xFFFFFFFF


class Answer(NamedTuple):
    """What the notary said to one call: STORED or DONE, and its body."""

    kind: int
    body: bytes


Answered: TypeAlias = Callable[[Answer | None, AuditError | None], None]


class _Call(NamedTuple):
    frame: bytes
    answered: Answered
    until: float


class Calls:
    """The calls of one client, over all its connections."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Call] = {}
        self._bytes = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, kind: int, body: bytes, answered: Answered, until: float) -> bytes:
        """Take a call that is to be answered by then; the frame to send.

        Raises:
            LogOverloaded: too much waits; `answered` will not be called.
        """
        waiting = len(self._waiting)
        if waiting >= _MAX_WAITING or (waiting and self._bytes + len(body) > _MAX_WAITING_BYTES):
            raise LogOverloaded(f"could not store a record: {waiting} are waiting")
        self._number = self._number % _LAST_NUMBER + 1
        frame = format_frame(self._number, kind, body)
        self._waiting[self._number] = _Call(frame, answered, until)
        self._bytes += len(frame)
        return frame

    def answer(self, number: int, kind: int, body: bytes) -> None:
        """Take what the notary says to one call; nothing if its caller was told before.

        Raises:
            ValueError: it makes no sense.
        """
        call = self._pop(number)
        if call is None:
            return
        if kind in (STORED, DONE):
            call.answered(Answer(kind, body), None)
        else:
            call.answered(None, parse_refusal(body))

    def refuse_overdue(self, now: float, why: str) -> None:
        """Refuse the calls whose time is over."""
        for number in [n for n, call in self._waiting.items() if call.until < now]:
            if (call := self._pop(number)) is not None:
                call.answered(None, LogUnavailable(why))

    def refuse_all(self, why: str) -> None:
        """Refuse every call."""
        calls, self._waiting, self._bytes = self._waiting, {}, 0
        for call in calls.values():
            call.answered(None, LogUnavailable(why))

    def frames(self) -> Iterator[bytes]:
        """All that waits, in order, to be sent on another connection."""
        for call in self._waiting.values():
            yield call.frame

    def _pop(self, number: int) -> _Call | None:
        call = self._waiting.pop(number, None)
        if call is not None:
            self._bytes -= len(call.frame)
        return call
