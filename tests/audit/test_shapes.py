"""Values of the declared types pass, others are named; for each field of each kind of event."""

import types
import typing
from dataclasses import fields, replace

import pytest

from audit.canonical import decimal
from audit.errors import EventInvalid
from audit.events import (
    ALL,
    Counters,
    ExplanationRecord,
    FairnessWindow,
    Gap,
    Outcome,
    UnknownEvent,
)
from audit.fairness import Window
from audit.shapes import check_values, flaw, mistyped
from tests.audit.worlds import decision

GOOD = {str: "a", int: 1, bool: True, type(None): None}
EVERY = [(kind, field) for kind in ALL for field in fields(kind)]


def some(hint):
    """The values that a field of this type may hold, one of each sort."""
    if isinstance(hint, types.UnionType):
        return [GOOD[part] for part in typing.get_args(hint)]
    if typing.get_origin(hint) is list:
        return [[], [some(typing.get_args(hint)[0])[-1]]]
    if typing.get_origin(hint) is dict:
        part = typing.get_args(hint)[1]
        return [{}, {"k": 1}, *([{"k": ["any", None]}] if isinstance(part, str) else [])]
    return [GOOD[hint]]


def made(kind, /, **changes):
    return kind(**({f.name: some(f.type)[-1] for f in fields(kind)} | changes))


@pytest.mark.parametrize(("kind", "field"), EVERY, ids=lambda it: getattr(it, "name", None))
def test_each_field_takes_values_of_its_type_and_no_others(kind, field):
    assert mistyped(made(kind)) is None
    allowed = some(field.type)
    for value in allowed:
        assert mistyped(made(kind, **{field.name: value})) is None
    tried = ["a", 1, True, None, 1.0, [], {}, ["x"], [1], [None], {"k": True}, {"k": "x"}]
    kinds = {type(value) for value in allowed}
    for value in tried:
        if type(value) not in kinds:
            assert mistyped(made(kind, **{field.name: value})) == field.name


def test_what_is_inside_of_lists_and_objects_is_looked_at_where_a_type_is_declared():
    assert mistyped(decision(1, label_counts={"a": True})) == "label_counts"
    assert mistyped(decision(1, latency_us={"total": "1"})) == "latency_us"
    for kind, name, value in (
        ("erasure", "key_slots", [1, "2"]),
        ("carried", "path", [1]),
        ("fairness_window", "groups", [[]]),
    ):
        (found,) = [one for one in ALL if one.type == kind]
        assert mistyped(made(found, **{name: value})) == name


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (decision(0), "seq is below 1"),
        (decision(-5), "seq is below 1"),
        (made(Gap, first_seq=0), "first_seq is below 1"),
        (made(Gap, last_seq=0), "last_seq is below 1"),
        (made(Gap, first_seq=3, last_seq=2), "last_seq must follow its first_seq"),
        (made(Gap, first_seq=1, last_seq=1 << 52), "by less than 1073741824 numbers"),
        (made(Gap, time_us=-1), "time_us is below 0"),
        (UnknownEvent(id="a", time_us=-1, body={}), "could not store a record: its time_us"),
        (made(Outcome, observed_us=-1), "observed_us is below 0"),
        (made(Counters, seq=-1), "seq is below 0"),
        (decision(1, id=""), "id is empty"),
        (UnknownEvent(id="", time_us=1, body={}), "id is empty"),
        (decision(1, label=["secret"]), "its label is of the wrong type"),
    ],
)
def test_a_refusal_names_the_field_and_not_what_it_holds(event, said):
    with pytest.raises(EventInvalid, match=said) as caught:
        check_values(event)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "event",
    [
        decision(1, instance="0000000a"),
        made(Gap),
        made(Counters),
        UnknownEvent(id="a", time_us=1, body={"type": "of tomorrow"}),
    ],
)
def test_instances_and_types_are_ascii(event):
    assert flaw(event) is None
    for odd in ("\U0001f600", "ä", "\uffff"):
        if isinstance(event, UnknownEvent):
            event.body["type"] = odd
            assert flaw(event) == "its type is not in ASCII"
        else:
            assert flaw(replace(event, instance=odd)) == "its instance is not in ASCII"


def test_newer_events_and_the_least_numbers_pass():
    check_values(UnknownEvent(id="a", time_us=1, body={"seq": "any"}))
    check_values(made(Counters, seq=0))
    check_values(made(Gap, first_seq=5, last_seq=5))
    check_values(made(Gap, first_seq=1, last_seq=1 << 30))
    check_values(decision(1))


GROUP = {
    "group": "F",
    "n": 50,
    "positive": 10,
    "selection_rate": "0.2",
    "impact_ratio": None,
    "verdict": "insufficient_evidence",
}


@pytest.mark.parametrize("name", GROUP)
def test_a_group_of_a_window_has_what_is_added_up_and_of_its_type(name):
    assert flaw(made(FairnessWindow, groups=[GROUP])) is None
    assert flaw(made(FairnessWindow, groups=[])) is None
    for odd in (1.5, True, [], {}, -1, "abc", "1e3", "9" * 400):
        if isinstance(GROUP[name], str) and name in ("group", "verdict") and type(odd) is str:
            continue
        assert flaw(made(FairnessWindow, groups=[GROUP, GROUP | {name: odd}])) is not None
    without = {key: value for key, value in GROUP.items() if key != name}
    with pytest.raises(EventInvalid, match="its groups are not"):
        check_values(made(FairnessWindow, groups=[GROUP, without]))


def test_windows_as_they_are_counted_pass():
    window = Window("income", ">50K", minimum_count=1)
    for leaf, (sex, label) in enumerate([("F", ">50K"), ("F", "<=50K"), ("M", ">50K"), ("M", "")]):
        groups = [({"sex": sex, "race": "Black"}, label, 3)]
        window.add(arm=None, version="1", groups=groups, leaf=leaf, time_us=1)
    for fields_of in window.records():
        assert flaw(FairnessWindow(id="a", time_us=1, **fields_of)) is None
    assert flaw(made(FairnessWindow, groups=[GROUP], to_leaf=0)) == "its to_leaf is below 1"


@pytest.mark.parametrize("name", ["fit_r2", "local_error", "stability"])
def test_what_an_explanation_measured_are_numbers(name):
    numbers = dict.fromkeys(["fit_r2", "local_error"], "0.5") | {"stability": None}
    for good in ("0", "-12.25", "1", decimal(1e-9), decimal(-0.0), decimal(1.5e22)):
        assert flaw(made(ExplanationRecord, **numbers | {name: good})) is None
    for odd in ("abc", "", "nan", "inf", "1e3", "1_0", " 1", "1\n", "٣", "9" * 400):
        with pytest.raises(EventInvalid, match=f"its {name} is no number"):
            check_values(made(ExplanationRecord, **numbers | {name: odd}))
