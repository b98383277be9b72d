"""Decision records as a gateway makes them, one after the other: ids, nonces, seals, commitments.

Rule: nothing is made before it is asked for, so whoever measures appends measures the making, too.
Each is about another input and output; its leaf has 1.1 kB, and with payloads it brings an input of
512 bytes (a packed row of the income model) and an output of 64.
Read next: appends.py.
"""

from __future__ import annotations

from typing import NamedTuple

from audit.blobs import Payload, as_payloads
from audit.canonical import dumps_checked
from audit.entropy import random_bytes
from audit.form import DecisionForm
from audit.keys import Keyring
from audit.mac import Mac
from audit.record import new_id, now_us
from audit.sample import Sampler
from audit.seals import Seals

__all__ = ["Made", "Maker"]

_INPUT, _OUTPUT = bytes(range(250)) * 2, bytes(range(52))
_LABELS, _SCORES = ((">50K",), ("<=50K",)), ("0.8123", "0.2204", "0.51")


class Made(NamedTuple):
    """One decision, ready for the log."""

    id: str
    data: bytes
    payloads: tuple[Payload, ...]


class Maker:
    """Makes the decisions of one gateway process, numbered from 1.

    Args:
        keyring: names the units.
        seals: hide the private part.
        instance: 8 hex digits, as in the records.
        durability: what the records say of themselves.
        kept: of so many records one keeps its payloads; 0 for none.
        units: how many people there are.
    """

    def __init__(
        self,
        keyring: Keyring,
        seals: Seals,
        *,
        instance: str = "0000000a",
        durability: str = "strict",
        kept: int = 1,
        units: int = 10_000,
    ) -> None:
        self.seq = 0
        self._keyring, self._seals, self._kept, self._units = keyring, seals, kept, units
        self._sampler = Sampler(keyring.derived("sample"))
        self._form = DecisionForm(
            instance=instance,
            origin="http",
            route="income",
            unit_source="header",
            experiment=None,
            experiment_version=None,
            epoch=0,
            arm_assigned=None,
            arm_served=None,
            propensity=None,
            reason="no_experiment",
            model="income",
            version="1",
            digest="sha256:" + "ef" * 32,
            runtime="onnxruntime 1.23.2",
            device="cpu",
            threshold="0.5",
            durability=durability,
        )

    def make(self) -> Made:
        """The next decision."""
        self.seq = seq = self.seq + 1
        event_id, nonce = new_id(), random_bytes(16)
        packed_in, packed_out = b"%012d" % seq + _INPUT, b"%012d" % seq + _OUTPUT
        unit_ref = self._keyring.unit_ref(f"user-{seq * 7919 % self._units}")
        commit = Mac(nonce).digest
        secret = dumps_checked({"groups": {"sex": {"Female": [1, 1]}}, "nonce": nonce.hex()})
        data = self._form.write(
            id=event_id,
            time_us=now_us(),
            seq=seq,
            slot=None,
            unit_ref=unit_ref,
            input_commitment=commit(packed_in).hex(),
            output_commitment=commit(packed_out).hex(),
            sealed=self._seals.seal(secret, unit_ref, event_id),
            rows=1,
            labels=_LABELS[seq % 2],
            score=_SCORES[seq % 3],
            selection=self._sampler.select(event_id, score=0.8, threshold=0.5, rows=1),
            trace_id=seq << 64 | 1,
            span_id=seq,
            queue_us=seq % 90,
            infer_us=100 + seq % 400,
            total_us=300 + seq % 800,
        )
        payloads: tuple[Payload, ...] = ()
        if self._kept and seq % self._kept == 0:
            payloads = as_payloads(event_id, {"input": packed_in, "output": packed_out}, unit_ref)
        return Made(event_id, data, payloads)
