import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lime.lime_tabular import LimeTabularExplainer
from scipy import stats

from audit.explain import ExplainError, explain
from audit.explain.background import Categorical, read_background
from audit.explain.table import FastTabularExplainer, Table
from tests.audit_explain.builders import BACKGROUND, cell, table_model, table_row

LABELS = ["<=50K", ">50K"]


def run(row=None, background=BACKGROUND, predict=table_model, **options):
    options = {"target": 1, "seed": 3, "samples": 1000} | options
    row = table_row() if row is None else row
    return explain("table", row, predict, background=background, labels=LABELS, **options)


def test_raw_columns_get_weights_conditions_and_values():
    found = run()
    by_name = {f.name: f for f in found.features}
    assert list(by_name) == ["age", "hours", "education"]
    assert by_name["age"].value == "52"
    assert by_name["age"].condition == "age > 48"
    assert by_name["education"].condition == "education = PhD"
    assert by_name["education"].weight > by_name["age"].weight > 0
    assert found.reasons[0].name == "education"
    assert found.fit_r2 > 0.5


def test_a_rare_category_is_measured_as_well_as_a_common_one():
    weights = [
        next(f.weight for f in run(seed=seed).features if f.name == "education")
        for seed in range(8)
    ]
    assert np.std(weights) < 0.1 * np.mean(weights)


def test_an_unknown_category_has_a_weight_too():
    found = run(table_row(education=b"Klingon"))
    assert found.features[2].condition == "education = Klingon"
    assert found.features[2].weight != 0


def test_stock_lime_with_the_same_seed_gives_the_same_weights():
    row = table_row()
    table = Table(row, list(read_background(BACKGROUND).values()))

    def ask(encoded):
        return table_model(table.decode(encoded)).astype(float)

    found = []
    for kind in (FastTabularExplainer, LimeTabularExplainer):
        explainer = kind(table.pseudo(), **table.options(np.random.RandomState(9)))
        found.append(
            explainer.explain_instance(
                table.encoded(), ask, labels=(1,), num_features=3, num_samples=1000
            )
        )
    ours, stock = (dict(f.local_exp[1]) for f in found)
    for column, weight in stock.items():
        assert ours[column] == pytest.approx(weight, abs=1e-9)
    assert found[0].score == pytest.approx(found[1].score, abs=1e-9)


def test_a_quarter_of_one_value_is_sampled_as_that_value():
    background = {"inputs": [{"name": "x", "quantiles": {"0": 7, "25": 7, "50": 9, "100": 20}}]}
    table = Table({"x": cell(8)}, list(read_background(background).values()))
    explainer = FastTabularExplainer(table.pseudo(), **table.options(np.random.RandomState(0)))
    values = explainer.discretizer.get_undiscretize_values(0, np.zeros(5, dtype=int))
    assert list(values) == [7.0] * 5


def test_bins_are_sampled_with_the_distribution_of_the_column():
    table = Table(table_row(), list(read_background(BACKGROUND).values()))
    explainer = FastTabularExplainer(table.pseudo(), **table.options(np.random.RandomState(0)))
    drawn = explainer.discretizer.get_undiscretize_values(0, np.repeat([0, 1, 2, 3], 1000))
    low, high = np.repeat([17, 28, 37, 48], 1000), np.repeat([28, 37, 48, 90], 1000)
    assert ((drawn >= low) & (drawn <= high)).all()
    column = table.pseudo()[:, 0]
    assert stats.ks_2samp(drawn, column).statistic < 0.06


@given(
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_a_pseudo_column_has_the_frequencies_and_every_value(shares, own):
    total = sum(shares)
    column = Categorical(
        "c", tuple(str(i) for i in range(len(shares))), tuple(s / total for s in shares)
    ).around(str(own))
    assert sum(column.frequencies) == pytest.approx(1.0)
    assert column.frequencies[column.values.index(str(own))] >= 0.5
    counts = np.bincount(column.pseudo_column().astype(int), minlength=len(column.values))
    assert counts.sum() == 1001
    assert counts.min() >= 1
    for count, share in zip(counts, column.frequencies, strict=True):
        assert abs(count - 1001 * share) <= 1 + len(shares)


FORMS = [
    {"age": {"quantiles": {"0": 0, "0.5": 5, "1": 10}}},
    {"age": {"quantiles": {"0": 0, "50": 5, "100": 10}}},
    {"age": {"quantiles": [0, 5, 10]}},
    {"age": {"min": 0, "max": 10, "quantiles": {"0.5": 5}}},
]


@pytest.mark.parametrize("inputs", FORMS)
def test_quantiles_are_read_in_every_documented_form(inputs):
    column = read_background({"inputs": inputs})["age"]
    assert column.probabilities == (0.0, 0.5, 1.0)
    assert column.quantiles == (0.0, 5.0, 10.0)


@pytest.mark.parametrize(
    "background",
    [
        {},
        {"inputs": 3},
        {"inputs": [{"name": "age", "quantiles": {"0": 5, "100": 1}}]},
        {"inputs": [{"name": "age", "quantiles": {"0": "x"}}]},
        {"inputs": [{"name": "age", "values": ["a"], "frequencies": []}]},
        {"inputs": [{"name": "education", "quantiles": {"0": 1, "100": 5}}]},
    ],
)
def test_a_background_without_sense_is_refused(background):
    with pytest.raises(ExplainError) as caught:
        run(background=background)
    assert caught.value.reason == "background_invalid"


def test_a_row_whose_columns_are_all_fixed_is_empty_input():
    with pytest.raises(ExplainError) as caught:
        run(background={"inputs": [{"name": "user_id", "id": True}]})
    assert caught.value.reason == "empty_input"
