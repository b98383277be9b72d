from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import assign, load
from experiments.estimate import analyse
from experiments.outcomes import Key, join

DIGITS = load(Path(__file__).parents[2] / "experiments" / "definitions" / "digits.yaml")
KEY = Key("digits-ab", 1)
METRICS = {"digits-ab": "correct"}


class Exposure(NamedTuple):
    decision: str
    unit: str
    arm: str = "control"
    time_us: int = 100
    epoch: int = 1
    experiment: str = "digits-ab"


class Outcome(NamedTuple):
    event_id: str
    decision: str | None = None
    unit: str | None = None
    value: float = 1.0
    time_us: int = 200
    metric: str = "correct"


def config(epoch=1):
    return DIGITS.canonical() | {"experiment_version": DIGITS.version, "epoch": epoch}


def test_a_unit_keeps_the_arm_of_its_first_exposure():
    rows = [Exposure("d1", "u"), Exposure("d2", "u", arm="treatment")]
    part = join(rows, [Outcome("e1", decision="d2")], metrics=METRICS).parts[KEY]
    assert part.arm_of == {"u": "control"}
    assert part.crossed == {"u"}
    assert list(part.sample("control")) == [1.0]
    assert list(part.sample("treatment")) == []


def test_an_event_id_counts_once_and_a_second_value_is_a_conflict():
    rows = [Exposure("d1", "u1"), Exposure("d2", "u2")]
    sent = [
        Outcome("e1", decision="d1"),
        Outcome("e1", decision="d1"),
        Outcome("e1", decision="d1", value=0.0),
        Outcome("e2", unit="u2", value=0.0),
    ]
    found = join(rows, sent, metrics=METRICS)
    assert found.parts[KEY].values == {"u1": 1.0, "u2": 0.0}
    assert (found.tally.duplicates, found.tally.conflicts) == (1, 1)


def test_what_does_not_count_is_counted_by_reason():
    rows = [Exposure("d1", "u1", time_us=100)]
    sent = [
        Outcome("early", decision="d1", time_us=99),
        Outcome("late", decision="d1", time_us=1101),
        Outcome("good", decision="d1", time_us=1100),
        Outcome("again", unit="u1", time_us=300),
        Outcome("stray", decision="unknown"),
        Outcome("other", decision="d1", metric="clicks"),
        Outcome("nobody"),
    ]
    found = join(rows, sent, metrics=METRICS, window_us=1000)
    assert found.parts[KEY].values == {"u1": 1.0}
    assert found.tally._asdict() == {
        "duplicates": 0, "conflicts": 0, "unmatched": 3,
        "repeated": 1, "early": 1, "late": 1, "out_of_range": 0,
    }  # fmt: skip


def test_outcomes_go_to_the_epoch_of_their_decision_or_of_their_time():
    rows = [Exposure("d1", "u"), Exposure("d2", "u", time_us=500, epoch=2, arm="treatment")]
    sent = [
        Outcome("by-decision", decision="d1", time_us=900),
        Outcome("by-unit", unit="u", time_us=600, value=0.0),
    ]
    parts = join(rows, sent, metrics=METRICS).parts
    assert parts[KEY].values == {"u": 1.0}
    assert parts[Key("digits-ab", 2)].values == {"u": 0.0}


def test_an_outcome_by_unit_before_the_second_epoch_belongs_to_the_first():
    rows = [Exposure("d1", "u"), Exposure("d2", "u", time_us=500, epoch=2)]
    parts = join(rows, [Outcome("e", unit="u", time_us=499)], metrics=METRICS).parts
    assert parts[KEY].values == {"u": 1.0}
    assert parts[Key("digits-ab", 2)].values == {}


