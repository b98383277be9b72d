import dataclasses
import uuid as uuids
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical import dumps, is_canonical
from audit.errors import DecodeError, EntryTooLarge, EventInvalid
from audit.record import (
    ALL,
    DECISION_BEGINS,
    MAX_ENTRY_BYTES,
    Access,
    ExplanationRecord,
    UnknownEvent,
    as_mapping,
    commitment,
    decode,
    encode,
    field_names,
    id_time_us,
    new_id,
    subject_of,
)
from tests.audit.test_canonical import json_values
from tests.audit.worlds import START_US, decision

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_number = st.integers(0, 2**53 - 1)
_BY_TYPE = {
    "str": _text,
    "int": _number,
    "bool": st.booleans(),
    "str | None": st.none() | _text,
    "int | None": st.none() | _number,
    "dict[str, int]": st.dictionaries(st.sampled_from(["a", "b", "标签"]), _number),
    "dict[str, JSON]": st.dictionaries(st.sampled_from(["x", "y"]), json_values),
    "list[int]": st.lists(st.integers(0, 2**53 - 1), max_size=3),
    "list[str]": st.lists(_text, max_size=3),
    "list[dict[str, JSON]]": st.lists(
        st.dictionaries(st.sampled_from(["n", "group"]), json_values), max_size=3
    ),
}


def _strategy(kind):
    def spell(annotation):
        if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
            return annotation.__name__
        text = str(annotation).replace("typing.", "")
        if text in _BY_TYPE:
            return text
        for key in _BY_TYPE:
            if text.startswith(key.split("JSON")[0]) and "JSON" in key:
                return key
        return text

    hints = get_type_hints(kind)
    fields = {f.name: _BY_TYPE[spell(hints[f.name])] for f in dataclasses.fields(kind)}
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.type)
def test_every_event_type_reads_back_as_it_was_written(kind):
    @given(_strategy(kind))
    def law(event):
        data = encode(event)
        assert decode(data) == event
        assert is_canonical(data)
        assert encode(decode(data)) == data

    law()


def test_the_type_names_are_those_of_the_design():
    assert {kind.type for kind in ALL} == {
        "decision", "assignment_config", "model_registered", "model_promoted",
        "model_rolled_back", "outcome", "explanation", "explanation_skipped", "fairness_window",
        "alert", "override", "erasure", "legal_hold", "access", "key_rotation", "epoch", "gap",
        "counters", "carried", "pruned",
    }  # fmt: skip


def test_an_entry_holds_its_type_schema_id_and_time():
    event = decision(1)
    shown = as_mapping(decode(encode(event)))
    assert shown["type"] == "decision"
    assert shown["schema"] == 2
    assert (shown["id"], shown["time_us"]) == (event.id, event.time_us)


def test_decisions_and_nothing_else_begin_as_decisions_do():
    for kind in ALL:
        first = min(field_names(kind))
        begins = f'{{"{first}":'.encode()
        assert (begins == DECISION_BEGINS) == (kind.type == "decision"), kind


def test_a_float_in_an_event_is_refused():
    with pytest.raises(EventInvalid):
        encode(decision(1, score=0.5))
    with pytest.raises(EventInvalid):
        encode(decision(1, sampling={"probability": 0.5}))


def test_an_entry_of_exactly_the_limit_is_taken_and_one_byte_more_is_not():
    room = MAX_ENTRY_BYTES - len(encode(decision(1, label="")))
    assert len(encode(decision(1, label="x" * room))) == MAX_ENTRY_BYTES
    with pytest.raises(EntryTooLarge):
        encode(decision(1, label="x" * (room + 1)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":"a","time_us":1}',
        b'{"id":"a","schema":1,"time_us":1,"type":"decision"}',
        b'{"id":1,"schema":1,"time_us":1,"type":"gap"}',
        b'{"extra":1,"id":"a","schema":1,"time_us":1,"type":"erasure"}',
        b'{"id":"a","schema":"1","time_us":1,"type":["x"]}',
    ],
)
def test_bytes_that_are_no_event_are_refused(data):
    with pytest.raises(DecodeError):
        decode(data)


def test_a_record_whose_fields_are_others_is_refused_in_words():
    said = {"first_leaf": 256, "leaf": 7, "path": [], "record": {}}  # as one commit wrote them
    data = dumps({"id": "a", "schema": 1, "time_us": 5, "type": "carried"} | said)
    with pytest.raises(
        DecodeError, match=r"a carried with wrong fields \(leaf, was_leaf\)"
    ) as told:
        decode(data)
    assert "audit verify" in str(told.value)


def test_an_event_of_a_newer_version_is_kept_whole():
    data = dumps({"id": "a", "schema": 9, "time_us": 5, "type": "decision", "news": [1]})
    event = decode(data)
    assert isinstance(event, UnknownEvent)
    assert (event.id, event.time_us, as_mapping(event)["news"]) == ("a", 5, [1])


def test_an_event_that_only_a_reader_knows_cannot_be_written():
    with pytest.raises(EventInvalid):
        encode(UnknownEvent(id="a", time_us=1, body={}))


def test_payloads_belong_to_the_decision_an_event_speaks_of():
    access = Access(id="x", time_us=1, actor="a", action="read", reason="r")
    assert subject_of(access) == "x"
    names = {f.name for f in dataclasses.fields(ExplanationRecord)}
    assert "decision" in names
    assert subject_of(decision(3)) == decision(3).id


def test_a_new_id_is_a_uuid_of_version_7_that_holds_its_time():
    made = new_id(clock=lambda: START_US + 7, random=lambda n: b"\xff" * n)
    parsed = uuids.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuids.RFC_4122)
    assert id_time_us(made) == START_US // 1000 * 1000
    assert id_time_us("not an id") is None


@given(st.integers(0, 2**48 - 1), st.integers(1, 10**6))
def test_ids_sort_by_their_time(time_us, later):
    def at(clock):
        return new_id(clock=lambda: clock, random=bytes)

    assert at(time_us) < at(time_us + later)


def test_a_commitment_is_hmac_sha256():
    # RFC 4231, test case 2
    assert commitment(b"Jefe", b"what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
