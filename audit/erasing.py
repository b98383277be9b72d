"""Erasing a subject, and the legal holds that forbid it: what the log says, and the deed.

Rule 1: an erasure is recorded before its keys are destroyed. If we crash in between, or somebody
puts an old key file back, the log still says what must be gone, and `finish` destroys it again.
Rule 2: a hold stands from its record to the record of its release; the log is the only place where
holds are kept, so a restart changes nothing.
Rule 3: erasing twice is erasing once: a second record is made only where the subject has come back.
But no answer says that a subject is erased before its keys are gone: where the deed failed after
the record, asking again goes on with it.
Rule 4: the place of the record divides what goes from what stays: the payloads of all records
before it go, and no other. So the record is written and the data keys are destroyed with nothing
written in between; where the destroying fails, no new payload is put under these keys. A sealed
part is another matter: its gateway seals it before the record has a place, with keys that it holds
until it is told of the erasure. One sealed with the old key goes, also if its record comes after.
Boundary: asyncio, through the one writer (notary.py); files are read in a thread.
Read next: standing.py (what the log says), subjects.py (the data keys), seals.py (the keys of
sealed parts), socket_link.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from .errors import EventInvalid, HoldStands, LogUnavailable, NotFound
from .events import Erasure, LegalHold
from .log import Log
from .notary import Notary
from .record import new_id, now_us
from .sealfiles import is_erased
from .seals import Seals
from .snapshot import STANDING
from .standing import Standing

__all__ = ["Erased", "Erasing"]

_LOGGER = logging.getLogger("weighbridge.audit")
_MAX_TEXT = 1024


class Erased(NamedTuple):
    """What an erasure did.

    Attributes:
        leaf: of the record that says so.
        keys: data keys that were destroyed now.
        again: nothing had come since an earlier erasure, whose leaf this is.
    """

    leaf: int
    keys: int
    again: bool


class Held(NamedTuple):
    """What holding a subject, or ending a hold on it, did.

    Attributes:
        leaf: of the record that says so.
        holds: how many stand on the subject now.
        known: whether the log held anything about it before; False is certain.
    """

    leaf: int
    holds: int
    known: bool


class Erasing:
    """Erases and holds, one at a time, through the notary of this process.

    Attributes:
        on_erased: told of each subject after its keys are gone.
    """

    def __init__(self, notary: Notary, seals: Seals) -> None:
        """Nothing is read before the first call; `seals` are those of the log's decisions."""
        self._seals = seals
        self._notary = notary
        self._standing = Standing(notary.directory / STANDING, seals.derived(STANDING))
        self._reader = notary.reader()
        self._one = asyncio.Lock()
        self._undone: set[str] = set()  # erasures whose deed was begun here, and is not done
        self.on_erased: Callable[[str], None] = lambda _: None

    async def erase(self, unit_ref: str, *, actor: str, reason: str) -> Erased:
        """Make a subject's payloads and sealed parts unreadable for everyone, and record it.

        Args:
            unit_ref: the subject, as records name it.
            actor: who does it.
            reason: why; both are in clear in the log.

        Raises:
            EventInvalid: the reason or the actor is empty or too long.
            NotFound: the log knows no such subject.
            HoldStands: it must be kept.
            LogUnavailable: the disk refused. If the record was made, asking again goes on.
        """
        _check(actor, reason)
        async with self._one:
            await asyncio.to_thread(self._standing.catch_up, self._reader)
            if holds := self._standing.holds.get(unit_ref):
                stand = "; ".join(
                    f"a legal hold by {held.actor} stands on it ({held.reason})"
                    for held in holds.values()
                )
                raise HoldStands(f"could not erase {unit_ref}: {stand}; release it first")
            slots = await self._notary.in_writer(lambda log: log.key_slots(unit_ref))
            if not slots and not self._standing.mentions.perhaps(unit_ref):
                raise NotFound(f"could not erase {unit_ref}: the log holds nothing about it")
            before = self._standing.erasures.get(unit_ref, [])
            earlier = [event for _, event in before]
            newest = self._standing.newest.get(unit_ref.encode(), 0)
            back = newest > self._standing.erased_at.get(unit_ref, 0)  # or may be, after a pruning
            if before and not back and _slots_of(earlier).issuperset(slots):
                destroyed = await self._deed(unit_ref, earlier)
                return Erased(before[-1][0], destroyed, again=True)
            event, receipt = await self._notary.append_and(
                lambda log: Erasure(
                    id=new_id(),
                    time_us=now_us(),
                    unit_ref=unit_ref,
                    actor=actor,
                    reason=reason,
                    key_slots=log.key_slots(unit_ref),
                ),
                # If we crash before this, `finish` does it: the log says that the keys are gone.
                lambda log: _destroy(log, unit_ref),
            )
            self._undone.add(event.id)
            await self._deed(unit_ref, [*earlier, event])
            return Erased(receipt.index, len(event.key_slots), again=False)

    async def _deed(self, unit_ref: str, events: list[Erasure]) -> int:
        """Destroy what these records of one subject say is gone; how many data keys were there.

        What failed in this process is done again even if it looks done: a sync may have failed.
        """
        slots = sorted(_slots_of(events))
        destroyed = await self._destroy_slots(slots)
        left = [event for event in events if not self._is_gone(event)]
        for event in left:
            await self._puncture(event.unit_ref, event.id)
        if left or destroyed:
            self.on_erased(unit_ref)  # who was lent keys must not use them any more
        return destroyed

    async def _destroy_slots(self, slots: list[int]) -> int:
        """Destroy the data keys in these slots; how many were live."""
        return await self._notary.in_writer(lambda log: log.destroy_slots(slots)) if slots else 0

    async def hold(self, unit_ref: str, *, actor: str, reason: str, release: bool = False) -> Held:
        """Forbid the erasure of a subject, or end one hold on it, the oldest.

        A subject that the log does not know yet may be held, too. It may be erased when as many
        holds were released as there were.

        Raises:
            EventInvalid: the reason or the actor is empty or too long.
            NotFound: there is no hold to release.
            LogUnavailable: the disk refused.
        """
        _check(actor, reason)
        async with self._one:
            await asyncio.to_thread(self._standing.catch_up, self._reader)
            if release and unit_ref not in self._standing.holds:
                raise NotFound(f"could not release {unit_ref}: no legal hold stands on it")
            known = self._standing.mentions.perhaps(unit_ref)
            receipt = await self._notary.append(
                LegalHold(
                    id=new_id(),
                    time_us=now_us(),
                    unit_ref=unit_ref,
                    action="release" if release else "hold",
                    actor=actor,
                    reason=reason,
                ),
                durability="strict",
            )
            await asyncio.to_thread(self._standing.catch_up, self._reader)
            standing = len(self._standing.holds.get(unit_ref, ()))
            return Held(receipt.index, standing, known)

    async def finish(self) -> int:
        """Destroy again what recorded erasures say is gone; how many keys had come back.

        Raises:
            LogDamaged, LogUnavailable: the files could not be read or written.
        """
        async with self._one:
            await asyncio.to_thread(self._standing.catch_up, self._reader)
            events = [event for found in self._standing.erasures.values() for _, event in found]
            slots = sorted(_slots_of(events))
            revived = await self._destroy_slots(slots)
            for event in events:
                if not self._is_gone(event):
                    await self._puncture(event.unit_ref, event.id)
                    revived += 1
        if revived:
            _LOGGER.warning("%d erased keys were there again and are destroyed", revived)
        return revived

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Standing]:
        """What the log says now; nobody erases, holds or releases until the block ends."""
        async with self._one:
            await asyncio.to_thread(self._standing.catch_up, self._reader)
            yield self._standing

    def _is_gone(self, event: Erasure) -> bool:
        """Whether no key of sealed parts is left of what an erasure took."""
        if event.id in self._undone:
            return False
        try:
            return is_erased(self._reader.directory, event.unit_ref, event.id)
        except OSError as exc:
            raise LogUnavailable(f"could not look at a key of sealed parts: {exc}") from exc

    async def _puncture(self, unit_ref: str, erasure: str) -> None:
        self._undone.add(erasure)
        try:
            await asyncio.to_thread(self._seals.puncture, unit_ref, erasure)
        except OSError as exc:
            raise LogUnavailable(f"could not destroy a key of sealed parts: {exc}") from exc
        self._undone.discard(erasure)


def _destroy(log: Log, unit_ref: str) -> None:
    with suppress(LogUnavailable):  # `_deed` tries again and says so; the keys take nothing new
        log.destroy(unit_ref)


def _slots_of(events: list[Erasure]) -> set[int]:
    return {slot for event in events for slot in event.key_slots}


def _check(actor: str, reason: str) -> None:
    for name, text in (("actor", actor), ("reason", reason)):
        if not text.strip() or len(text) > _MAX_TEXT:
            raise EventInvalid(f"could not go on: the {name} must have 1 to {_MAX_TEXT} characters")
