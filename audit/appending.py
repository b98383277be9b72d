"""What every appender offers beside `append_encoded`: the same words, in one place.

Rule: an appender stores the bytes of an event (`append_encoded`); that an event has bytes, a
subject and payloads follows here, for a notary's client and for the double in testing.py alike.
Read next: notary.py (who stores), link_client.py (who asks).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from .blobs import Payload, as_payloads
from .events import Event
from .receipts import Durability, Receipt
from .record import encode, subject_of

__all__ = ["NO_PAYLOADS", "EventAppender"]

NO_PAYLOADS: Mapping[str, bytes] = {}


class EventAppender(ABC):
    """Appends events where `append_encoded` appends their bytes."""

    async def append(
        self,
        event: Event,
        *,
        payloads: Mapping[str, bytes] = NO_PAYLOADS,
        subject: str | None = None,
        durability: Durability | None = None,
    ) -> Receipt:
        """Store an event; returns when it is as durable as asked. See Notary.append.

        Raises:
            EventInvalid, EntryTooLarge, EventConflict: the event cannot be stored.
            LogUnavailable: it was not acknowledged; retry with the same event id.
        """
        decision_id = subject_of(event)
        kept = as_payloads(decision_id, payloads, subject or decision_id)
        return await self.append_encoded(
            event.id, encode(event), payloads=kept, durability=durability
        )

    @abstractmethod
    async def append_encoded(
        self,
        event_id: str,
        data: bytes,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,
    ) -> Receipt:
        """As `append`, for bytes that `encode` made; see Notary.append_encoded."""
