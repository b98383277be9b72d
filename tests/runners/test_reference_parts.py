"""The parts of training that need no data: splits, networks, export, curves, statistics."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from runners.errors import ModelNotFound, RunnerError
from runners.reference.background import background
from runners.reference.catalog import TASKS, task
from runners.reference.evaluation import evaluate, headline
from runners.reference.export import TOLERANCE, answers, difference, to_onnx
from runners.reference.fit import Part, Plan, fit, predict
from runners.reference.networks import RecommendNet, SentimentNet
from runners.reference.plots import draw
from runners.reference.progress import Epoch, Watch, write_events
from runners.reference.show import show
from runners.reference.task import Rows, column, stratified

HISTORY = [Epoch(1, 0.01, 1.0, 0.9, 0.5), Epoch(2, 0.001, 0.8, 0.85, 0.6)]


def rows_of(count: int) -> Rows:
    labels = np.arange(count) % 3
    return Rows({"n": np.arange(count).reshape(-1, 1)}, labels.astype(np.int64))


@given(st.integers(30, 200))
@settings(max_examples=20)
def test_every_row_is_in_one_part_and_each_part_has_its_share(count: int) -> None:
    rows = rows_of(count)
    parts = stratified(rows, rows.labels.tolist(), {})
    seen = [part.batch["n"].ravel() for part in (parts.train, parts.valid, parts.test)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(count))
    for label in range(3):
        whole = int((rows.labels == label).sum())
        assert abs(int((parts.test.labels == label).sum()) - 0.2 * whole) <= 1


def test_the_split_is_the_same_every_time() -> None:
    rows = rows_of(90)
    first, second = (stratified(rows, rows.labels.tolist(), {}) for _ in range(2))
    assert first.test.batch["n"].tolist() == second.test.batch["n"].tolist()
    assert first.source == {"rows": 90, "split_seed": 20240607}


def test_rows_that_are_alike_stay_together() -> None:
    rows = rows_of(300)
    alike = (np.arange(300) // 4).tolist()
    parts = stratified(rows, rows.labels.tolist(), {}, together=alike)
    seen = [set((part.batch["n"].ravel() // 4).tolist()) for part in (parts.train, parts.test)]
    assert not seen[0] & seen[1]


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ModelNotFound, match="no reference model 'chess'; known: digits"):
        task("chess")


def sentences(count: int, longest: int = 9) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(3)
    tokens = np.zeros((count, longest), np.int64)
    for row in tokens:
        row[: random.integers(1, longest + 1)] = 1
    return np.where(tokens > 0, random.integers(1, 50, tokens.shape), 0)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_text_has_the_same_answer_alone_in_a_batch_and_after_export(bidirectional: bool) -> None:
    torch.manual_seed(1)
    network = SentimentNet(valences=torch.zeros(50), bidirectional=bidirectional).eval()
    part = Part({"tokens": sentences(40)}, np.zeros(40, np.int64))
    together = predict(network, part, by_length=True)["probabilities"]
    session = ort.InferenceSession(to_onnx(network, part.feeds, ["probabilities"]))
    (batch,) = session.run(None, {"tokens": part.feeds["tokens"]})
    np.testing.assert_allclose(batch, together, atol=TOLERANCE)
    for row, expected in zip(part.feeds["tokens"], together, strict=True):
        (alone,) = session.run(None, {"tokens": row[row != 0].reshape(1, -1)})
        np.testing.assert_allclose(alone[0], expected, atol=TOLERANCE)


def test_the_second_direction_reads_from_the_end() -> None:
    torch.manual_seed(1)
    network = SentimentNet(valences=torch.zeros(50), bidirectional=True).eval()
    assert network.back is not None
    network.back.load_state_dict(network.forth.state_dict())
    network.out.weight.data[:, 128:] = network.out.weight.data[:, :128]
    text, turned = torch.tensor([[3, 9, 4, 0, 0]]), torch.tensor([[4, 9, 3]])
    torch.testing.assert_close(network(text), network(turned))


@pytest.mark.parametrize("ids", [None, (5, 6)])
def test_recommendations_export_with_a_rating(ids: tuple[int, int] | None) -> None:
    torch.manual_seed(1)
    network = RecommendNet(categories=9, columns=2, genres=4, ids=ids).eval()
    feeds: dict[str, np.ndarray[Any, Any]] = {
        "numeric": np.ones((7, 2), np.float32),
        "categories": np.arange(14).reshape(7, 2) % 9,
        "genres": np.eye(7, 4, dtype=np.float32),
    }
    if ids is not None:
        feeds |= {"user": np.arange(7).reshape(7, 1) % 5, "item": np.arange(7).reshape(7, 1) % 6}
    part = Part(feeds, np.zeros(7, np.int64))
    said = predict(network, part, by_length=False)
    exported = answers(to_onnx(network, feeds, list(said)), part)
    assert difference("toy:1", said, exported) <= TOLERANCE
    assert exported["rating"].shape == (7, 1)
    assert ((exported["rating"] > 1) & (exported["rating"] < 5)).all()


def test_an_export_that_says_something_else_is_refused() -> None:
    right = {"probabilities": np.full((2, 2), 0.5, np.float32)}
    wrong = {"probabilities": np.full((2, 2), 0.5001, np.float32)}
    with pytest.raises(RunnerError, match="could not export toy:1: ONNX and the framework differ"):
        difference("toy:1", right, wrong)
    with pytest.raises(RunnerError, match="could not export toy:1: outputs"):
        difference("toy:1", right, {**right, "rating": right["probabilities"]})
    broken = {"probabilities": np.full((2, 2), np.nan, np.float32)}
    with pytest.raises(RunnerError, match="differ by nan"):
        difference("toy:1", right, broken)


def learnable(count: int) -> Part:
    values = np.random.default_rng(5).normal(size=(count, 3)).astype(np.float32)
    return Part({"x": values}, (values[:, 0] > 0).astype(np.int64))


def trained(plan: Plan) -> tuple[torch.nn.Module, Watch]:
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    watch = Watch("toy", plan.epochs, None, Console(quiet=True))
    fit(network, learnable(400), learnable(100), plan, watch)
    return network, watch


def test_training_is_the_same_twice_and_learns() -> None:
    plan = Plan(8, 32, 3e-2, patience=8)
    (first, watch), (second, _) = trained(plan), trained(plan)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert watch.history[-1].valid_accuracy > 0.9
    rates = [epoch.learning_rate for epoch in watch.history]
    assert rates == sorted(rates, reverse=True)


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    network, watch = trained(Plan(200, 32, 0.3, patience=2))
    losses = [epoch.valid_loss for epoch in watch.history]
    assert len(losses) < 200
    valid = learnable(100)
    scores = predict(network, valid, by_length=False)["probabilities"]
    kept = -np.log(scores[np.arange(100), valid.labels]).mean()
    assert kept == pytest.approx(min(losses), abs=1e-4)


def table() -> tuple[Rows, dict[str, Any]]:
    batch = {
        spec.name: column(["1"] * 4, spec.datatype) for spec in TASKS["recommend"].signature.inputs
    }
    batch["gender"] = column(["F", "F", "M", "M"], "BYTES")
    batch["age"] = column([17, 18, 60, 61], "INT64")
    rows = Rows(batch, np.array([0, 1, 0, 1]), ratings=np.array([1, 5, 3, 4], np.float32))
    positive = np.array([0.2, 0.9, 0.6, 0.4], np.float32)
    served = {
        "probabilities": np.stack([1 - positive, positive], axis=1),
        "label": (positive >= 0.5).astype(np.int64).reshape(-1, 1),
        "rating": np.array([[1], [5], [4], [4]], np.float32),
    }
    return rows, evaluate(TASKS["recommend"], rows, served)


def test_the_figures_of_a_small_table_are_those_by_hand() -> None:
    _, result = table()
    assert result["accuracy"] == 0.5
    assert result["confusion"] == [[1, 1], [1, 1]]
    assert result["auc"] == 0.75
    assert result["rmse"] == 0.5
    assert result["fairness"]["gender"]["F"] == {
        "rows": 2,
        "selection_rate": 0.5,
        "true_positive_rate": 1.0,
    }
    assert set(result["fairness"]["age_band"]) == {"<18", "18-24", ">=55"}
    figures = headline({**result, "onnx_max_abs_difference": 1e-7})
    assert figures["auc"] == "0.7500"
    assert figures["onnx_max_abs_difference"] == "1.00e-07"


def test_a_table_of_figures_is_shown() -> None:
    _, result = table()
    console = Console(file=io.StringIO(), width=120)
    show(console, "recommend:2", {**result, "onnx_max_abs_difference": 1e-7})
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "recommend:2: 4 held-out rows" in shown
    assert "rmse 0.5000" in shown


def test_pictures_are_drawn(tmp_path: Path) -> None:
    _, result = table()
    draw(tmp_path, "recommend:2", HISTORY, result)
    for name in ("curves.png", "confusion.png", "roc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_background_holds_statistics_and_no_rows() -> None:
    rows, _ = table()
    found = {entry["name"]: entry for entry in background(TASKS["recommend"], rows)["inputs"]}
    assert list(found) == [spec.name for spec in TASKS["recommend"].signature.inputs]
    assert found["user_id"]["id"]
    assert not found["age"]["id"]
    assert found["age"]["mean"] == 39.0
    assert found["age"]["quantiles"]["100"] == 61.0
    assert found["gender"]["categorical"]
    assert found["gender"]["values"] == ["F", "M"]
    assert found["gender"]["frequencies"] == [0.5, 0.5]
    assert background(TASKS["digits"], rows)["inputs"] == []


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    path = write_events(tmp_path / "logs", HISTORY)
    events = list(LegacyEventFileLoader(str(path)).Load())
    found = {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
    }
    assert found["loss/train", 2] == pytest.approx(0.8)
    assert found["accuracy/valid", 1] == pytest.approx(0.5)


def test_a_bar_is_drawn_on_a_terminal_and_a_line_elsewhere() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
        with Watch.on(console, "toy:1", 2) as watch:
            watch.epoch(HISTORY[0])
            watch.done("accuracy 0.5")
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "toy:1" in shown
        assert "accuracy 0.5" in shown
        assert ("━" in shown) == terminal
