"""From one answer to one decision record: what is said of it in the log, and what is kept.

Rule 1: nothing personal in clear: the unit is a keyed hash, input and output are commitments under
a nonce of their own, group counts and the nonce are sealed under the subject's key.
Rule 2: whether a decision is explained is drawn from its id with the epoch's committed key, before
anyone has seen it; the payloads of a selected decision are kept, encrypted, with its record, unless
the policy for its model says otherwise (payloadpolicy.py).
Boundary: knows the rooms' values on both sides; no protocol, no files, no event loop.
Read next: recorder.py (numbers, and the way to the log).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from audit.blobfile import Payload, as_payloads
from audit.canonical import dumps_checked
from audit.entropy import random_bytes
from audit.form import DecisionForm
from audit.keys import Keyring
from audit.keytree import Sealer
from audit.mac import Mac
from audit.nodeids import NodeIds
from audit.record import decimal, now_us
from audit.sample import Sampler, Selection
from runners.batch import Answer
from runners.fleet import Slot
from runners.tensor import Batch, pack

from .durability import DurabilityPolicy
from .labels import Labels, read_labels
from .payloadpolicy import SAMPLED, PayloadPolicy
from .protected import Group, count_groups
from .router import Choice

if TYPE_CHECKING:
    from .dataplane import Request

__all__ = ["DecisionWriter", "Prepared", "Recorded", "Taken", "prepare"]

_KEPT_FORMS = 1024
_NONCE_BYTES = 16
_ON_DEMAND = Selection("on_demand", "1", selected=True)


class Prepared(NamedTuple):
    """What of a record grows with the rows; made ahead for a large request (large.py)."""

    labels: Labels
    packed_in: bytes
    packed_out: bytes
    groups: list[Group]


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
    prepared: Prepared | None = None


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


class DecisionWriter:
    """Writes the records of one process's decisions."""

    def __init__(
        self,
        keyring: Keyring,
        seals: Sealer,
        sampler: Sampler,
        *,
        instance: str,
        durability: DurabilityPolicy,
        policy: PayloadPolicy = SAMPLED,
    ) -> None:
        """`instance` names the process, `durability` what is promised, in every record."""
        self._policy = policy
        self._keyring = keyring
        self._seals = seals
        self._sampler = sampler
        self._instance = instance
        self._durability = durability
        self._forms: dict[Hashable, DecisionForm] = {}
        self.ids = NodeIds()

    def write(self, taken: Sequence[Taken], *, first_seq: int) -> list[Recorded]:
        """The records of some answers, numbered from `first_seq`.

        One kind of work is done for all of them before the next: it costs half as much as doing
        all work for one after the other, because the processor's caches are small.

        Raises:
            AuditError: one of them cannot be recorded.
        """
        new = self.ids.new
        ids = [new() for _ in taken]
        nonces = [random_bytes(_NONCE_BYTES) for _ in taken]
        labels = list(map(_labels, taken))
        inputs = list(map(_packed_in, taken))
        outputs = list(map(_packed_out, taken))
        commitments = list(map(_commit, nonces, inputs, outputs))
        secrets = list(map(_secret, taken, labels, nonces))
        units = list(map(self._unit_ref, taken, ids))
        sealed = list(map(self._seals.seal, secrets, units, ids))
        selections = list(map(self._select, taken, labels, ids))
        forms = list(map(self._form, taken))
        time_us, records = now_us(), []
        for place, one in enumerate(taken):
            request, answer, score = one.request, one.answer, labels[place].score
            assignment, trace = one.choice.assignment, request.trace
            selection, packed_in, packed_out = selections[place], inputs[place], outputs[place]
            data = forms[place].write(
                id=ids[place],
                time_us=time_us,
                seq=first_seq + place,
                slot=assignment.slot if assignment else None,
                unit_ref=units[place],
                input_commitment=commitments[place][0],
                output_commitment=commitments[place][1],
                sealed=sealed[place],
                rows=one.rows,
                labels=labels[place].all,
                score=decimal(score) if score is not None and one.rows == 1 else None,
                selection=selection,
                trace_id=trace.trace_id,
                span_id=trace.span_id,
                queue_us=round(answer.queue_s * 1e6),
                infer_us=round(answer.infer_s * 1e6),
                total_us=(one.inferred_ns - request.started_ns) // 1000,
            )
            payloads: tuple[Payload, ...] = ()
            size = max(len(packed_in), len(packed_out))
            # The explainer skips a decision without payloads.
            if self._policy.keeps(request.model, size, selected=selection.selected):
                kept = {"input": packed_in, "output": packed_out}
                payloads = as_payloads(ids[place], kept, units[place])
            records.append(Recorded(ids[place], units[place], data, payloads))
        return records

    def _unit_ref(self, taken: Taken, decision_id: str) -> str:
        request = taken.request
        return self._keyring.unit_ref(request.unit or request.request_id or decision_id)

    def _select(self, taken: Taken, labels: Labels, decision_id: str) -> Selection:
        if taken.request.on_demand:
            return _ON_DEMAND
        threshold = taken.slot.manifest.threshold
        return self._sampler.select(
            decision_id,
            score=labels.score,
            threshold=float(threshold) if threshold else None,
            rows=taken.rows,
        )

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
            instance=self._instance,
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
            durability=self._durability.of(route),
        )
        return form


def prepare(taken: Taken) -> Prepared:
    """The parts of a record that take long where there are many rows; pure, for any thread."""
    labels = _labels(taken)
    return Prepared(labels, _packed_in(taken), _packed_out(taken), _groups(taken, labels))


def _labels(taken: Taken) -> Labels:
    if taken.prepared is not None:
        return taken.prepared.labels
    return read_labels(taken.slot.manifest, taken.answer.outputs, taken.rows)


def _packed_in(taken: Taken) -> bytes:
    return pack(taken.batch) if taken.prepared is None else taken.prepared.packed_in


def _packed_out(taken: Taken) -> bytes:
    return pack(taken.answer.outputs) if taken.prepared is None else taken.prepared.packed_out


def _groups(taken: Taken, labels: Labels) -> list[Group]:
    if taken.prepared is not None:
        return taken.prepared.groups
    manifest, attributes = taken.slot.manifest, taken.request.attributes
    return count_groups(manifest, taken.batch, attributes, labels.all)


def _commit(nonce: bytes, packed_in: bytes, packed_out: bytes) -> tuple[str, str]:
    code = Mac(nonce).digest
    return code(packed_in).hex(), code(packed_out).hex()


def _secret(taken: Taken, labels: Labels, nonce: bytes) -> bytes:
    """What is sealed: rows by protected group, and the nonce that opens the commitments."""
    groups = _groups(taken, labels)
    return dumps_checked({"groups": groups, "nonce": nonce.hex()})  # of our own making
