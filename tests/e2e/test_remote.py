"""A gateway in front of another server's model; here both are one gateway, called by itself."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as triton_grpc

from audit.reader import LogReader
from audit.record import Decision

MIRRORS = {"mirror-http": "{http}/v2/models/digits/versions/1", "mirror-grpc": "grpc://{grpc}"}


@pytest.fixture(scope="module")
def gateway(
    trained_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Server]:
    """A gateway with models, and with those same models registered as remote ones."""
    own = tmp_path_factory.mktemp("remote")
    servers.copy_home(trained_home, own)
    with servers.running(own, WEIGHBRIDGE_EXPLAINER="false", WEIGHBRIDGE_MODELS="digits") as found:
        for name, address in MIRRORS.items():
            words = ["register", address.format(http=found.http, grpc=found.grpc), "--name", name]
            words += ["--version", "1"]
            if name == "mirror-grpc":
                words += ["--remote-name", "digits", "--remote-version", "1"]
            done = found.cli(*words)
            assert done.returncode == 0, done.stderr
            assert "batched: random rows" in done.stdout
            loaded = httpx.post(f"{found.http}/v2/repository/models/{name}/load", timeout=30)
            assert loaded.status_code == 200, loaded.text
        yield found


def infer(server: servers.Server, model: str, image: np.ndarray, **headers: str) -> httpx.Response:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(image.shape)}
    body = {"inputs": [tensor | {"data": image.ravel().tolist()}]}
    url = f"{server.http}/v2/models/{model}/versions/1/infer"
    return httpx.post(url, json=body, headers=headers, timeout=30)


@pytest.mark.parametrize("model", MIRRORS)
def test_a_remote_model_answers_bit_for_bit_what_it_answers_there(gateway, model) -> None:
    images = np.random.default_rng(4).integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    there, here = infer(gateway, "digits", images), infer(gateway, model, images)
    assert here.status_code == 200, here.text
    assert here.json()["outputs"] == there.json()["outputs"]
    decision = here.headers["x-weighbridge-decision"]
    record = json.loads(gateway.cli("audit", "show", decision).stdout)
    assert (record["device"], record["rows"]) == ("remote", 9)
    assert record["runtime"] == f"remote {'http' if model == 'mirror-http' else 'grpc'}"


@pytest.mark.parametrize(("model", "digit"), [("mirror-http", "a"), ("mirror-grpc", "b")])
def test_the_trace_goes_on_over_there(gateway, model, digit) -> None:
    trace = digit * 32
    image = np.zeros((1, 28, 28, 1), np.uint8)
    reply = infer(gateway, model, image, traceparent=f"00-{trace}-{'c' * 16}-00")
    assert reply.status_code == 200
    events = (entry.event for entry in LogReader(gateway.home / "log").entries())
    found = [e.model for e in events if isinstance(e, Decision) and e.trace_id == trace]
    assert found == ["digits", model], "there first, then here"


def test_over_grpc_it_is_a_model_like_any_other(gateway) -> None:
    tensor = triton_grpc.InferInput("image", [1, 28, 28, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 28, 28, 1), np.uint8))
    with triton_grpc.InferenceServerClient(gateway.grpc) as client:
        assert client.infer("mirror-grpc", [tensor]).as_numpy("label").shape == (1, 1)
        assert client.get_model_metadata("mirror-http").platform == "remote_oip"


@pytest.mark.parametrize("model", MIRRORS)
def test_a_remote_that_is_gone_is_a_503_and_comes_back(gateway, model) -> None:
    image = np.zeros((1, 28, 28, 1), np.uint8)
    unload = httpx.post(f"{gateway.http}/v2/repository/models/digits/unload")
    assert unload.status_code == 200
    statuses = [infer(gateway, model, image).status_code for _ in range(8)]
    assert set(statuses) == {503}
    began = time.monotonic()
    refused = infer(gateway, model, image)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert time.monotonic() - began < 5
    httpx.post(f"{gateway.http}/v2/repository/models/digits/load")
    deadline = time.monotonic() + 60
    while infer(gateway, model, image).status_code != 200:
        assert time.monotonic() < deadline, "the remote model did not come back"
        time.sleep(0.2)


def test_addresses_that_cannot_be_are_refused_in_a_sentence(gateway) -> None:
    for address, says in {
        "http://user:pass@127.0.0.1:1/v2/models/m": "holds a user or password",
        "http://127.0.0.1:1/v2/models/m": "could not reach the server of model 'm'",
        f"{gateway.http}/v2/models/nobody": "could not read the metadata of 'nobody'",
        f"{gateway.http}/metrics": "its path must be /v2/models/NAME",
        gateway.http: "give --remote-name",
    }.items():
        done = gateway.cli("register", address, "--name", "no", "--version", "1")
        assert done.returncode == 2
        assert says in done.stderr
        assert "pass@" not in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_of_the_address_is_in_the_log(gateway) -> None:
    assert "127.0.0.1:1" not in gateway.output().replace(gateway.grpc, "").replace(
        f"127.0.0.1:{gateway.http_port}", ""
    )
    assert gateway.cli("audit", "verify").returncode == 0
