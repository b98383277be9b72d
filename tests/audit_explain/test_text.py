import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lime.lime_text import LimeTextExplainer

from audit.explain import ExplainError, explain
from audit.explain.text import FastTextExplainer
from audit.explain.tokens import MAX_UNITS, units, words
from tests.audit_explain.builders import text_model, text_row

LABELS = ["negative", "neutral", "positive"]


def run(text, **options):
    options = {"target": None, "seed": 3, "samples": 400} | options
    return explain("text", text_row(text), text_model, background={}, labels=LABELS, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't buy it, ever.", ["Don't", "buy", "it", "ever"]),
        ("这本书很好", ["这", "本", "书", "很", "好"]),
        ("iPhone手机good!!", ["iPhone", "手", "机", "good", "!!"]),
        ("well-made 10/10 😀", ["well-made", "10", "10", "😀"]),
        ("ありがとう", ["あ", "り", "が", "と", "う"]),
        ("... , ;", []),
        ("", []),
    ],
)
def test_words_and_characters_are_the_units(text, expected):
    assert words(text) == expected


@given(st.text(max_size=400))
def test_units_are_in_order_disjoint_and_bounded(text):
    found = units(text)
    assert len(found) <= MAX_UNITS
    edges = [edge for unit in found for edge in unit]
    assert edges == sorted(edges)
    assert all(a < b for a, b in found)


def test_a_long_text_is_cut_into_runs():
    found = units("word " * 1000)
    assert 1 < len(found) <= MAX_UNITS
    assert found[-1].end == len("word " * 1000) - 1


@pytest.mark.parametrize("text", ["a good film, not a bad one", "这本书不好, good 书"])
def test_stock_lime_with_the_same_seed_gives_the_same_weights(text):
    def ask(texts):
        return np.concatenate([text_model(text_row(t)) for t in texts]).astype(float)

    found = [
        kind(
            bow=False, mask_string="", split_expression=words, feature_selection="none",
            random_state=5,
        ).explain_instance(text, ask, labels=(2,), num_features=99, num_samples=300)
        for kind in (FastTextExplainer, LimeTextExplainer)
    ]  # fmt: skip
    ours, stock = (dict(f.local_exp[2]) for f in found)
    assert sorted(ours) == sorted(stock)
    for unit, weight in stock.items():
        assert ours[unit] == pytest.approx(weight, abs=1e-9)
    assert found[0].score == pytest.approx(found[1].score, abs=1e-9)


def test_a_chinese_sentence_has_a_weight_for_each_character():
    found = run("这本书很好")
    assert [f.name for f in found.features] == list("这本书很好")
    assert found.reasons[0].name == "好"
    assert found.reasons[0].weight > 0.2
    assert not found.low_fit


def test_positions_are_those_of_the_text_and_places_count_for_themselves():
    text = "good, not good"
    found = run(text, target=2)
    assert [text[slice(*f.spans[0])] for f in found.features] == ["good", "not", "good"]
    assert found.features[1].weight < 0 < found.features[0].weight
    assert json.loads(found.body())["details"] == {"text": text}


@pytest.mark.parametrize("text", ["", "   ", "…,;"])
def test_a_text_without_units_is_empty_input(text):
    with pytest.raises(ExplainError) as caught:
        run(text)
    assert caught.value.reason == "empty_input"


def test_a_text_that_moves_nothing_is_flat():
    with pytest.raises(ExplainError) as caught:
        run("completely unknown words")
    assert caught.value.reason == "flat_prediction"


def test_bytes_that_are_no_text_and_endless_texts_are_refused():
    row = text_row("x")
    row["text"][0, 0] = b"\xff\xfe"
    with pytest.raises(ExplainError) as caught:
        explain("text", row, text_model, background={}, labels=LABELS, target=1, seed=0, samples=50)
    assert caught.value.reason == "wrong_shape"
    with pytest.raises(ExplainError) as caught:
        run("good " * 5000)
    assert caught.value.reason == "input_too_large"


def test_no_personal_text_is_in_the_summary_or_an_error():
    assert "secret" not in json.dumps(run("secret good").summary())
