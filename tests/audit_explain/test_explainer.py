import json
from hashlib import sha256

import numpy as np
import pytest

from audit.canonical import is_canonical
from audit.explain import EXPLAINER_VERSION, ExplainError, explain, seed_for
from audit.record import ExplanationRecord, decode, encode
from tests.audit_explain.builders import (
    BACKGROUND,
    DigitModel,
    digit,
    table_model,
    table_row,
    text_model,
    text_row,
)

DECISION = "0190b4c2-7c3b-7cc0-8000-000000000001"
CASES = {
    "image": (lambda: digit(4), DigitModel(), [str(i) for i in range(10)]),
    "text": (lambda: text_row("a good book"), text_model, ["negative", "neutral", "positive"]),
    "table": (table_row, table_model, ["<=50K", ">50K"]),
}


def run(modality, **changes):
    row, predict, labels = CASES[modality]
    options = {
        "row": row(), "predict": predict, "background": BACKGROUND, "labels": labels,
        "target": None, "seed": seed_for(DECISION), "samples": 200,
    } | changes  # fmt: skip
    return explain(modality, options.pop("row"), options.pop("predict"), **options)


def test_the_seed_is_the_hash_of_decision_and_version():
    digest = sha256((DECISION + EXPLAINER_VERSION).encode()).hexdigest()
    assert seed_for(DECISION) == int(digest[:8], 16)
    assert seed_for(DECISION, "2") != seed_for(DECISION)


@pytest.mark.parametrize("modality", CASES)
def test_the_same_seed_gives_the_same_bytes(modality):
    slow = iter([0, 10**10])
    first = run(modality, clock_ns=lambda: next(slow))
    assert first.cost_ms == 10_000
    assert run(modality).body() == first.body()
    assert run(modality, seed=1).body() != first.body()
    assert is_canonical(first.body())


@pytest.mark.parametrize("modality", CASES)
def test_the_summary_fills_an_explanation_event(modality):
    found = run(modality)
    event = ExplanationRecord(
        id=DECISION, time_us=1, decision=DECISION, model="m", version="1", digest="sha256:0",
        body_commitment="00", **found.summary(),
    )  # fmt: skip
    assert decode(encode(event)) == event
    assert float(event.fit_r2) == pytest.approx(found.fit_r2, rel=1e-5)
    assert event.n_features == len(found.features)


@pytest.mark.parametrize("modality", CASES)
def test_the_error_is_the_distance_to_the_models_own_answer(modality):
    row, predict, _ = CASES[modality]
    found = run(modality, samples=700)
    own = predict(row())[0]
    assert found.target == int(np.argmax(own))
    assert found.probability == pytest.approx(float(own.max()), abs=1e-6)
    assert found.local_error == pytest.approx(abs(found.surrogate - found.probability))
    if modality != "table":  # whose x is a row of ones
        total = found.intercept + sum(f.weight for f in found.features)
        assert found.surrogate == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("modality", CASES)
def test_the_global_random_state_is_left_alone(modality):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    run(modality)
    assert (np.random.get_state()[1] == before).all()


def test_a_low_fit_is_flagged_and_gives_no_reasons():
    rng = np.random.default_rng(0)

    def noise(batch):
        n = len(batch["text"])
        return rng.dirichlet([1, 1, 1], n)

    found = run("text", predict=noise)
    assert found.low_fit
    assert found.reasons == ()
    assert json.loads(found.body())["reasons"] == []


def bad(value):
    return lambda batch: value(len(next(iter(batch.values()))))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"predict": bad(lambda n: np.full((n, 3), np.nan))}, "not_finite"),
        ({"predict": bad(lambda n: np.full((n, 4), 0.25))}, "wrong_shape"),
        ({"predict": bad(lambda n: np.full(n, 0.25))}, "wrong_shape"),
        ({"labels": [str(i) for i in range(1001)]}, "too_many_classes"),
        ({"labels": []}, "too_many_classes"),
        ({"target": 3}, "wrong_shape"),
        ({"samples": 3}, "wrong_shape"),
    ],
)
def test_refusals_carry_a_reason(changes, reason):
    with pytest.raises(ExplainError, match="could not explain the row") as caught:
        run("text", **changes)
    assert caught.value.reason == reason


def test_an_unknown_modality_is_refused():
    with pytest.raises(ExplainError) as caught:
        explain(
            "audio", text_row("x"), text_model, background={}, labels=["a", "b", "c"],
            target=0, seed=0, samples=50,
        )  # fmt: skip
    assert caught.value.reason == "unknown_modality"


def test_an_error_of_the_model_passes_through():
    def broken(_batch):
        raise KeyError("the model's own")

    with pytest.raises(KeyError, match="own"):
        run("text", predict=broken)
