"""The bytes of many decisions that differ in a few fields: the rest is written once.

A gateway's decisions for one version, arm and protocol share half of their fields, and what differs
is mostly text of our own alphabets. So the shared fields become a form in canonical order, with
places for the others.
Rule: `form.write(**rest) == encode(Decision(**shared, **rest))`, byte for byte; a test compares
them. `decision` gives the same as an event, for whoever wants to look at it.
Read next: record.py (the canonical bytes), events.py (what a decision holds).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .canonical import dumps
from .errors import EntryTooLarge
from .events import Decision
from .record import MAX_ENTRY_BYTES
from .sample import Selection

_TEXT, _PLAIN = '"{}":"%s"', '"{}":%s'
_PLACES = {
    "id": _TEXT,
    "input_commitment": _TEXT,
    "label": _PLAIN,
    "label_counts": _PLAIN,
    "latency_us": '"{}":{{"infer":%d,"queue":%d,"total":%d}}',
    "output_commitment": _TEXT,
    "rows": '"{}":%d',
    "sampling": _PLAIN,
    "score": _PLAIN,
    "sealed": _TEXT,
    "seq": '"{}":%d',
    "slot": _PLAIN,
    "span_id": '"{}":"%016x"',
    "time_us": '"{}":%d',
    "trace_id": '"{}":"%032x"',
    "unit_ref": _TEXT,
}
SHARED = tuple(
    sorted({field.name for field in fields(Decision)} - set(_PLACES)),
)
_KEPT_LABELS = 1024


class DecisionForm:
    """Writes decisions that agree in every field of `SHARED`."""

    def __init__(self, **shared: Any) -> None:
        """Take the shared fields, by name.

        Raises:
            EventInvalid: one of them has no canonical form.
        """
        said = {**shared, "type": Decision.type, "schema": Decision.schema}
        parts = []
        for name in sorted([*_PLACES, *SHARED, "type", "schema"]):
            if name in _PLACES:
                parts.append(_PLACES[name].format(name))
            else:
                parts.append(f'"{name}":' + dumps(said[name]).decode().replace("%", "%%"))
        self._text = "{" + ",".join(parts) + "}"
        self._labels: dict[str, tuple[str, str]] = {}
        self._selections: dict[Selection, str] = {}

    def write(
        self,
        *,
        id: str,  # noqa: A002  the field's name
        time_us: int,
        seq: int,
        slot: int | None,
        unit_ref: str,
        input_commitment: str,
        output_commitment: str,
        sealed: str,
        rows: int,
        labels: Sequence[str],
        score: str | None,
        selection: Selection,
        trace_id: int,
        span_id: int,
        queue_us: int,
        infer_us: int,
        total_us: int,
    ) -> bytes:
        """The canonical bytes of one decision.

        Args:
            id: a UUID; like the reference, the commitments, the sealed part and the score it must
                be text that JSON does not escape.
            time_us: Unix microseconds.
            seq: its number.
            slot: of the assignment, if there was one.
            unit_ref: who it was about, keyed.
            input_commitment: hex.
            output_commitment: hex.
            sealed: base64.
            rows: how many.
            labels: of each row; empty for a model without labels. `label` is said of one row only.
            score: decimal text, of one row only.
            selection: how it was sampled.
            trace_id: the number.
            span_id: the number.
            queue_us: microseconds in the queue.
            infer_us: microseconds in the model.
            total_us: microseconds from the request to the model's answer.

        Raises:
            EntryTooLarge: the bytes would exceed 65,535.
        """
        label, counts = self._said(labels[0]) if rows == 1 and labels else ("null", _count(labels))
        sampling = self._selections.get(selection)
        if sampling is None:
            sampling = self._selections[selection] = dumps(selection._asdict()).decode()
        data = (
            self._text
            % (
                id,
                input_commitment,
                label,
                counts,
                infer_us,
                queue_us,
                total_us,
                output_commitment,
                rows,
                sampling,
                "null" if score is None else f'"{score}"',
                sealed,
                seq,
                "null" if slot is None else slot,
                span_id,
                time_us,
                trace_id,
                unit_ref,
            )
        ).encode()
        if len(data) > MAX_ENTRY_BYTES:
            raise EntryTooLarge(
                f"could not encode decision {id}: {len(data)} bytes, at most {MAX_ENTRY_BYTES} "
                "fit in an entry"
            )
        return data

    def _said(self, label: str) -> tuple[str, str]:
        """One row's label, and its count, as JSON."""
        found = self._labels.get(label)
        if found is None:
            if len(self._labels) >= _KEPT_LABELS:
                self._labels.clear()
            found = self._labels[label] = dumps(label).decode(), _count([label])
        return found


def _count(labels: Sequence[str]) -> str:
    return dumps(dict(Counter(labels))).decode()


__all__ = ["SHARED", "DecisionForm"]