EVENTS = st.lists(
    st.builds(
        Outcome,
        event_id=st.sampled_from([f"e{i}" for i in range(12)]),
        decision=st.sampled_from([None, "d0", "d1", "d2", "d3", "dx"]),
        unit=st.sampled_from([None, "u0", "u1", "ux"]),
        value=st.sampled_from([0.0, 1.0]),
        time_us=st.integers(0, 1000),
    ),
    max_size=30,
)
ROWS = [Exposure(f"d{i}", f"u{i % 3}", time_us=100 * i, epoch=1 + i // 3) for i in range(4)]


@given(EVENTS)
def test_sending_everything_twice_changes_nothing(events):
    once = join(ROWS, events, metrics=METRICS)
    twice = join(ROWS, [*events, *events], metrics=METRICS)
    assert {k: p.values for k, p in once.parts.items()} == {
        k: p.values for k, p in twice.parts.items()
    }


@given(EVENTS, st.data())
def test_a_prefix_of_the_log_gives_a_prefix_of_the_analysis(events, data):
    cut = data.draw(st.integers(0, len(events)))
    short = join(ROWS, events[:cut], metrics=METRICS)
    whole = join(ROWS, events, metrics=METRICS)
    for key, part in short.parts.items():
        assert (
            list(part.values.items()) == list(whole.parts[key].values.items())[: len(part.values)]
        )


@given(EVENTS)
def test_every_outcome_is_counted_or_has_a_reason(events):
    found = join(ROWS, events, metrics=METRICS)
    counted = sum(len(part.values) for part in found.parts.values())
    assert counted + sum(found.tally) == len(events)


def simulated(n, gain, seed=5):
    rng = np.random.default_rng(seed)
    rows, sent = [], []
    for i in range(n):
        found = assign(DIGITS, f"user-{i}")
        rows.append(Exposure(f"d{i}", f"ref-{i}", found.arm, i))
        rate = 0.6 + gain * (found.arm == "treatment")
        sent.append(Outcome(f"e{i}", f"d{i}", None, float(rng.random() < rate), i + 1))
    return rows, sent


def test_a_real_difference_is_found_and_summarised():
    rows, sent = simulated(4000, 0.2)
    (summary,) = analyse(rows, sent, [config()]).summaries
    control, treatment = summary.arms
    (comparison,) = summary.comparisons
    assert control.exposed + treatment.exposed == 4000
    assert control.exposed == control.observed
    assert (control.arm, control.version, control.share) == ("control", "1", 0.5)
    assert comparison.difference == pytest.approx(treatment.rate - control.rate)
    assert comparison.anytime.low < 0.2 < comparison.anytime.high
    assert comparison.anytime.low < comparison.fixed.low < comparison.fixed.high
    assert comparison.verdict == "difference_found"
    assert summary.srm.verdict == "ok"
    assert summary.crossed == 0
    assert summary.experiment_version == DIGITS.version


def test_no_difference_and_too_little_are_different_answers():
    assert verdict(*simulated(2000, 0.0)) == "no_difference_shown"
    assert verdict(*simulated(40, 0.2)) == "insufficient_evidence"


def test_a_wrong_split_voids_the_comparison():
    rows, sent = simulated(3000, 0.2)
    kept = [row for i, row in enumerate(rows) if row.arm == "control" or i % 5]
    assert verdict(kept, sent) == "void_sample_ratio"


def verdict(rows, sent):
    (summary,) = analyse(rows, sent, [config()]).summaries
    return summary.comparisons[0].verdict


def test_epochs_are_never_pooled_and_unknown_ones_are_left_out():
    rows = [
        Exposure("d1", "u", epoch=1),
        Exposure("d2", "u", epoch=2),
        Exposure("d3", "u", epoch=9),
    ]
    found = analyse(rows, [], [config(1), config(2)]).summaries
    assert [s.epoch for s in found] == [1, 2]
    assert found[0].arms[0].rate is None
    assert found[0].comparisons[0].difference is None


@pytest.mark.parametrize("value", [7.0, -0.1, float("nan"), float("inf")])
def test_a_value_outside_zero_and_one_is_left_out_and_counted(value):
    rows, sent = simulated(10, 0.0)
    found = analyse(rows, [sent[0]._replace(value=value), *sent[1:]], [config()])
    assert found.tally.out_of_range == 1
    assert sum(arm.observed for arm in found.summaries[0].arms) == 9
