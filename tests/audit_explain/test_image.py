import base64
import json

import numpy as np
import pytest
from lime.lime_image import LimeImageExplainer

from audit.explain import ExplainError, explain
from audit.explain.image import FastImageExplainer
from audit.explain.segments import superpixels
from tests.audit_explain.builders import DigitModel, digit

LABELS = [str(i) for i in range(10)]


@pytest.fixture(scope="module")
def model():
    return DigitModel()


def run(row, predict, **options):
    options = {"target": None, "seed": 7, "samples": 400} | options
    return explain("image", row, predict, background={}, labels=LABELS, **options)


@pytest.mark.parametrize("index", range(20))
def test_a_digit_is_cut_into_twenty_to_forty_pieces(index):
    image = digit(index)["image"][0]
    cut = superpixels(image)
    assert 20 <= cut.pieces <= 40
    assert sorted(np.unique(cut.labels)) == list(range(cut.pieces))
    assert cut.background == cut.pieces - 1
    assert image[cut.labels == cut.background].max() <= 0.15 * 255
    assert list(cut.fill) == [0.0]
    assert (superpixels(image).labels == cut.labels).all()


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 32, 3)])
def test_a_picture_without_a_background_is_cut_whole(shape):
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    cut = superpixels(noise)
    assert 15 <= cut.pieces <= 45
    assert cut.background is None
    assert sorted(np.unique(cut.labels)) == list(range(cut.pieces))


def test_every_superpixel_is_hidden_sometimes(model):
    seen = []

    def watch(batch):
        seen.append(batch["image"])
        return model(batch)

    row = digit(3)
    run(row, watch)
    images = np.concatenate(seen[1:])[..., 0]
    cut = superpixels(row["image"][0])
    for piece in range(cut.background):
        inside = (cut.labels == piece) & (row["image"][0, :, :, 0] > 0)
        if inside.any():
            hidden = (images[:, inside] == 0).all(axis=1).mean()
            assert 0.2 < hidden < 0.5


def test_stock_lime_with_the_same_seed_and_cut_gives_the_same_weights(model):
    row = digit(5)
    image = row["image"][0]
    cut = superpixels(image)
    options = {
        "labels": (5,), "top_labels": None, "num_features": cut.pieces, "num_samples": 300,
        "hide_color": np.zeros(1, np.uint8), "random_seed": 0, "batch_size": 100,
        "segmentation_fn": lambda _: cut.labels,
    }  # fmt: skip
    explainers = [
        FastImageExplainer(most_hidden=None, feature_selection="none", random_state=11),
        LimeImageExplainer(feature_selection="none", random_state=11),
    ]
    found = [
        explainer.explain_instance(
            image, lambda images: model({"image": images}).astype(float), **options
        )
        for explainer in explainers
    ]
    ours, stock = (dict(f.local_exp[5]) for f in found)
    assert sorted(ours) == sorted(stock)
    for piece, weight in stock.items():
        assert ours[piece] == pytest.approx(weight, abs=1e-9)
    assert found[0].score == pytest.approx(found[1].score, abs=1e-9)


def test_the_explanation_points_at_the_ink_and_fits(model):
    found = run(digit(0), model)
    assert found.kind == "image"
    assert found.target_label == "0"
    assert not found.low_fit
    assert found.fit_r2 > 0.5
    assert len(found.features) == superpixels(digit(0)["image"][0]).background
    assert found.features[-1].name == f"superpixel {len(found.features) - 1}"
    assert max(f.weight for f in found.features) > 0.02


def test_the_body_holds_what_a_drawing_needs(model):
    row = digit(2)
    body = json.loads(run(row, model).body())
    details = body["details"]
    pixels = np.frombuffer(base64.b64decode(details["pixels"]), np.uint8)
    segments = np.frombuffer(base64.b64decode(details["segments"]), "<u2")
    assert (pixels == row["image"].ravel()).all()
    assert (segments == superpixels(row["image"][0]).labels.ravel()).all()
    assert (details["height"], details["width"], details["channels"]) == (28, 28, 1)


def test_a_model_is_asked_at_most_256_rows_at_a_time(model):
    model.calls.clear()
    run(digit(1), model, samples=700)
    assert model.calls == [1, 256, 256, 188]


def test_a_blank_picture_is_flat(model):
    with pytest.raises(ExplainError) as caught:
        run({"image": np.zeros((1, 28, 28, 1), np.uint8)}, model)
    assert caught.value.reason == "flat_prediction"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"image": np.zeros((2, 28, 28, 1), np.uint8)},
        {"image": np.zeros((1, 28, 28, 7), np.uint8)},
        {"image": np.zeros((1, 28), np.uint8)},
        {"a": np.zeros((1, 28, 28, 1), np.uint8), "b": np.zeros((1, 28, 28, 1), np.uint8)},
    ],
)
def test_a_row_of_another_shape_is_refused(row):
    with pytest.raises(ExplainError) as caught:
        run(row, lambda batch: np.full((len(next(iter(batch.values()))), 10), 0.1))
    assert caught.value.reason == "wrong_shape"


def test_a_picture_of_floats_and_colours_works():
    image = np.zeros((1, 30, 30, 3), np.float32)
    image[0, 5:20, 8:14] = [0.9, 0.2, 0.1]

    def redness(batch):
        assert batch["image"].dtype == np.float32
        red = batch["image"][..., 0].mean(axis=(1, 2))
        return np.stack([1 - red, red], axis=1)

    found = explain(
        "image", {"image": image}, redness, background={}, labels=["no", "yes"],
        target=1, seed=0, samples=200,
    )  # fmt: skip
    assert found.fit_r2 > 0.99
