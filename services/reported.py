"""The outcomes reported so far, asked from an event loop: the book, and in memory what is newer.

Rule 1: an outcome is noted here when its record is durable, and stays until the book has read that
record. So it is found at any time, and what is in memory is bounded: the book is brought up to date
after each `_MANY` outcomes, and once a minute.
Rule 2: the book is used in one thread of its own, in pieces; nothing here waits for a disk.
Rule 3: where the book cannot be written, what was noted stays in memory until it can: reports are
answered all the same.
Rule 4: outcomes that others bring (`heard`) are read before the next question; into memory, where
the book cannot be written. A question that would pass over them is refused.
Rule 5: leaves are pruned when the book has read them, and will outlast a power cut (`keep`).
Boundary: asyncio. Read next: outcomes.py (who asks), outcomebook.py.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from audit.errors import AuditError, LogUnavailable
from audit.keys import Keyring
from audit.notary import Notary

from .facts import Fact
from .outcomebook import Ahead, Leaves, Named, Naming, OutcomeBook
from .outcomefile import Stands, reason
from .tasks import begin

__all__ = ["OutcomesBehind", "Reported", "open_reported"]

log = logging.getLogger("weighbridge")
OUTCOMES: Final = "outcomes/1"
OUTCOMES_NAME: Final = "outcomes.sqlite"
_MANY: Final = 4096
_EVERY_S: Final = 60.0
_T = TypeVar("_T")


async def _settled() -> None:
    """Nothing is on its way."""


class OutcomesBehind(LogUnavailable):
    """Leaves may not be pruned now: the outcomes in them would not be known any more."""


class Reported:
    """What is on record under each event id; made by `open`.

    Attributes:
        name: gives an outcome's key and content.
        facts: what the log said of models when this was opened.
    """

    def __init__(
        self,
        book: OutcomeBook,
        thread: ThreadPoolExecutor,
        settled: Callable[[], Awaitable[None]] = _settled,
    ) -> None:
        """`thread` has one thread, which alone uses `book`; see `open`."""
        self.name: Naming = book.name
        self.facts: list[Fact] = book.facts
        self._book, self._thread, self._settled = book, thread, settled
        self._noted: OrderedDict[bytes, Stands] = OrderedDict()
        self._passing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._heard = self._failing = self._closed = False
        self._ahead = 0  # what others brought below this leaf is noted here, or in the book
        self._task = begin(self._keep_up(), "noting outcomes")

    @classmethod
    async def open(
        cls,
        path: Path,
        secret: bytes,
        reader: Leaves,
        *,
        settled: Callable[[], Awaitable[None]] = _settled,
    ) -> Reported:
        """Open the book at `path`, and read what it lacks.

        Args:
            path: of its file.
            secret: the key of its hashes.
            reader: of the log; nobody else may use it.
            settled: waits until what was told so far is durable.

        Raises:
            LogDamaged: the log cannot be read.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        run = asyncio.get_running_loop().run_in_executor
        try:
            return cls(await run(thread, OutcomeBook, path, secret, reader), thread, settled)
        except BaseException:  # re-raised: only the thread must not stay
            thread.shutdown(wait=False)
            raise

    @property
    def in_memory(self) -> int:
        """How many outcomes are noted that the book has not read."""
        return len(self._noted)

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Stands]:
        """What is on record under these keys.

        Raises:
            LogUnavailable: this is closed, or what others brought cannot be read now.
            LogDamaged: the book's file failed, and the log cannot be read either.
        """
        if self._closed:
            raise LogUnavailable("could not look up outcomes: the log is closed")
        if self._heard:
            await self._listen()
        elif len(self._noted) >= 2 * _MANY and not self._failing:
            await self.catch_up()
        found = {key: self._noted[key] for key in keys if key in self._noted}
        rest = [key for key in keys if key not in found]
        return found | await self._run(lambda: self._book.find(rest)) if rest else found

    def note(self, named: Named, leaf: int) -> None:
        """Remember an outcome that is on record at `leaf`."""
        self._noted[named.key] = Stands(leaf, named.content)
        if len(self._noted) >= _MANY and not self._failing:
            self._wake.set()

    def heard(self) -> None:
        """Somebody else brought an outcome, or may have."""
        self._heard = True

    async def catch_up(self) -> None:
        """Have the book read what the log has by now, and forget what it knows then."""
        async with self._passing:
            try:
                while not await self._run(self._book.catch_up):
                    self._forget()
                self._forget()
                self._failing = False
            except (sqlite3.DatabaseError, AuditError, OSError) as error:
                if not self._failing:
                    log.warning(
                        "the outcomes on record could not be noted down (%s): they are remembered "
                        "in memory until they can",
                        reason(error),
                    )
                self._failing = True

    async def keep(self, upto: int) -> None:
        """Have the book know all outcomes in leaves below `upto` for good, before these are pruned.

        Raises:
            OutcomesBehind: it does not; they must stay.
        """
        if not self._closed:
            await self.catch_up()
        why = "they are remembered in memory alone"
        try:
            if not self._closed and await self._run(lambda: self._book.keep(upto)):
                return
        except (sqlite3.DatabaseError, OSError) as error:
            why = reason(error)
        raise OutcomesBehind(
            f"could not note down the outcomes below leaf {upto} in {OUTCOMES_NAME}, so that "
            f"their records may be pruned: {why}"
        )

    async def close(self) -> None:
        """Bring the book up to date and release it. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.catch_up()
        await self._run(self._book.close)
        self._thread.shutdown()

    async def _listen(self) -> None:
        """Know what others brought."""
        self._heard = False
        try:
            await self._settled()
            await self.catch_up()
            if self._failing:
                await self._look_ahead()
        except BaseException:  # re-raised: only the next question has to read it, then
            self._heard = True
            raise

    async def _look_ahead(self) -> None:
        try:
            while not (ahead := await self._run(lambda: self._book.ahead(self._ahead))).all:
                self._note_all(ahead)
            self._note_all(ahead)
        except (sqlite3.DatabaseError, AuditError, OSError) as error:
            raise LogUnavailable(
                f"could not look up outcomes: the newest cannot be read ({reason(error)})"
            ) from error

    def _note_all(self, ahead: Ahead) -> None:
        for key, stands in ahead.outcomes.items():
            self._noted.setdefault(key, stands)
        self._ahead = ahead.end

    async def _keep_up(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _EVERY_S)
            self._wake.clear()
            await self.catch_up()

    def _forget(self) -> None:
        """Drop what the book has; notes come in the order of their leaves, or nearly."""
        while self._noted and next(iter(self._noted.values())).leaf < self._book.covered:
            self._noted.popitem(last=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def open_reported(notary: Notary, keyring: Keyring) -> Reported:
    """What is on record in the log that this process keeps.

    Raises:
        LogDamaged: the log cannot be read.
    """

    async def settled() -> None:
        await notary.in_writer(lambda _: None)

    return await Reported.open(
        notary.directory / OUTCOMES_NAME,
        keyring.derived(OUTCOMES),
        notary.reader(),
        settled=settled,
    )
