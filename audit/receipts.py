"""Receipts, and which events have one already.

Rule: an event id is stored once. The same bytes under the same id get the same receipt; other
bytes raise EventConflict. The last 65,536 events are remembered here, older ones by olderids.py.
Read next: notary.py.
"""

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import orjson

from .blobfile import Payload
from .errors import AuditError, EventConflict

_LOGGER = logging.getLogger("weighbridge.audit")
Durability: TypeAlias = Literal["strict", "bounded", "async"]

RECENT_EVENTS = 65_536


PROMISED = -1


class Receipt(NamedTuple):
    """Proof-to-be that a record is stored: which log, which leaf, and the leaf's hash.

    `index` is PROMISED for a "bounded" append: the leaf has a hash already, and no place yet.
    """

    origin: str
    index: int  # type: ignore[assignment]  # a leaf's, and hides tuple.index
    leaf_hash: bytes

    def __str__(self) -> str:
        """As callers get it: `origin#index`, or `origin#sha256:` and the leaf's hash."""
        if self.index == PROMISED:
            return f"{self.origin}#sha256:{self.leaf_hash.hex()}"
        return f"{self.origin}#{self.index}"


Told: TypeAlias = Callable[[Receipt | None, AuditError | None], None]
"""Who is told how an append ended: with a receipt, or with an error."""


class Asked(NamedTuple):
    """An append as it was asked for."""

    event_id: str
    data: bytes
    leaf: bytes
    told: Told
    payloads: tuple[Payload, ...]
    durability: Durability | None


def tell(told: Told, receipt: Receipt | None, error: AuditError | None) -> None:
    """Tell one; what it makes of that must not keep the others of its group from being told."""
    try:
        told(receipt, error)
    except Exception as unforeseen:  # noqa: BLE001  its own fault; said without what it holds
        _LOGGER.error("whoever was told of a record met a %s", type(unforeseen).__name__)


Known: TypeAlias = tuple[bytes, Receipt | None]
"""An event's leaf hash, and its receipt; None while it is under way."""


class RecentEvents:
    """The receipts of the last events; None for those under way.

    They are forgotten by the thousand, a generation at a time: taking the oldest out of a dict, one
    by one, costs ten times as much as everything else here.

    Args:
        limit: so many events are remembered at least, and half as many more at most.
        forgotten: told a generation that is remembered no more, and the greatest id in it.
    """

    def __init__(
        self,
        limit: int = RECENT_EVENTS,
        forgotten: Callable[[dict[str, Known], str], None] = lambda *_: None,
    ) -> None:
        self._size = max(limit // 2, 1)
        self._forgotten = forgotten
        self._young: dict[str, Known] = {}
        self._greatest = ""
        self._old: dict[str, Known] = {}
        self._old_greatest = ""
        self._oldest: dict[str, Known] = {}
        self._oldest_greatest = ""

    def find(self, event_id: str, leaf: bytes) -> Known | None:
        """The leaf hash and the receipt of an event; None if nothing is known of it.

        Raises:
            EventConflict: its id was used for other content.
        """
        known = self._young.get(event_id) or self._old.get(event_id) or self._oldest.get(event_id)
        if known is not None and known[0] != leaf:
            raise EventConflict(f"could not store event {event_id}: its id names other content")
        return known

    def put(self, event_id: str, leaf: bytes, receipt: Receipt | None) -> None:
        """Remember an event, or that its receipt has come."""
        young = self._young
        if event_id not in young:
            for generation in (self._old, self._oldest):
                if event_id in generation:
                    generation[event_id] = (leaf, receipt)
                    return
            self._greatest = max(self._greatest, event_id)
        young[event_id] = (leaf, receipt)
        if len(young) > self._size:
            gone, greatest = self._oldest, self._oldest_greatest
            self._oldest, self._oldest_greatest = self._old, self._old_greatest
            self._old, self._old_greatest = young, self._greatest
            self._young, self._greatest = {}, ""
            if gone:
                self._forgotten(gone, greatest)

    def forget(self, event_id: str) -> None:
        """Its append failed: the next one is a first one."""
        for generation in (self._young, self._old, self._oldest):
            generation.pop(event_id, None)


def event_id_in(data: bytes) -> str:
    """The id in an entry's bytes; empty if it has none."""
    body = orjson.loads(data)
    return str(body.get("id", "")) if isinstance(body, dict) else ""
