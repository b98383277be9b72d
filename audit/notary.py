"""The notary: many tasks append, one writer groups them, each append returns when it is on disk.

Rules:
1. Natural batching: an idle notary writes at once; what arrives while one fdatasync runs is the
   next group. No timer delays an append.
2. Groups are written on the event loop and synced by another process (groups.py). Whoever waits for
   a group is told in one callback of the loop. Another thread signs (checkpointing.py).
3. A group fails as a whole with LogUnavailable, and nothing in it was acknowledged. The next
   append tries again: there is no broken state that needs a restart.
4. An append that was cancelled is written all the same: its sequence number leaves no gap.
5. A "bounded" append is a promise: its record is queued, and stored within `bound_s` or, while that
   fails, tried again and again, with every later append waiting for the disk. A crash in that time
   loses it, and its number shows as missing. Who sends it again as "strict" waits for the disk.
6. An event id is stored once: appending the same bytes again gives the same receipt, other bytes
   under a used id raise EventConflict, however old it is, also after a restart (knownids.py). The
   maker of a `once` append vouches that its id is new.
Read next: appending.py (an append that a task waits for), groups.py (the writing),
socket_link.py (appending from other processes), reader.py (reading there).
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .appending import EventAppender
from .blobfile import Payload
from .checkpointing import Checkpoints
from .errors import AuditError, LogOverloaded, LogUnavailable
from .events import Event
from .files import FileLayer
from .groups import GroupWriter, Pending
from .keys import Keyring
from .knownids import KnownIds
from .log import Log, Record
from .merkle import leaf_hash
from .note import Checkpoint, Signer, VerifierKey
from .prove import prove
from .reader import LogReader
from .receipts import PROMISED, RECENT_EVENTS, Asked, Durability, Receipt, Told, tell
from .record import encode
from .recovery import RecoveryReport
from .syncer import Syncer
from .wal import SEGMENT_BYTES

__all__ = ["Durability", "Notary", "Receipt"]

_LOGGER = logging.getLogger("weighbridge.audit")
_T = TypeVar("_T")
_E = TypeVar("_E", bound=Event)
_SYNCER_S, _SILENT_S = 1.0, 5.0


class Notary(EventAppender):
    """The one writer of a log, for the tasks of one event loop. Make it with `open`."""

    def __init__(
        self,
        log: Log,
        directory: Path,
        syncer: Syncer,
        *,
        origin: str,
        durability: Durability,
        max_pending: int,
        bound_s: float,
        remembered: int,
    ) -> None:
        self._log = log
        self._directory = directory
        self._origin = origin
        self._durability = durability
        self._max_pending = max_pending
        self._bound_s = bound_s
        self._loop = asyncio.get_running_loop()
        self._groups = GroupWriter(self._loop, log, syncer, self._resolve, self._reject)
        self._closed = False
        self._known = KnownIds(
            directory,
            self.reader,
            origin=origin,
            remembered=remembered,
            under_way=2 * max_pending,
            put=self._put,
            refuse=self._refuse_more,
        )
        self._failure: str | None = None
        self._passed_over = False
        self.checkpoints = Checkpoints(log)

    @classmethod
    async def open(
        cls,
        directory: Path,
        keyring: Keyring,
        *,
        origin: str,
        durability: Durability = "strict",
        checkpoint_interval_s: float = 1.0,
        checkpoint_entries: int = 10_000,
        max_pending: int = 16_384,
        bound_s: float = 0.1,
        segment_bytes: int = SEGMENT_BYTES,
        remembered: int = RECENT_EVENTS,
        files: FileLayer | None = None,
    ) -> "Notary":
        """Take the lock, recover the log, sign a checkpoint, and start.

        Args:
            directory: the log's directory, made if missing.
            keyring: with its signing key.
            origin: the log's name in receipts and checkpoints.
            durability: of appends that do not say; "strict" acknowledges after the fdatasync,
                "bounded" at once, "async" between the write and the fdatasync that follows it.
            checkpoint_interval_s: a grown log is signed at least this often.
            checkpoint_entries: and sooner, after this many records.
            max_pending: appends waiting beyond this are refused with LogOverloaded.
            bound_s: while the oldest record under way is older than this, "bounded" is "strict".
            segment_bytes: size of a write-ahead segment.
            remembered: how many events are remembered whole; of older ones only the ids.
            files: the system calls; the real ones by default.

        Raises:
            LogLocked, LogDamaged, LogUnavailable: see Log.open.
        """
        syncer = Syncer(asyncio.get_running_loop())
        try:
            log = await asyncio.to_thread(
                Log.open,
                directory,
                keyring,
                origin=origin,
                files=files,
                segment_bytes=segment_bytes,
            )
        except BaseException:  # re-raised: only its process must not be left
            syncer.close()
            raise
        notary = cls(
            log,
            directory,
            syncer,
            origin=origin,
            durability=durability,
            max_pending=max_pending,
            bound_s=bound_s,
            remembered=remembered,
        )
        if log.recovered.cut is not None:
            _LOGGER.warning("recovered the log: cut a torn tail, %s", log.recovered.cut)
        try:
            await notary.checkpoints.in_thread(lambda: notary._known.open(notary.size))
            await syncer.started(_SYNCER_S)
        except BaseException:  # re-raised: only the lock must not stay taken
            syncer.close()
            log.close()
            raise
        notary.checkpoints.start(interval_s=checkpoint_interval_s, entries=checkpoint_entries)
        return notary

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._origin

    @property
    def directory(self) -> Path:
        """Where the log lies; for readers."""
        return self._directory

    @property
    def size(self) -> int:
        """How many leaves are durable."""
        return self._log.position.leaves

    def reader(self) -> LogReader:
        """A reader that knows from this process, not from a file, what is durable."""
        return LogReader(self._directory, lambda: self._log.position)

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        return self._log.recovered

    @property
    def failure(self) -> str | None:
        """Why the log takes no records now: what the disk said, or for how long it says nothing."""
        if not self._closed and (ended := self._log.ended()) is not None:
            return ended
        if self._failure is None and (waited := self._groups.behind()) > _SILENT_S:
            return f"the disk has not answered for {waited:.0f} s"
        return self._failure

    def expect(self, callers: Callable[[], int]) -> None:
        """Say how many callers are on their way to an append; see groups.py, rule 2."""
        self._groups.expected = callers

    def own(self, made: Callable[[str], bool]) -> None:
        """Say which ids are of `once` appends: nobody else may use one."""
        self._known.own = made

    @property
    def signed(self) -> Checkpoint:
        """The last signed checkpoint."""
        return self._log.signed

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
        """Queue an event's bytes; see EventAppender.submit. A `once` id is not remembered."""
        durability = durability or self._durability
        remembered = "" if once else event_id
        asked = Asked(remembered, data, leaf_hash(data), told, payloads, durability)
        try:
            if once:
                self._refuse_more()
                if not self._passed_over:
                    self._passed_over = True
                    self._known.pass_over(self.size)
            elif self._known.settles(asked):
                return
        except AuditError as error:
            told(None, error)
            return
        self._put(asked)

    def _put(self, asked: Asked) -> None:
        """Queue an event that is not stored yet."""
        event_id, data, leaf, told, payloads, durability = asked
        record = Record(data, payloads, leaf)
        if durability == "bounded" and self._groups.behind() < self._bound_s:
            promise = Receipt(self._origin, PROMISED, leaf)
            if event_id:
                self._known.put(event_id, leaf, promise)
            self._groups.put(Pending(event_id, record, leaf, durability, None))
            told(promise, None)
            return
        if event_id:
            self._known.put(event_id, leaf, None)
        mode: Durability = "async" if durability == "async" else "strict"
        self._groups.put(Pending(event_id, record, leaf, mode, told))

    def _refuse_more(self) -> None:
        if self._closed:
            raise LogUnavailable("could not store a record: the notary is closed")
        if self._groups.waiting >= self._max_pending:
            raise LogOverloaded(f"could not store a record: {self._groups.waiting} are waiting")

    async def checkpoint(self) -> Checkpoint:
        """Sign everything durable now, rather than at the next interval.

        Raises:
            LogUnavailable: the disk refused; the last checkpoint stands.
        """
        return await self.checkpoints.now()

    @property
    def verifier_key(self) -> VerifierKey:
        """The key that signs checkpoints now."""
        return self._log.key

    async def replace_signer(self, signer: Signer, leaf: int) -> Checkpoint:
        """Let another key sign from now on; `leaf` is the record that says so. See rotating.py.

        Raises:
            LogUnavailable: the disk refused; the old key goes on.
        """
        return await self.checkpoints.rotate(signer, leaf)

    async def prove(self, index: int) -> str:
        """The tlog-proof of a durable leaf, signing a checkpoint first if none covers it."""
        if index >= self.signed.size:
            await self.checkpoint()
        return await asyncio.to_thread(prove, LogReader(self._directory), index)

    async def append_and(
        self, make: Callable[[Log], _E], then: Callable[[Log], object]
    ) -> tuple[_E, Receipt]:
        """Store the event that `make` finds, and do `then`; nothing is written in between.

        Raises:
            LogUnavailable: it was not stored.
            Exception: what `then` raises; the event is stored.
        """
        self._refuse_more()

        def both(log: Log) -> tuple[_E, Receipt]:
            event = make(log)
            data = encode(event)
            leaf = leaf_hash(data)
            receipt = Receipt(self._origin, log.append([Record(data, (), leaf)]), leaf)
            then(log)
            return event, receipt

        event, receipt = await self.in_writer(both)
        self._known.put(event.id, receipt.leaf_hash, receipt)
        self.checkpoints.grown(self.size)
        return event, receipt

    async def in_writer(self, work: Callable[[Log], _T]) -> _T:
        """Do something else with the log while nothing is written to it."""
        return await self._groups.run(lambda: work(self._log))

    async def keep_ids(self, upto: int) -> None:
        """Have the ids of all leaves below `upto` kept apart from them, before they are pruned.

        Raises:
            LogUnavailable: they could not be written.
            LogDamaged: the log could not be read.
        """
        await self._known.settle(upto)

    async def close(self) -> None:
        """Write what is queued, sign a last checkpoint, release the lock. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        lost = await self._groups.drain()
        if lost:
            _LOGGER.error("closing although %d promised records could not be stored", lost)
        self._known.refuse_doubting("the notary is closed")
        await self.checkpoints.stop()
        await asyncio.to_thread(self._known.close)
        await self._groups.run(self._log.close)
        self._groups.shutdown()

    def _tell(
        self, pending: Pending, receipt: Receipt | None, error: AuditError | None = None
    ) -> None:
        """Tell everyone who waits for one append how it ended."""
        if pending.told is not None:
            tell(pending.told, receipt, error)
        if pending.event_id:
            self._known.tell(pending.event_id, receipt, error)

    # --- on the loop ------------------------------------------------------------------------

    def _resolve(self, group: list[tuple[int, Pending]]) -> None:
        for index, pending in group:
            receipt = Receipt(self._origin, index, pending.leaf)
            if pending.event_id:
                self._known.put(pending.event_id, pending.leaf, receipt)
            self._tell(pending, receipt)
        self._failure = None
        self.checkpoints.grown(self.size)

    def _reject(self, group: list[Pending], error: AuditError) -> None:
        if self._failure is None:
            _LOGGER.error("the audit log is unavailable: %s", error)
        self._failure = str(error)
        for pending in group:
            self._known.forget(pending.event_id)
            refusal = LogUnavailable(str(error))
            refusal.__cause__ = error
            self._tell(pending, None, refusal)  # nobody, if it was acknowledged before the sync
        self._known.refuse_doubting(str(error))  # tried again, with or without them
