"""What becomes of an append whose id was seen before: the same receipt, a refusal, or a wait.

Rule 1: an id is stored once (notary.py, rule 6). Who asks for the same again while it is under way
is told with the first; who asks for it "strict" while it is only promised is told once it is
stored, or that the disk refused.
Rule 2: of older events only ids are kept (olderids.py); one that may be there is first looked for
in the log, by a task, and the same again waits for that.
Rule 3: ids of `once` appends are not remembered; `own` tells them by their form (nodeids.py) for as
long as the process lives, and the next one reads them from the log (`pass_over`).
Boundary: the notary's event loop. Nothing is stored here: a new id goes to `put`.
Read next: receipts.py (what is remembered), notary.py (who asks).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from .errors import AuditError, EventConflict, LogUnavailable
from .olderids import OlderIds
from .reader import LogReader
from .receipts import PROMISED, Asked, Receipt, RecentEvents, Told, tell

__all__ = ["KnownIds"]


class KnownIds:
    """The ids of one log, for the tasks of one event loop.

    Args:
        directory: the log's.
        reader: makes a reader of it.
        origin: the log's name, for receipts.
        remembered: how many events are remembered whole.
        under_way: how many appends there may be at once.
        put: stores an append that turned out to be new.
        refuse: raises where no append is taken now.

    Attributes:
        own: which ids are of `once` appends.
    """

    def __init__(
        self,
        directory: Path,
        reader: Callable[[], LogReader],
        *,
        origin: str,
        remembered: int,
        under_way: int,
        put: Callable[[Asked], None],
        refuse: Callable[[], None],
    ) -> None:
        self._origin = origin
        self._put, self._refuse = put, refuse
        self._loop = asyncio.get_running_loop()
        self._older = OlderIds(directory, reader, remembered=remembered, under_way=under_way)
        self._recent = RecentEvents(remembered, forgotten=self._older.add)
        self._asking: set[asyncio.Task[None]] = set()
        self._joined: dict[str, list[Told]] = {}
        self._doubting: dict[str, list[Told]] = {}  # a promise is not enough for these
        self.own: Callable[[str], bool] = lambda _: False

    def open(self, size: int) -> None:
        """Learn the ids of the log's `size` leaves: a retry after a restart finds its record."""
        self._older.open(
            size, lambda name, leaf, index: self.put(name, leaf, Receipt(self._origin, index, leaf))
        )

    def settles(self, asked: Asked) -> bool:
        """Take an append whose id is known, or may be; False for a new one, which is for `put`.

        Raises:
            EventConflict: its id names other content.
            AuditError: it is new, and none is taken now.
        """
        event_id, told = asked.event_id, asked.told
        if self.own(event_id):
            raise EventConflict(
                f"could not store event {event_id}: the notary's process gave this id"
            )
        known = self._recent.find(event_id, asked.leaf)
        if known is None:
            self._refuse()
            leaves = self._older.find(event_id) if event_id <= self._older.newest else []
            if leaves:
                self._compare_older(asked, leaves)
            return bool(leaves)
        receipt = known[1]
        if receipt is None:
            self._joined.setdefault(event_id, []).append(told)
        elif receipt.index != PROMISED or asked.durability == "bounded":
            told(receipt, None)
        else:
            self._doubting.setdefault(event_id, []).append(told)
        return True

    def put(self, event_id: str, leaf: bytes, receipt: Receipt | None) -> None:
        """Remember an event, or that its receipt has come."""
        self._recent.put(event_id, leaf, receipt)

    def pass_over(self, leaf: int) -> None:
        """Leaves from this one on may be of `once` appends."""
        self._older.pass_over(leaf)

    def forget(self, event_id: str) -> None:
        """Its append failed: the next one is a first one."""
        self._recent.forget(event_id)

    def tell(self, event_id: str, receipt: Receipt | None, error: AuditError | None) -> None:
        """Tell who waits for the append of another how that ended."""
        waiting = self._joined.pop(event_id, []) if self._joined else []
        if self._doubting and error is None:
            waiting += self._doubting.pop(event_id, [])
        for told in waiting:
            tell(told, receipt, error)

    def refuse_doubting(self, why: str) -> None:
        """Tell all who wait for a promise to be kept that it is not, yet."""
        doubting, self._doubting = self._doubting, {}
        for event_id, waiting in doubting.items():
            for told in waiting:
                tell(told, None, LogUnavailable(f"could not store event {event_id} yet: {why}"))

    async def settle(self, upto: int) -> None:
        """Have the ids of all leaves below `upto` kept apart from them; see OlderIds.settle."""
        await self._older.settle(upto)

    def close(self) -> None:
        """Let go of the files."""
        self._older.close()

    def _compare_older(self, asked: Asked, leaves: list[int]) -> None:
        """An id that an older record may have: look before storing it."""
        self._recent.put(asked.event_id, asked.leaf, None)  # the same again waits for this one
        task = self._loop.create_task(self._compare(asked, leaves))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _compare(self, asked: Asked, leaves: list[int]) -> None:
        """Answer an append whose id an older record may have, and all that joined it."""
        event_id, receipt, refused = asked.event_id, None, None
        try:
            found = await self._older.confirm(leaves, event_id)
            if found is not None and found[1] != asked.leaf:
                raise EventConflict(f"could not store event {event_id}: its id names other content")
            if found is None:
                self._refuse()  # it may have been closed meanwhile
        except AuditError as error:
            refused = error
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the callers learn of it
            refused = LogUnavailable(f"could not store event {event_id}: {type(error).__name__}")
        if refused is not None:
            self._recent.forget(event_id)
        elif found is None:
            self._put(asked)
            return
        else:
            receipt = Receipt(self._origin, found[0], asked.leaf)
            self._recent.put(event_id, asked.leaf, receipt)
        for told in (asked.told, *self._joined.pop(event_id, ())):
            tell(told, receipt, refused)
