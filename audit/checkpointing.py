"""When the log is signed: at an interval, sooner when it grew much, and whenever somebody asks.

Rule 1: one thread signs and, between two checkpoints, prepares the next one, in short pieces, since
the event loop cannot go on meanwhile.
Rule 2: what cannot be signed is signed at the next round; receipts stay valid, and `failure` says
so to whoever watches.
Boundary: how a tree is built and signed is publish.py's; here is only when, and in which thread.
Read next: notary.py (who owns it), publish.py.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from .log import Log
from .note import Checkpoint, Signer

__all__ = ["Checkpoints"]

_LOGGER = logging.getLogger("weighbridge.audit")
_T = TypeVar("_T")
_PREPARE_ENTRIES = 512
_PAUSE_S = 5e-5


class Checkpoints:
    """Signs one log, in a thread of its own, for an event loop.

    Attributes:
        failure: why the last checkpoint could not be signed; None if it was.
        on_signed: called after each, in that thread.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._signer = ThreadPoolExecutor(1, thread_name_prefix="audit-signer")
        self._due = asyncio.Event()
        self._entries = 0
        self._prepared = log.position.leaves
        self._regularly: asyncio.Task[None] | None = None
        self.failure: str | None = None
        self.on_signed: Callable[[], None] = lambda: None

    def start(self, *, interval_s: float, entries: int) -> None:
        """Sign a grown log every `interval_s`, and sooner after so many entries."""
        self._log.pause_with(lambda: time.sleep(_PAUSE_S))
        self._entries = entries
        self._regularly = asyncio.create_task(self._sign_regularly(interval_s))

    def grown(self, size: int) -> None:
        """Say how many leaves the log has."""
        if size >= self._prepared + min(_PREPARE_ENTRIES, self._entries):
            self._prepared = size
            self._due.set()

    async def now(self) -> Checkpoint:
        """Sign everything durable.

        Raises:
            LogUnavailable: the disk refused; the last checkpoint stands.
        """
        return await self.in_thread(self._sign)

    async def rotate(self, signer: Signer, leaf: int) -> Checkpoint:
        """Let another key sign from now on; see Log.rotate."""
        signed = await self.in_thread(lambda: self._log.rotate(signer, leaf))
        self.on_signed()
        return signed

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Do something while nothing is signed."""
        return await self._loop.run_in_executor(self._signer, work)

    async def stop(self) -> None:
        """Sign a last time, if it can be; afterwards nothing is signed any more."""
        if self._regularly is not None:
            self._regularly.cancel()
            with suppress(asyncio.CancelledError):
                await self._regularly
        await self._try()
        self._signer.shutdown()

    async def _sign_regularly(self, interval_s: float) -> None:
        until = self._loop.time() + interval_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._due.wait()
            self._due.clear()
            unsigned = self._log.position.leaves - self._log.signed.size
            if unsigned >= self._entries or self._loop.time() >= until:
                until = self._loop.time() + interval_s
                if unsigned:
                    await self._try()
            else:
                with suppress(Exception):  # signing meets it again, and says so
                    await self.in_thread(self._log.prepare)

    async def _try(self) -> None:
        try:
            await self.now()
        except Exception as error:  # noqa: BLE001 - signing must go on; readiness shows why
            before, self.failure = self.failure, str(error)
            if before != self.failure:  # once a second the same would fill another disk
                _LOGGER.warning("could not sign a checkpoint: %s", error)
        else:
            if self.failure is not None:
                _LOGGER.warning("checkpoints are signed again")
            self.failure = None

    def _sign(self) -> Checkpoint:
        signed = self._log.publish()
        self.on_signed()
        return signed
