"""From one answer to one decision record: what is said of it in the log, and what is kept.

Rule 1: nothing personal in clear: the unit is a keyed hash, input and output are commitments under
a nonce of their own, group counts and the nonce are sealed.
Rule 2: sequence numbers run 1, 2, 3 … per process; a refused append leaves its number to a `gap`.
Rule 3: whether a decision is explained is drawn from its id with the epoch's committed key, before
anyone has seen it; the payloads of a selected decision are kept, encrypted, with its record.
Boundary: knows the rooms' values on both sides; no protocol, no files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from audit.blobs import MAX_PAYLOAD_BYTES, Payload, as_payloads
from audit.canonical import dumps_checked
from audit.entropy import random_bytes
from audit.errors import AuditError
from audit.form import DecisionForm
from audit.keys import Keyring
from audit.mac import Mac
from audit.notary import Receipt
from audit.record import Event, Gap, decimal, new_id, now_us
from audit.sample import Sampler, Selection
from runners.batch import Answer
from runners.fleet import Slot
from runners.tensor import Batch, pack

from .labels import Labels, read_labels
from .protected import count_groups
from .router import Choice

if TYPE_CHECKING:
    from .dataplane import Request

__all__ = ["Appender", "Recorded", "Recorder", "Taken"]

_KEPT_FORMS = 1024
_ON_DEMAND = Selection("on_demand", "1", selected=True)


class Appender(Protocol):
    """Where records go: the notary in this process, or its client."""

    async def append(
        self, event: Event, *, payloads: Mapping[str, bytes] = ..., subject: str | None = None
    ) -> Receipt:
        """Return once the record is as durable as configured."""

    def append_encoded(
        self, event_id: str, data: bytes, *, payloads: tuple[Payload, ...] = ...
    ) -> Awaitable[Receipt]:
        """As `append`, for the bytes of an event."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One answer, before it is recorded."""

    request: Request
    choice: Choice
    slot: Slot
    batch: Batch
    answer: Answer
    rows: int
    inferred_ns: int


class Recorded(NamedTuple):
    """A decision as it goes into the log.

    Attributes:
        id: the decision's.
        unit_ref: whom it was about, keyed.
        data: the entry's bytes.
        payloads: input and output, where they are kept.
    """

    id: str
    unit_ref: str
    data: bytes
    payloads: tuple[Payload, ...]


