"""A form writes what the plain encoder writes, whatever the fields hold."""

import hmac
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import EntryTooLarge, EventInvalid
from audit.form import SHARED, DecisionForm
from audit.mac import Mac
from audit.record import Decision, decode, encode
from audit.sample import Selection
from tests.audit.worlds import decision

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_number = st.integers(0, 2**53 - 1)
_label = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=20)
_optional = st.none() | _text
_hex = st.text("0123456789abcdef", min_size=1, max_size=64)

shared = st.fixed_dictionaries({name: _number if name == "epoch" else _optional for name in SHARED})
varying = st.fixed_dictionaries(
    {
        "id": _hex,
        "time_us": _number,
        "seq": _number,
        "slot": st.none() | st.integers(0, 9999),
        "unit_ref": _hex,
        "input_commitment": _hex,
        "output_commitment": _hex,
        "sealed": st.text("ABab01+/=", max_size=40),
        "rows": st.integers(1, 9),
        "labels": st.lists(_label, max_size=9),
        "score": st.none() | st.from_regex(r"-?[0-9]{1,5}(\.[0-9]{1,9})?", fullmatch=True),
        "selection": st.builds(Selection, _text, _text, selected=st.booleans()),
        "trace_id": st.integers(0, 2**128 - 1),
        "span_id": st.integers(0, 2**64 - 1),
        "queue_us": _number,
        "infer_us": _number,
        "total_us": _number,
    }
)


def event_of(same: dict, rest: dict) -> Decision:
    labels, selection = rest["labels"], rest["selection"]
    return Decision(
        **same,
        **{name: rest[name] for name in ("id", "time_us", "seq", "slot", "unit_ref", "sealed")},
        **{name: rest[name] for name in ("input_commitment", "output_commitment")},
        rows=rest["rows"],
        label=labels[0] if labels and rest["rows"] == 1 else None,
        label_counts=dict(Counter(labels[:1] if rest["rows"] == 1 else labels)),
        score=rest["score"],
        sampling={
            "rule": selection.rule,
            "probability": selection.probability,
            "selected": selection.selected,
        },
        trace_id=f"{rest['trace_id']:032x}",
        span_id=f"{rest['span_id']:016x}",
        latency_us={
            "queue": rest["queue_us"],
            "infer": rest["infer_us"],
            "total": rest["total_us"],
        },
    )


@given(shared, st.lists(varying, min_size=1, max_size=3))
def test_a_form_writes_what_the_encoder_writes(same, many) -> None:
    form = DecisionForm(**same)
    for rest in (*many, *many):  # the second time from what it has kept
        written = form.write(**rest)
        assert written == encode(event_of(same, rest))
        assert decode(written) == event_of(same, rest)


def _plain(**changes) -> dict:
    base = decision(1)
    return {
        "id": base.id,
        "time_us": 1,
        "seq": 1,
        "slot": 1,
        "unit_ref": "ab",
        "input_commitment": "cd",
        "output_commitment": "ef",
        "sealed": "",
        "rows": 1,
        "labels": ["yes"],
        "score": None,
        "selection": Selection("base", "1", selected=False),
        "trace_id": 1,
        "span_id": 1,
        "queue_us": 1,
        "infer_us": 1,
        "total_us": 1,
    } | changes


def test_every_field_of_a_decision_is_shared_or_written() -> None:
    form = DecisionForm(**{name: getattr(decision(1), name) for name in SHARED})
    assert isinstance(decode(form.write(**_plain())), Decision)


def test_a_decision_that_is_too_large_is_refused() -> None:
    form = DecisionForm(**{name: getattr(decision(1), name) for name in SHARED})
    with pytest.raises(EntryTooLarge, match="70"):
        form.write(**_plain(sealed="A" * 70_000))


def test_a_shared_field_without_a_canonical_form_is_refused() -> None:
    fields = {name: getattr(decision(1), name) for name in SHARED}
    with pytest.raises(EventInvalid):
        DecisionForm(**fields | {"threshold": 0.5})


def test_a_form_keeps_no_more_labels_than_it_may() -> None:
    form = DecisionForm(**{name: getattr(decision(1), name) for name in SHARED})
    for number in range(3000):
        event = decode(form.write(**_plain(labels=[f"label {number}"])))
        assert event.label == f"label {number}"
    assert len(form._labels) <= 1024


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_a_kept_key_gives_the_same_code(key, texts) -> None:
    mac = Mac(key)
    for text in texts:
        assert mac.digest(text) == hmac.digest(key, text, "sha256")
