"""Fairness windows: each decision is counted once, also over a restart."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.canonical import dumps
from audit.keys import Keyring
from audit.record import Decision, FairnessWindow, encode, new_id
from audit.seals import Seals
from services.counting import Counting

UNIT = "ab" * 16


@pytest.fixture
def seals(tmp_path: Path) -> Seals:
    return Seals(tmp_path / "log", Keyring.load_or_create(tmp_path / "keys"), create=True)


def decision(
    seals: Seals, sex: str, label: str, *, model: str = "income", unit: str = UNIT
) -> Decision:
    event_id = new_id()
    sealed = dumps({"nonce": "00", "groups": [[{"sex": sex}, label, 1]] if sex else []})
    return Decision(
        id=event_id,
        time_us=5,
        instance="00000000",
        seq=1,
        origin="http",
        route=model,
        unit_ref=unit,
        unit_source="header",
        arm_served="control",
        reason="assigned",
        model=model,
        version="1",
        digest="sha256:0",
        runtime="r",
        device="cpu",
        input_commitment="",
        output_commitment="",
        sealed=seals.seal(sealed, unit, event_id),
        rows=1,
        label_counts={label: 1},
        sampling={"rule": "base", "probability": "0", "selected": False},
        latency_us={},
        durability="strict",
    )


def counting(seals: Seals) -> Counting:
    def positive(model: str, version: str) -> str | None:
        return ">50K" if model == "income" else None

    return Counting(seals, minimum=2, window_s=10, positive=positive)


def total(windows: list[FairnessWindow]) -> int:
    return sum(group["n"] for window in windows for group in window.groups)


def test_a_window_is_written_when_it_is_old_enough(seals) -> None:
    found = counting(seals)
    for leaf in range(15):
        sex, unit = "Male" if leaf % 3 else "Female", f"{leaf:032x}"
        found.take(leaf, decision(seals, sex, ">50K", unit=unit), 0)
    assert found.due(9, time_us=0, final=False) == []
    (window,) = found.due(10, time_us=0, final=False)
    assert (window.from_leaf, window.to_leaf, window.attribute) == (0, 15, "sex")
    assert {g["group"]: g["n"] for g in window.groups} == {"Female": 5, "Male": 10}
    assert found.due(99, time_us=0, final=True) == []


def test_a_group_of_few_people_is_never_named_in_the_record(seals) -> None:
    found = counting(seals)
    for leaf in range(30):  # one of a kind, however often; and ten others
        sex, unit = ("Intersex", UNIT) if leaf < 20 else ("Female", f"{leaf:032x}")
        found.take(leaf, decision(seals, sex, ">50K", unit=unit), 0)
    (window,) = found.due(10, time_us=0, final=False)
    assert {g["group"]: g["n"] for g in window.groups} == {"Female": 10, "other": 20}
    assert b"Intersex" not in encode(window)


def test_after_a_restart_what_a_window_covers_is_not_counted_again(seals) -> None:
    events = [decision(seals, "Female", ">50K") for _ in range(6)]
    before = counting(seals)
    for leaf in range(4):
        before.take(leaf, events[leaf], 0)
    written = before.due(0, time_us=0, final=True)
    after = counting(seals)
    for window in written:
        after.resume(window)
    for leaf, event in enumerate(events):
        after.take(leaf, event, 0)
    rest = after.due(0, time_us=0, final=True)
    assert rest[0].from_leaf == written[0].to_leaf
    assert total(written) + total(rest) == 6


def test_models_without_a_positive_label_or_groups_make_no_window(seals) -> None:
    found = counting(seals)
    found.take(0, decision(seals, "Female", "7", model="digits"), 0)
    found.take(1, decision(seals, "", ">50K"), 0)
    assert found.due(0, time_us=0, final=True) == []


def test_an_erased_decision_is_passed_over_and_the_others_are_counted(seals) -> None:
    erased, kept = decision(seals, "Male", ">50K"), decision(seals, "Female", ">50K")
    seals.puncture(UNIT, new_id())
    later = decision(seals, "Female", ">50K")
    count = counting(seals)
    for leaf, event in enumerate((erased, kept, later, later)):
        count.take(leaf, event, 0)
    assert total(count.due(0, time_us=0, final=True)) == 2


def test_a_malformed_window_that_was_stored_covers_nothing(seals) -> None:
    first = counting(seals)
    first.take(0, decision(seals, "Female", ">50K"), 0)
    (window, *_) = first.due(0, time_us=0, final=True)
    again = counting(seals)
    again.resume(replace(window, groups=[{}]))
    assert again.counted() == {}
    again.resume(window)
    assert again.counted() == {window.model: 1}
