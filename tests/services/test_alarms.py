"""Alarms: a split that is not as promised, a group below four fifths; each said once."""

import random
from dataclasses import replace

import pytest

from audit.record import AssignmentConfig, Decision, FairnessWindow, decode, encode
from services.alarms import FAIRNESS, MISMATCH, Alarms
from tests.audit.worlds import START_US, decision, uuid

VERSION = "cd" * 32


def config(first_share=5000):
    return AssignmentConfig(
        id=uuid(1),
        time_us=START_US,
        experiment="income-ab",
        experiment_version=VERSION,
        epoch=1,
        model="income",
        definition={
            "ranges": [
                {"first": 0, "last": first_share - 1, "arm": "control"},
                {"first": first_share, "last": 9999, "arm": "treatment"},
            ]
        },
        reason="start",
    )


def decided(number, arm) -> Decision:
    return decision(number, unit_ref=f"{number:032x}"[::-1], arm_assigned=arm)


def alerts(alarms, arms):
    found = (alarms.take(decided(n, arm), START_US + n) for n, arm in enumerate(arms, 1))
    return [alert for alert in found if alert is not None]


def test_a_split_that_is_not_as_promised_is_said_once_and_as_soon_as_it_is_certain():
    alarms = Alarms()
    assert alarms.take(config(), START_US) is None
    found = alerts(alarms, ["control", "control", "treatment"] * 400)
    assert [alert.name for alert in found] == [MISMATCH]
    (alert,) = found
    assert decode(encode(alert)) == alert
    assert (alert.model, alert.severity) == ("income", "critical")
    assert alert.details["units"]["control"] > 1.5 * alert.details["units"]["treatment"]
    assert sum(alert.details["units"].values()) < 1200
    again = Alarms()
    again.resume(alert)
    again.take(config(), START_US)
    assert alerts(again, ["control"] * 500) == []


@pytest.mark.parametrize("share", [5000, 9000])
def test_a_split_as_promised_raises_nothing_and_a_unit_counts_once(share):
    alarms, source = Alarms(), random.Random(20)
    alarms.take(config(share), START_US)
    arms = ["control" if source.random() < share / 10_000 else "treatment" for _ in range(3000)]
    assert alerts(alarms, arms) == []
    one = [alarms.take(decided(1, "treatment"), START_US) for _ in range(1000)]
    assert one == [None] * 1000


def window(number, **verdicts):
    groups = [
        {
            "group": name,
            "n": 100,
            "positive": 10,
            "selection_rate": "0.1",
            "impact_ratio": "0.5",
            "verdict": verdict,
        }
        for name, verdict in verdicts.items()
    ]
    return FairnessWindow(
        id=uuid(number),
        time_us=START_US,
        model="income",
        arm="control",
        version="1",
        from_leaf=0,
        to_leaf=9,
        from_us=START_US,
        to_us=START_US,
        attribute="sex",
        groups=groups,
        reference_group="Male",
        minimum_count=30,
    )


def test_a_group_below_four_fifths_is_said_when_it_begins_and_when_it_begins_again():
    alarms, below = Alarms(), "below_four_fifths"
    first = alarms.window(window(1, Female=below, Male="ok"), START_US)
    assert [(a.name, a.details["group"], a.severity) for a in first] == [
        (FAIRNESS, "Female", "warn")
    ]
    assert decode(encode(first[0])) == first[0]
    assert alarms.window(window(2, Female=below), START_US) == []
    assert alarms.window(window(3, Female="insufficient_evidence"), START_US) == []
    assert alarms.window(window(4, Female=below), START_US) == []
    assert alarms.window(window(5, Female="ok"), START_US) == []
    assert len(alarms.window(window(6, Female=below), START_US)) == 1
    again = Alarms()
    again.resume(first[0])
    assert again.window(window(7, Female=below), START_US) == []
    again.resume(window(8, Female="ok"))
    assert len(again.window(window(9, Female=below), START_US)) == 1


def test_a_malformed_window_that_was_stored_is_passed_over_at_a_start():
    alarms = Alarms()
    alarms.resume(alarms.window(window(1, Female="below_four_fifths"), START_US)[0])
    for group in ({}, {"verdict": "ok"}, {"group": "Female", "verdict": "ok"}):
        alarms.resume(replace(window(2), groups=[group]))
    assert alarms.window(window(3, Female="below_four_fifths"), START_US) == []
