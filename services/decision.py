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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from audit.blobs import MAX_PAYLOAD_BYTES
from audit.canonical import dumps_checked
from audit.entropy import random_bytes
from audit.errors import AuditError
from audit.keys import Keyring
from audit.notary import Receipt
from audit.record import Decision, Event, Gap, commitment, decimal, new_id, now_us
from audit.sample import Sampler, Selection
from runners.batch import Answer
from runners.fleet import Slot
from runners.manifest import Manifest
from runners.tensor import Array, Batch, pack

from .protected import count_groups
from .router import Choice

if TYPE_CHECKING:
    from .dataplane import Request

__all__ = ["Appender", "Recorder", "Taken"]


class Appender(Protocol):
    """Where records go: the notary in this process, or its client."""

    async def append(
        self, event: Event, *, payloads: Mapping[str, bytes] = ..., subject: str | None = None
    ) -> Receipt:
        """Return once the record is as durable as configured."""


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


class _Labels(NamedTuple):
    all: list[str]
    score: float | None


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
        self._lost: list[int] = []
        self._settling: set[asyncio.Task[None]] = set()

    async def record(self, taken: Taken) -> tuple[Decision, Receipt]:
        """Append the decision; returns after it is as durable as configured.

        Raises:
            AuditError: it was not recorded, so the answer must not leave.
        """
        labels = _labels(taken)
        if self._lost:
            await self._explain_gaps()
        self.seq += 1
        seq = self.seq
        try:
            event, payloads = self._build(taken, labels, seq)
            receipt = await self._appender.append(event, payloads=payloads, subject=event.unit_ref)
        except Exception:  # re-raised: whatever it was, this number has no record
            self._lost.append(seq)
            raise
        except asyncio.CancelledError:
            # The caller went away while the record was on its way: somebody must learn whether it
            # arrived, or its number would be a hole that nothing explains.
            settling = asyncio.create_task(self._settle(event, payloads))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
            raise
        self.recorded += 1
        return event, receipt

    async def _settle(self, event: Decision, payloads: Mapping[str, bytes]) -> None:
        """Ask for the same record again: an id that the log holds makes no second one."""
        try:
            await self._appender.append(event, payloads=payloads, subject=event.unit_ref)
        except AuditError:
            self._lost.append(event.seq)
        else:
            self.recorded += 1

    def _build(
        self, taken: Taken, labels: _Labels | None, seq: int
    ) -> tuple[Decision, dict[str, bytes]]:
        request, choice, manifest = taken.request, taken.choice, taken.slot.manifest
        assignment = choice.assignment
        decision_id, now, nonce = new_id(), now_us(), random_bytes(16)
        packed = {"input": pack(taken.batch), "output": pack(taken.answer.outputs)}
        counts = _counts(labels.all) if labels else {}
        score = labels.score if labels else None
        threshold = manifest.threshold
        selection = self._select(decision_id, score, threshold, taken)
        groups = count_groups(
            manifest, taken.batch, request.attributes, labels.all if labels else []
        )
        secret = dumps_checked({"groups": groups, "nonce": nonce.hex()})  # of our own making
        one = labels is not None and taken.rows == 1
        event = Decision(
            id=decision_id,
            time_us=now,
            instance=self.instance,
            seq=seq,
            origin=request.origin,
            route=request.model,
            unit_ref=self._keyring.unit_ref(request.unit or request.request_id or decision_id),
            unit_source=request.unit_source,
            experiment=assignment.experiment if assignment else None,
            experiment_version=assignment.experiment_version if assignment else None,
            epoch=assignment.epoch if assignment else 0,
            slot=assignment.slot if assignment else None,
            arm_assigned=assignment.arm if assignment else None,
            arm_served=choice.arm,
            propensity=assignment.propensity if assignment else None,
            reason=choice.reason,
            model=manifest.name,
            version=manifest.version,
            digest=manifest.digest,
            runtime=taken.slot.runtime,
            device=taken.slot.device,
            input_commitment=commitment(nonce, packed["input"]),
            output_commitment=commitment(nonce, packed["output"]),
            sealed=self._keyring.seal(secret, decision_id),
            rows=taken.rows,
            label_counts=counts,
            label=labels.all[0] if one and labels else None,
            score=decimal(score) if one and score is not None else None,
            threshold=threshold,
            sampling={
                "rule": selection.rule,
                "probability": selection.probability,
                "selected": selection.selected,
            },
            trace_id=f"{request.trace.trace_id:032x}",
            span_id=f"{request.trace.span_id:016x}",
            latency_us={
                "queue": round(taken.answer.queue_s * 1e6),
                "infer": round(taken.answer.infer_s * 1e6),
                "total": (taken.inferred_ns - request.started_ns) // 1000,
            },
            durability=self._durability,
        )
        kept = selection.selected and all(len(p) <= MAX_PAYLOAD_BYTES for p in packed.values())
        return event, packed if kept else {}  # the explainer skips a decision without payloads

    def _select(
        self, decision_id: str, score: float | None, threshold: str | None, taken: Taken
    ) -> Selection:
        if taken.request.on_demand:
            return Selection("on_demand", "1", selected=True)
        return self._sampler.select(
            decision_id,
            score=score,
            threshold=float(threshold) if threshold else None,
            rows=taken.rows,
        )

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


def _labels(taken: Taken) -> _Labels | None:
    """The label of each row, and the score of the first; None for a model without labels."""
    manifest, outputs = taken.slot.manifest, taken.answer.outputs
    found = outputs.get(manifest.label_output) if manifest.labels else None
    if found is None or not found.size or found.size % taken.rows:
        return None
    places = found.reshape(taken.rows, -1)[:, 0].tolist()
    if manifest.options:  # a registered model promises nothing about its labels
        known = _places(manifest, places)
        if known is None:
            return None
        places = known
    return _Labels([manifest.labels[place] for place in places], _score(manifest, outputs, places))


def _places(manifest: Manifest, found: list[Any]) -> list[int] | None:
    """Where each answered label stands in `labels`; None when one of them is none of these."""
    names = {name.encode(): place for place, name in enumerate(manifest.labels)}
    places = [names.get(label, -1) if isinstance(label, bytes) else label for label in found]
    held = range(len(manifest.labels))
    return places if all(isinstance(p, int) and p in held for p in places) else None


def _score(manifest: Manifest, outputs: Mapping[str, Array], places: list[int]) -> float | None:
    """The first row's probability of the positive label, or of its own label without one."""
    probabilities = outputs.get(manifest.score_output)
    if probabilities is None:
        return None
    place = places[0]
    if manifest.positive_label is not None and manifest.threshold is not None:
        place = manifest.labels.index(manifest.positive_label)
    if probabilities.ndim != 2 or probabilities.shape[1] <= place:
        return None
    score = float(probabilities[0, place])
    return score if np.isfinite(score) else None


def _counts(labels: list[str]) -> dict[str, int]:
    counts: dict[str, Any] = dict.fromkeys(labels, 0)
    for label in labels:
        counts[label] += 1
    return counts
