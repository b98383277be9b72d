"""ONNX sessions of real artefacts: the device is what it says, and peers do not matter."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runners.errors import ArtefactCorrupt, DeviceUnavailable, ModelFailed
from runners.fleet import Fleet
from runners.onnx import OnnxModel, check_installation
from runners.registry import Artefact, Registry
from runners.tensor import Batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def registry(trained_home: Path) -> Registry:
    return Registry(trained_home / "bentoml")


def rows(model: OnnxModel, count: int) -> Batch:
    """Random raw inputs that fit any reference model."""
    rng = np.random.default_rng(5)
    words = [b"good", b"bad film", "很好".encode(), b"Male", b"Private", b"", b"\xf0\x9f\x99\x82 !"]
    made = {}
    for spec in model.signature.inputs:
        shape = (count, *spec.shape[1:])
        if spec.datatype == "BYTES":
            made[spec.name] = rng.choice(np.array(words, dtype=object), shape)
        elif spec.datatype == "UINT8":
            made[spec.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            made[spec.name] = rng.integers(0, 60, shape, dtype=np.int64)
    return made


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("name", ["digits", "sentiment", "income", "recommend"])
def test_a_row_gets_the_same_answer_alone_and_among_peers(registry, name, version) -> None:
    model = OnnxModel(registry.open(name, version), device="cpu")
    model.warm_up()
    assert model.device == "cpu"
    batch = rows(model, 9)
    together = model.infer(batch)
    for row in range(9):
        alone = model.infer({key: data[row : row + 1] for key, data in batch.items()})
        for key, data in alone.items():
            np.testing.assert_allclose(data[0], together[key][row], atol=1e-5)
    for spec in model.signature.outputs:
        assert spec.admits(together[spec.name].shape)


def test_a_machine_without_a_card_refuses_cuda_and_says_what_to_do(registry) -> None:
    with pytest.raises(DeviceUnavailable, match="WEIGHBRIDGE_DEVICE=auto"):
        OnnxModel(registry.open("digits", "1"), device="cuda")
    with pytest.raises(DeviceUnavailable):
        check_installation("cuda")
    check_installation("auto")


def test_a_file_that_is_no_network_is_refused(registry, tmp_path: Path) -> None:
    artefact = registry.open("digits", "1")
    (tmp_path / "model.onnx").write_bytes(b"not a network")
    (tmp_path / "pipeline.json").write_bytes(artefact.read("pipeline.json"))
    with pytest.raises(ArtefactCorrupt, match=r"model\.onnx"):
        OnnxModel(Artefact(tmp_path, artefact.manifest), device="cpu")
    files = artefact.manifest.files | {"model.onnx": hashlib.sha256(b"not a network").hexdigest()}
    signed = replace(artefact.manifest, files=files)
    with pytest.raises(ModelFailed, match=r"could not load model\.onnx"):
        OnnxModel(Artefact(tmp_path, signed), device="cpu")


async def test_versions_live_side_by_side_and_unload_drains(registry) -> None:
    told: list[str] = []

    async def on_ready(slot) -> None:
        assert slot.state == "LOADING", "it is put on record before it answers"
        told.append(f"{slot.manifest.name}:{slot.manifest.version}")

    fleet = Fleet(registry, lambda a: OnnxModel(a, device="cpu"), on_ready=on_ready)
    await fleet.load_all(["digits"])
    assert told == ["digits:1", "digits:2"]
    assert fleet.versions("digits") == ["1", "2"]
    slot = fleet.ready("digits", "1")
    answer = await slot.served.infer({"image": np.zeros((1, 28, 28, 1), np.uint8)}, 1)
    assert answer.outputs["probabilities"].shape == (1, 10)
    await fleet.unload("digits", "1")
    assert [s.state for s in fleet.index()] == ["UNAVAILABLE", "READY"]
    await fleet.load("digits", "1")
    assert fleet.ready("digits", "1").state == "READY"
    await fleet.close()


def test_serving_imports_no_training_framework() -> None:
    code = (
        "import sys, services.wiring\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'lime', 'sklearn', 'matplotlib', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
