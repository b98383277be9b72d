import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from hypothesis import given
from hypothesis import strategies as st

from audit.fairness import MAX_GROUPS, OTHER, Count, Window, judge
from audit.record import FairnessWindow, decode, encode

COUNTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(st.integers(0, 200), st.floats(0, 1)).map(
        lambda pair: Count(pair[0], int(pair[0] * pair[1]))
    ),
    min_size=1,
)


@given(COUNTS)
def test_rates_and_ratios_are_fairlearns(counts):
    rows = [(g, k < c.positive) for g, c in counts.items() for k in range(c.n)]
    judged = judge(counts, minimum_count=1)
    if judged.reference is None:
        assert all(rate.impact_ratio is None for rate in judged.rates)
        return
    groups, selected = zip(*rows, strict=True)
    frame = MetricFrame(
        metrics=selection_rate,
        y_true=np.array(selected, dtype=int),
        y_pred=np.array(selected, dtype=int),
        sensitive_features=np.array(groups),
    )
    found = {rate.group: rate for rate in judged.rates if rate.n}
    for group, expected in frame.by_group.items():
        assert found[group].selection_rate == pytest.approx(expected)
        assert found[group].impact_ratio == pytest.approx(expected / frame.by_group.max())
    lowest = min(rate.impact_ratio for rate in found.values())
    assert lowest == pytest.approx(frame.ratio(method="between_groups"))


@given(COUNTS, st.integers(1, 100))
def test_a_small_group_is_never_judged_nor_a_reference(counts, minimum):
    judged = judge(counts, minimum_count=minimum)
    for rate in judged.rates:
        if rate.n < minimum:
            assert rate.verdict == "insufficient_evidence"
            assert rate.impact_ratio is None
            assert rate.group != judged.reference
        elif rate.impact_ratio is not None:
            assert 0 <= rate.impact_ratio <= 1


@pytest.mark.parametrize(
    ("positive", "ratio", "verdict"),
    [
        (50, 1.0, "ok"),
        (40, 0.8, "ok"),
        (39, 0.78, "below_four_fifths"),
        (0, 0.0, "below_four_fifths"),
    ],
)
def test_four_fifths_of_the_highest_rate_is_the_line(positive, ratio, verdict):
    judged = judge({"ref": Count(100, 50), "g": Count(100, positive)})
    rate = next(r for r in judged.rates if r.group == "g")
    assert rate.impact_ratio == pytest.approx(ratio)
    assert rate.verdict == verdict


def test_one_group_or_no_selection_at_all_is_insufficient():
    for counts in ({"a": Count(500, 100)}, {"a": Count(500, 0), "b": Count(500, 0)}):
        judged = judge(counts)
        assert judged.reference is None
        assert {rate.verdict for rate in judged.rates} == {"insufficient_evidence"}


def income_window(**options):
    window = Window("income", ">50K", **options)
    rng = np.random.default_rng(0)
    for leaf in range(400):
        sex, race = rng.choice(["Male", "Female"]), rng.choice(["White", "Black"])
        label = ">50K" if rng.random() < (0.5 if sex == "Male" else 0.3) else "<=50K"
        window.add(
            arm="control" if leaf % 2 else None,
            version="1",
            groups=[[{"sex": str(sex), "race": str(race)}, label, 1]],
            leaf=leaf + 10,
            time_us=1000 + leaf,
        )
    return window


def test_every_cell_becomes_an_event_of_the_log():
    records = income_window().records()
    assert [(r["arm"], r["attribute"]) for r in records] == [
        (None, "race"), (None, "race × sex"), (None, "sex"),
        ("control", "race"), ("control", "race × sex"), ("control", "sex"),
    ]  # fmt: skip
    for record in records:
        event = FairnessWindow(id="x", time_us=5, **record)
        assert decode(encode(event)) == event
        assert (event.from_leaf, event.to_leaf) == (10, 410)
        assert (event.from_us, event.to_us) == (1000, 1399)
        assert sum(group["n"] for group in event.groups) == 200
    female = records[2]["groups"][0]
    assert female["group"] == "Female"
    assert female["verdict"] == "below_four_fifths"
    assert records[2]["reference_group"] == "Male"
    assert records == income_window().records()


def test_the_minimum_count_is_a_setting():
    records = income_window(minimum_count=1000).records()
    verdicts = {group["verdict"] for record in records for group in record["groups"]}
    assert verdicts == {"insufficient_evidence"}


def test_rows_of_one_decision_count_by_their_number():
    window = Window("m", "yes")
    groups = [[{"sex": "F"}, "yes", 3], [{"sex": "F"}, "no", 2], [{"sex": ""}, "no", 1]]
    window.add(arm=None, version="1", groups=groups, leaf=0, time_us=0)
    (record,) = window.records()
    assert [(g["group"], g["n"], g["positive"]) for g in record["groups"]] == [
        ("F", 5, 3), ("not given", 1, 0)
    ]  # fmt: skip


def test_invented_groups_do_not_push_known_ones_out():
    window = Window("m", "yes", known={"sex": ["Female", "Male"]})
    for i in range(1000):
        row = [[{"sex": f"x{i}"}, "no", 1]]
        window.add(arm=None, version="1", groups=row, leaf=i, time_us=i)
    row = [[{"sex": "Female"}, "yes", 1]]
    window.add(arm=None, version="1", groups=row, leaf=1000, time_us=1000)
    (record,) = window.records()
    counted = {g["group"]: g["n"] for g in record["groups"]}
    assert len(counted) == MAX_GROUPS + 1
    assert (counted["Female"], counted["Male"]) == (1, 0)
    assert sum(counted.values()) == 1001
    assert counted[OTHER] == 1000 - (MAX_GROUPS - 2)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("1234567"), st.booleans()),
        min_size=1,
    ),
    st.integers(0, 7),
)
def test_small_groups_are_counted_and_not_named(decisions, smallest):
    window = Window("m", "yes", smallest=smallest)
    people: dict[str, set[str]] = {}
    for leaf, (group, unit, selected) in enumerate(decisions):
        people.setdefault(group, set()).add(unit)
        row = [[{"sex": group}, "yes" if selected else "no", 1]]
        window.add(arm=None, version="1", groups=row, leaf=leaf, time_us=leaf, unit=unit)
    (record,) = window.records()
    counted = {g["group"]: g for g in record["groups"]}
    assert set(counted) - {OTHER} == {g for g, who in people.items() if len(who) >= smallest}
    assert sum(g["n"] for g in counted.values()) == len(decisions)
    assert sum(g["positive"] for g in counted.values()) == sum(one[2] for one in decisions)


def test_an_empty_window_has_nothing_to_record():
    assert Window("m", "yes").records() == []
