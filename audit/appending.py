"""What every appender offers beside `submit`: the same words, in one place.

Rule 1: an appender stores the bytes of an event and tells once how it ended (`submit`). That an
event has bytes, a subject and payloads, and that a task can wait for the end, follows here: for the
notary, for its client and for the double in testing.py alike.
Rule 2: a caller that gave up is not told; what it appended is not called back.
Read next: notary.py (who stores), link_client.py (who asks).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

from .blobfile import Payload, as_payloads
from .errors import AuditError
from .events import Event
from .receipts import Durability, Receipt, Told
from .record import encode, subject_of

__all__ = ["NO_PAYLOADS", "EventAppender"]

NO_PAYLOADS: Mapping[str, bytes] = {}


class EventAppender(ABC):
    """Appends events where `submit` appends their bytes."""

    async def append(
        self,
        event: Event,
        *,
        payloads: Mapping[str, bytes] = NO_PAYLOADS,
        subject: str | None = None,
        durability: Durability | None = None,
    ) -> Receipt:
        """Store an event; returns when it is as durable as asked.

        Args:
            event: what happened.
            payloads: bodies by name, encrypted beside the log, durable before the event; found
                again under the event's decision id.
            subject: whose data the payloads are, for erasure; the decision itself if None.
            durability: overrides the appender's.

        Raises:
            EventInvalid, EntryTooLarge, EventConflict: the event cannot be stored; do not retry.
            LogUnavailable: it was not acknowledged; retry with the same event id.
        """
        decision_id = subject_of(event)
        return await self.append_encoded(
            event.id,
            encode(event),
            payloads=as_payloads(decision_id, payloads, subject or decision_id),
            durability=durability,
        )

    async def append_encoded(
        self,
        event_id: str,
        data: bytes,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,
    ) -> Receipt:
        """As `append`, for bytes that `encode` made."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def told(receipt: Receipt | None, error: AuditError | None) -> None:
            if future.done():
                return  # its caller gave up
            if receipt is not None:
                future.set_result(receipt)
            elif error is not None:
                future.set_exception(error)

        self.submit(event_id, data, told, payloads=payloads, durability=durability)
        return await future

    @abstractmethod
    def submit(
        self,
        event_id: str,
        data: bytes,
        told: Told,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,
        once: bool = False,
    ) -> None:
        """As `append_encoded`, for callers without a task: `told` learns how it ended, once.

        It may be told before this returns. With `once` its caller vouches that nobody has sent this
        id before or ever will again, so it need not be remembered.
        """
