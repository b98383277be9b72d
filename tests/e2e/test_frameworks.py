"""PyTorch and TensorFlow models in runner services, registered and called over both protocols."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import server as servers
import tritonclient.grpc as triton_grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runners"))

import networks

SAVED_MODEL = """
import sys
import tensorflow as tf
module = tf.Module()
spec = tf.TensorSpec([None, 2], tf.float32, "x")
module.call = tf.function(lambda x: {"y": 3 * x}, input_signature=[spec])
tf.saved_model.save(module, sys.argv[1], signatures=module.call)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One gateway whose runner services hold a model of each framework."""
    home = tmp_path_factory.mktemp("frameworks")
    saved = home / "saved"
    subprocess.run([sys.executable, "-c", SAVED_MODEL, str(saved)], check=True, capture_output=True)
    unstarted = servers.stopped(home)
    for path, *words in (
        (networks.to_script("cnn", home / "cnn.pt"), "cnn", "--input", "x:FP32:-1,1,12,12"),
        (networks.to_program("lstm", home / "lstm.pt2"), "lstm", "--output", "y"),
        (saved, "dnn"),
    ):
        name, *options = words
        done = unstarted.cli(
            "register", str(path), "--name", name, "--version", "1", "--kind", name, *options
        )
        assert done.returncode == 0, done.stderr
        assert "batched: random rows" in done.stdout
    with servers.running(
        home, WEIGHBRIDGE_RUNNER="service", WEIGHBRIDGE_EXPLAINER="false"
    ) as started:
        yield started


@pytest.mark.parametrize(("kind", "output"), [("cnn", "output__0"), ("lstm", "y")])
def test_a_torch_model_answers_as_it_does_by_itself(gateway, kind, output) -> None:
    x = networks.rows(kind, 70, seed=5)
    tensor = triton_grpc.InferInput("x", list(x.shape), networks.KINDS[kind].datatype)
    tensor.set_data_from_numpy(x)
    with triton_grpc.InferenceServerClient(gateway.grpc) as client:
        found = client.infer(kind, [tensor]).as_numpy(output)
    np.testing.assert_allclose(found, networks.expected(kind, x), atol=1e-5)
    config = httpx.get(f"{gateway.http}/v2/models/{kind}/config").json()
    assert config["backend"] == "torch"
    assert config["parameters"]["device"]["string_value"] == "cpu"


def test_a_saved_model_answers(gateway) -> None:
    reply = httpx.post(
        f"{gateway.http}/v1/models/dnn:predict", json={"instances": [[1, 2], [3, 4]]}
    )
    assert reply.json() == {"predictions": [{"y": [3.0, 6.0]}, {"y": [9.0, 12.0]}]}
    metadata = httpx.get(f"{gateway.http}/v2/models/dnn").json()
    assert metadata["platform"] == "tensorflow_savedmodel"


def test_a_library_is_loaded_only_where_its_model_is(gateway) -> None:
    loaded: dict[str, set[tuple[bool, bool]]] = {}
    for process in psutil.Process(gateway.process.pid).children(recursive=True):
        words = process.cmdline()
        maps = {Path(found.path).name for found in process.memory_maps()}
        torch = any(name.startswith("libtorch_cpu") for name in maps)
        tensorflow = any(name.startswith("libtensorflow_cc") for name in maps)
        service = next((w for w in words if w in ("CnnRunner", "LstmRunner", "DnnRunner")), "other")
        loaded.setdefault(service, set()).add((torch, tensorflow))
    assert loaded == {
        "CnnRunner": {(True, False)},
        "LstmRunner": {(True, False)},
        "DnnRunner": {(False, True)},
        "other": {(False, False)},
    }


def test_the_log_verifies(gateway) -> None:
    assert gateway.cli("audit", "verify").returncode == 0
