"""Packs of logs that hold records as nobody should have written them: counted, named or refused."""

import json

import pytest

from audit.canonical import dumps
from audit.errors import DecodeError
from audit.record import encode
from tests.audit.anyevents import write_log
from tests.audit.packworld import export, members_of, report_of, verify
from tests.audit.worlds import START_US, World, decision, make_keyring


def stored_world(folder, *entries):
    """A closed log of these bytes between two decisions: what was stored before it was refused."""
    ring = make_keyring(folder / "keys")
    data = [encode(decision(1)), *entries, encode(decision(2))]
    return World(write_log(folder, data, keyring=ring), ring, ())


def changed(**values):
    return dumps(json.loads(encode(decision(7, time_us=START_US + 1500))) | values)


GAP = {"type": "gap", "schema": 1, "id": "g", "time_us": START_US + 1500, "first_seq": 1}


@pytest.mark.parametrize(
    "entry",
    [
        dumps({"type": "decision", "schema": 99, "id": "d", "time_us": START_US + 1500}),
        changed(schema=99, model=[], version={}),
        changed(seq=0),
        changed(seq="one"),
        dumps(GAP),
        dumps(GAP | {"instance": "0000000a", "last_seq": 0}),
    ],
)
def test_what_does_not_say_what_it_accounts_for_is_named_and_the_rest_counted(
    tmp_path, capsys, entry
):
    pack = export(stored_world(tmp_path, entry), 1, 2)
    report = report_of(members_of(pack))
    assert sum(row["count"] for row in report["decisions"]) == 2
    assert report["instances"]["0000000a"]["decisions"] == 2
    assert sum(report["records"].values()) == 3
    (problem,) = verify(pack, tmp_path, capsys).problems  # and the figures agree
    assert problem.startswith("record 1: it")


def test_a_decision_of_another_schema_that_has_what_is_counted_counts(tmp_path, capsys):
    world = stored_world(tmp_path, changed(schema=99, seq=3, arm_served=["a"]))
    pack = export(world, 1, 2)
    assert report_of(members_of(pack))["instances"]["0000000a"]["decisions"] == 3
    assert verify(pack, tmp_path, capsys, "--key", world.key).status == 0


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (changed(instance="\U0001f600"), "instance"),
        (dumps(GAP | {"instance": "\U0001f600", "last_seq": 2}), "instance"),
        (dumps(GAP | {"type": "\U0001f600"}), "type"),
    ],
)
def test_what_cannot_be_a_key_of_the_report_is_refused_with_its_leaf(tmp_path, entry, name):
    with pytest.raises(DecodeError, match=f"leaf 1 cannot be counted, as its {name}"):
        export(stored_world(tmp_path, entry), 1, 2)