class Recorder:
    """Writes the decisions of one gateway process."""

    def __init__(
        self, appender: Appender, keyring: Keyring, sampler: Sampler, *, durability: str
    ) -> None:
        """Start a new numbered series; `instance` names it in every record."""
        self._appender = appender
        self._keyring = keyring
        self._sampler = sampler
        self._durability = durability
        self.instance = os.urandom(4).hex()
        self.seq = 0
        self.recorded = 0
        self._forms: dict[Hashable, DecisionForm] = {}
        self._lost: list[int] = []
        self._settling: set[asyncio.Task[None]] = set()

    async def record(self, taken: Taken) -> tuple[Recorded, Receipt]:
        """Append the decision; returns after it is as durable as configured.

        Raises:
            AuditError: it was not recorded, so the answer must not leave.
        """
        labels = read_labels(taken.slot.manifest, taken.answer.outputs, taken.rows)
        if self._lost:
            await self._explain_gaps()
        self.seq += 1
        seq = self.seq
        try:
            written = self._write(taken, labels, seq)
            receipt = await self._append(written)
        except Exception:  # re-raised: whatever it was, this number has no record
            self._lost.append(seq)
            raise
        except asyncio.CancelledError:
            # The caller went away while the record was on its way: somebody must learn whether it
            # arrived, or its number would be a hole that nothing explains.
            settling = asyncio.create_task(self._settle(written, seq))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
            raise
        self.recorded += 1
        return written, receipt

    def _append(self, written: Recorded) -> Awaitable[Receipt]:
        return self._appender.append_encoded(written.id, written.data, payloads=written.payloads)

    async def _settle(self, written: Recorded, seq: int) -> None:
        """Ask for the same record again: an id that the log holds makes no second one."""
        try:
            await self._append(written)
        except AuditError:
            self._lost.append(seq)
        else:
            self.recorded += 1

    def _write(self, taken: Taken, labels: Labels, seq: int) -> Recorded:
        request, choice, answer = taken.request, taken.choice, taken.answer
        manifest = taken.slot.manifest
        decision_id, time_us, nonce = new_id(), now_us(), random_bytes(16)
        packed_in, packed_out = pack(taken.batch), pack(answer.outputs)
        commit = Mac(nonce).digest
        selection = _ON_DEMAND
        if not request.on_demand:
            threshold = float(manifest.threshold) if manifest.threshold else None
            selection = self._sampler.select(
                decision_id, score=labels.score, threshold=threshold, rows=taken.rows
            )
        groups = count_groups(manifest, taken.batch, request.attributes, labels.all)
        secret = dumps_checked({"groups": groups, "nonce": nonce.hex()})  # of our own making
        unit_ref = self._keyring.unit_ref(request.unit or request.request_id or decision_id)
        assignment, trace, score = choice.assignment, request.trace, labels.score
        data = self._form(taken).write(
            id=decision_id,
            time_us=time_us,
            seq=seq,
            slot=assignment.slot if assignment else None,
            unit_ref=unit_ref,
            input_commitment=commit(packed_in).hex(),
            output_commitment=commit(packed_out).hex(),
            sealed=self._keyring.seal(secret, decision_id),
            rows=taken.rows,
            labels=labels.all,
            score=decimal(score) if score is not None and taken.rows == 1 else None,
            selection=selection,
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            queue_us=round(answer.queue_s * 1e6),
            infer_us=round(answer.infer_s * 1e6),
            total_us=(taken.inferred_ns - request.started_ns) // 1000,
        )
        payloads: tuple[Payload, ...] = ()
        # The explainer skips a decision without payloads.
        if selection.selected and max(len(packed_in), len(packed_out)) <= MAX_PAYLOAD_BYTES:
            kept = {"input": packed_in, "output": packed_out}
            payloads = as_payloads(decision_id, kept, unit_ref)
        return Recorded(decision_id, unit_ref, data, payloads)

    def _form(self, taken: Taken) -> DecisionForm:
        """The form of all decisions that agree with this one in what a form shares."""
        request, choice, slot = taken.request, taken.choice, taken.slot
        assignment, digest, route = choice.assignment, slot.manifest.digest, request.model
        key = (
            request.origin,
            request.unit_source,
            route,
            digest,
            slot.device,
            slot.runtime,
            choice.reason,
            choice.arm,
            assignment and (assignment[:3], assignment[4:]),  # all but its slot
        )
        form = self._forms.get(key)
        if form is not None:
            return form
        if len(self._forms) >= _KEPT_FORMS:
            self._forms.clear()
        manifest = slot.manifest
        form = self._forms[key] = DecisionForm(
            instance=self.instance,
            origin=request.origin,
            route=route,
            unit_source=request.unit_source,
            experiment=assignment.experiment if assignment else None,
            experiment_version=assignment.experiment_version if assignment else None,
            epoch=assignment.epoch if assignment else 0,
            arm_assigned=assignment.arm if assignment else None,
            arm_served=choice.arm,
            propensity=assignment.propensity if assignment else None,
            reason=choice.reason,
            model=manifest.name,
            version=manifest.version,
            digest=digest,
            runtime=slot.runtime,
            device=slot.device,
            threshold=manifest.threshold,
            durability=self._durability,
        )
        return form

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
        if self._settling:
            await asyncio.wait(self._settling)
        with contextlib.suppress(AuditError):
            if self._lost:
                await self._explain_gaps()
