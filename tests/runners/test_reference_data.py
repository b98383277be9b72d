"""The reference tasks on their real data, and the quickly trained versions of the suite.

These tests read the data packages and use the suite's own trained models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from runners.manifest import Manifest
from runners.pipeline import Pipeline
from runners.reference import TASKS, heldout
from runners.registry import Artefact, Registry
from runners.tensor import Tensor

NAMES = ("digits", "sentiment", "income", "recommend")
PAIRS = [(name, version) for name in NAMES for version in ("1", "2")]
FILES = {
    "background.json",
    "confusion.png",
    "curves.png",
    "evaluation.json",
    "model.onnx",
    "model.yaml",
    "pipeline.json",
    "roc.png",
}


@pytest.fixture(scope="session")
def cache(trained_home: Path) -> Path:
    return trained_home / "data"


@pytest.fixture(scope="session")
def held(trained_home: Path) -> Registry:
    return Registry(trained_home / "bentoml")


def served(artefact: Artefact, batch: Mapping[str, Any]) -> dict[str, Any]:
    pipeline = Pipeline.parse(artefact.read("pipeline.json"))
    session = ort.InferenceSession(artefact.read("model.onnx"))
    names = [output.name for output in session.get_outputs()]
    raw = session.run(names, pipeline.before(batch))
    return pipeline.after(dict(zip(names, raw, strict=True)))


@pytest.mark.parametrize("name", NAMES)
def test_held_out_rows_are_what_a_caller_sends(name: str, cache: Path) -> None:
    rows = heldout(name, cache)
    signature = TASKS[name].signature
    datatypes = {spec.name: spec.datatype for spec in signature.inputs}
    inputs = {key: Tensor(key, datatypes[key], data) for key, data in rows.batch.items()}
    assert signature.check(inputs) == len(rows.labels)
    assert set(rows.labels.tolist()) == set(range(len(TASKS[name].labels)))


def test_the_data_is_the_data_that_we_say(cache: Path) -> None:
    counts = {name: TASKS[name].load(cache).source["rows"] for name in NAMES}
    assert counts == {"digits": 5000, "sentiment": 40973, "income": 32561, "recommend": 99985}


@pytest.mark.parametrize("name", NAMES)
def test_no_held_out_row_was_trained_on(name: str, cache: Path) -> None:
    data = TASKS[name].load(cache)

    def keys(rows: Any) -> set[bytes]:
        columns = [rows.batch[spec.name] for spec in TASKS[name].signature.inputs]
        return {
            b"\x1f".join(
                item if isinstance(item, bytes) else np.asarray(item).tobytes()
                for item in (column[at].item() if column[at].size == 1 else column[at]
                             for column in columns)
            )
            for at in range(len(rows))
        }  # fmt: skip

    assert not keys(data.train) & keys(data.test)
    assert not keys(data.valid) & keys(data.test)


def test_both_languages_are_in_every_part(cache: Path) -> None:
    data = TASKS["sentiment"].load(cache)
    for part in (data.train, data.valid, data.test):
        assert set(np.asarray(part.groups).tolist()) == {"en", "zh"}


@pytest.mark.parametrize(("name", "version"), PAIRS)
def test_every_version_is_held_whole_and_serves_its_signature(
    name: str, version: str, held: Registry, cache: Path
) -> None:
    artefact = held.open(name, version)
    assert set(artefact.manifest.files) == FILES
    batch = {key: values[:40] for key, values in heldout(name, cache).batch.items()}
    found = served(artefact, batch)
    for spec in artefact.manifest.signature.outputs:
        assert spec.admits(found[spec.name].shape)
        assert found[spec.name].dtype == (np.float32 if spec.datatype == "FP32" else np.int64)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("name", "version"), PAIRS)
def test_a_row_has_the_same_answer_alone_and_in_a_batch(
    name: str, version: str, held: Registry, cache: Path
) -> None:
    artefact = held.open(name, version)
    batch = {key: values[:25] for key, values in heldout(name, cache).batch.items()}
    together = served(artefact, batch)
    for at in range(25):
        alone = served(artefact, {key: values[at : at + 1] for key, values in batch.items()})
        for output, values in alone.items():
            np.testing.assert_allclose(values[0], together[output][at], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_both_versions_have_one_signature_and_differ(name: str, held: Registry) -> None:
    first, second = (held.manifest(name, version) for version in ("1", "2"))
    assert first.signature == second.signature == TASKS[name].signature
    assert first.digest != second.digest
    assert second.parent == first.digest


@pytest.mark.parametrize(("name", "version"), PAIRS)
def test_the_manifest_says_how_it_was_made(name: str, version: str, held: Registry) -> None:
    manifest: Manifest = held.manifest(name, version)
    assert float(str(manifest.evaluation["onnx_max_abs_difference"])) <= 1e-5
    wanted = "tensorflow" if name == "income" else "pytorch"
    assert manifest.framework.startswith(wanted)
    assert len(str(manifest.training_data["sha256"]).split()[0]) == 64
    threshold = Pipeline.parse(held.open(name, version).read("pipeline.json")).body["after"]
    assert threshold["label"]["threshold"] == manifest.threshold
    assert set(manifest.protected) == set(TASKS[name].protected)


def test_an_unknown_user_and_film_are_served(held: Registry, cache: Path) -> None:
    batch = {key: values[:1].copy() for key, values in heldout("recommend", cache).batch.items()}
    batch["user_id"][0, 0], batch["item_id"][0, 0] = 10**9, -5
    batch["occupation"][0, 0] = b"astronaut"
    for version in ("1", "2"):
        found = served(held.open("recommend", version), batch)
        assert 1.0 <= found["rating"][0, 0] <= 5.0


@pytest.mark.parametrize("text", ["", " ", "🤷", "很", "zzzz qqqq", "a" * 100_000])
def test_any_text_is_served(text: str, held: Registry) -> None:
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = text.encode()
    for version in ("1", "2"):
        found = served(held.open("sentiment", version), {"text": cell})
        assert np.isfinite(found["probabilities"]).all()
