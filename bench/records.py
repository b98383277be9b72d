"""Decision records as a gateway makes them, one after the other: ids, nonces, seals, commitments.

Rule: nothing is made before it is asked for, so whoever measures appends measures the making, too.
Each is about another input and output; its leaf has 1.1 kB, and with payloads it brings an input of
512 bytes (a packed row of the income model) and an output of 64.
Read next: appends.py.
"""

from __future__ import annotations

from typing import NamedTuple

from audit.blobfile import Payload, as_payloads
from audit.canonical import dumps_checked
from audit.entropy import random_bytes
from audit.form import DecisionForm
from audit.keys import Keyring
from audit.mac import Mac
from audit.record import new_id, now_us
from audit.sample import Selection
from audit.seals import Seals

__all__ = ["Made", "Maker"]

_INPUT, _OUTPUT = bytes(range(250)) * 2, bytes(range(52))
_GROUPS = [[{"sex": "Female"}, ">50K", 1]]
_SELECTION = Selection("base", "0.01", selected=False)
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
        return self.batch(1)[0]

    def batch(self, count: int) -> list[Made]:
        """The next decisions, one kind of work done for all of them before the next.

        services/decision.py does the same: the processor's caches are small.
        """
        first, self.seq = self.seq + 1, self.seq + count
        seqs = range(first, first + count)
        ids = [new_id() for _ in seqs]
        nonces = [random_bytes(16) for _ in seqs]
        inputs = [b"%012d" % seq + _INPUT for seq in seqs]
        outputs = [b"%012d" % seq + _OUTPUT for seq in seqs]
        macs = [Mac(nonce).digest for nonce in nonces]
        committed = [
            (m(i).hex(), m(o).hex()) for m, i, o in zip(macs, inputs, outputs, strict=True)
        ]
        units = [self._keyring.unit_ref(f"user-{seq * 7919 % self._units}") for seq in seqs]
        secrets = [dumps_checked({"groups": _GROUPS, "nonce": nonce.hex()}) for nonce in nonces]
        sealed = list(map(self._seals.seal, secrets, units, ids))
        time_us, made = now_us(), []
        for place, seq in enumerate(seqs):
            event_id, unit_ref = ids[place], units[place]
            data = self._form.write(
                id=event_id,
                time_us=time_us,
                seq=seq,
                slot=None,
                unit_ref=unit_ref,
                input_commitment=committed[place][0],
                output_commitment=committed[place][1],
                sealed=sealed[place],
                rows=1,
                labels=_LABELS[seq % 2],
                score=_SCORES[seq % 3],
                selection=_SELECTION,
                trace_id=seq << 64 | 1,
                span_id=seq,
                queue_us=seq % 90,
                infer_us=100 + seq % 400,
                total_us=300 + seq % 800,
            )
            payloads: tuple[Payload, ...] = ()
            if self._kept and seq % self._kept == 0:
                kept = {"input": inputs[place], "output": outputs[place]}
                payloads = as_payloads(event_id, kept, unit_ref)
            made.append(Made(event_id, data, payloads))
        return made
