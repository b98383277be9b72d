"""The records of one gateway process: numbered, appended together, and no number without a record.

Rule 1: answers that come out of one batch are recorded together: they are written one after the
other, which costs half as much as each by itself, and reach the log in one group.
Rule 2: sequence numbers run 1, 2, 3 … per process; a refused append leaves its number to a `gap`,
which is recorded before any later answer.
Rule 3: a record that is on its way is not called back: when its caller goes away, or has waited too
long (patience.py), it stands, and whether it arrived is learnt all the same.
Boundary: asyncio; what a record says is decision.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Protocol

from audit.blobfile import Payload
from audit.errors import AuditError, LogUnavailable
from audit.keys import Keyring
from audit.keytree import Sealer
from audit.lent_seals import KeyAway
from audit.receipts import Durability, Receipt, Told
from audit.record import Event, Gap, new_id, now_us
from audit.sample import Sampler

from .decision import DecisionWriter, Recorded, Taken
from .durability import STRICT, DurabilityPolicy
from .patience import Patience
from .payloadpolicy import SAMPLED, PayloadPolicy

__all__ = ["Appender", "Recorder"]


class Appender(Protocol):
    """Where records go: the notary in this process, or its client."""

    async def append(
        self,
        event: Event,
        *,
        payloads: Mapping[str, bytes] = ...,
        subject: str | None = None,
        durability: Durability | None = ...,
    ) -> Receipt:
        """Return once the record is as durable as asked, else as configured.

        What takes effect after it, or whose leaf is told, asks for "strict".
        """

    def submit(
        self,
        event_id: str,
        data: bytes,
        told: Told,
        *,
        payloads: tuple[Payload, ...] = ...,
        durability: Durability | None = ...,
        once: bool = ...,
    ) -> None:
        """As `append`, for the bytes of an event; `told` learns how it ended.

        With `once` nobody will ask for it again: its id is new, and this is its only append.
        """


Answered = tuple[Recorded, Receipt]


class _Call(NamedTuple):
    taken: Taken
    future: asyncio.Future[Answered]


class Recorder:
    """Writes the decisions of one gateway process."""

    def __init__(
        self,
        appender: Appender,
        keyring: Keyring,
        seals: Sealer,
        sampler: Sampler,
        *,
        durability: DurabilityPolicy = STRICT,
        policy: PayloadPolicy = SAMPLED,
        patience: Patience | None = None,
    ) -> None:
        """Start a new numbered series; `instance` names it in every record."""
        self._appender = appender
        self._durability = durability
        self.instance = os.urandom(4).hex()
        self._writer = DecisionWriter(
            keyring,
            seals,
            sampler,
            instance=self.instance,
            durability=durability,
            policy=policy,
        )
        self.seq = 0
        self.recorded = 0
        self._patience = patience or Patience()
        self._calls: list[_Call] = []
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._lost: list[int] = []
        self._explaining: set[asyncio.Task[None]] = set()

    def made(self, decision: str) -> bool:
        """Whether a decision's id is of this process."""
        return self._writer.ids.made(decision)

    @property
    def under_way(self) -> int:
        """How many records are on their way: numbered, and neither recorded nor refused."""
        return self._under_way

    async def record(self, taken: Taken) -> Answered:
        """Append the decision; returns after it is as durable as configured.

        Raises:
            AuditError: it was not recorded, so the answer must not leave.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        if not self._calls:
            loop.call_soon(self._begin)
        self._calls.append(_Call(taken, future))
        self._patience.begins(future)
        try:
            return await future
        finally:
            self._patience.ends(future)

    def _begin(self) -> None:
        """Record what this turn of the loop brought."""
        calls, self._calls = self._calls, []
        if not self._lost:
            self._record(calls)
            return
        task = asyncio.get_running_loop().create_task(self._record_after_gaps(calls))
        self._explaining.add(task)
        task.add_done_callback(self._explaining.discard)

    async def _record_after_gaps(self, calls: list[_Call]) -> None:
        try:
            await self._explain_gaps()
        except AuditError as error:
            for call in calls:
                _refuse(call, error)
        else:
            self._record(calls)

    def _record(self, calls: list[_Call]) -> None:
        calls = [call for call in calls if not call.future.done()]
        first, self.seq = self.seq + 1, self.seq + len(calls)
        try:
            written = self._writer.write([call.taken for call in calls], first_seq=first)
        except Exception:  # noqa: BLE001  one of them, whichever: its peers are recorded without it
            for seq, call in enumerate(calls, first):
                self._record_alone(call, seq)
            return
        for seq, (call, record) in enumerate(zip(calls, written, strict=True), first):
            self._submit(call, record, seq)

    def _record_alone(self, call: _Call, seq: int) -> None:
        try:
            (record,) = self._writer.write([call.taken], first_seq=seq)
        except KeyAway as away:
            task = asyncio.get_running_loop().create_task(self._record_later(call, seq, away))
            self._explaining.add(task)
            task.add_done_callback(self._explaining.discard)
        except Exception as error:  # noqa: BLE001  its caller learns of it; the number is lost
            self._lost.append(seq)
            _refuse(call, error)
        else:
            self._submit(call, record, seq)

    async def _record_later(self, call: _Call, seq: int, away: KeyAway) -> None:
        try:
            await away.arrive()
        except AuditError as error:
            self._lost.append(seq)
            _refuse(call, error)
        else:
            self._record_alone(call, seq)

    def _submit(self, call: _Call, record: Recorded, seq: int) -> None:
        self._under_way += 1
        self._idle.clear()
        told = partial(self._told, call, record, seq)
        self._appender.submit(
            record.id,
            record.data,
            told,
            payloads=record.payloads,
            durability=self._durability.of(call.taken.request.model),
            once=True,
        )

    def _told(
        self,
        call: _Call,
        record: Recorded,
        seq: int,
        receipt: Receipt | None,
        error: AuditError | None,
    ) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        if receipt is None:
            self._lost.append(seq)
            _refuse(call, error or LogUnavailable("the record was not stored"))
            return
        self.recorded += 1
        if not call.future.done():
            call.future.set_result((record, receipt))

    async def _explain_gaps(self) -> None:
        """Record the numbers that refused answers used up, before any later answer.

        Raises:
            AuditError: the log still refuses; the numbers are kept for the next time.
        """
        lost, self._lost = sorted(self._lost), []
        first = previous = lost[0]
        ranges = []
        for seq in lost[1:]:
            if seq != previous + 1:
                ranges.append((first, previous))
                first = seq
            previous = seq
        ranges.append((first, previous))
        try:
            await asyncio.gather(*(self._append_gap(low, high) for low, high in ranges))
        except (AuditError, asyncio.CancelledError):
            self._lost.extend(lost)  # a range that did get through is recorded twice, which is fine
            raise

    async def _append_gap(self, low: int, high: int) -> None:
        await self._appender.append(
            Gap(
                id=new_id(),
                time_us=now_us(),
                instance=self.instance,
                first_seq=low,
                last_seq=high,
                reason="refused: the record could not be written",
            )
        )

    async def close(self) -> None:
        """Explain what is still unexplained, if the log lets us."""
        if self._calls:
            self._begin()
        while self._explaining:
            await asyncio.wait(self._explaining)
        await self._idle.wait()
        with contextlib.suppress(AuditError):
            if self._lost:
                await self._explain_gaps()


def _refuse(call: _Call, error: Exception) -> None:
    if not call.future.done():
        call.future.set_exception(error)
