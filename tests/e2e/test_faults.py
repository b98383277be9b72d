"""Faults of the world around the server: a clear sentence, nothing half-written, nothing lost."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import server as servers

SENTIMENT = {"WEIGHBRIDGE_MODELS": "sentiment", "WEIGHBRIDGE_EXPLAINER": "false"}
PREDICT = "/v1/models/sentiment:predict"


def ask(gateway: servers.Server, text: str = "fine") -> httpx.Response:
    return httpx.post(f"{gateway.http}{PREDICT}", json={"instances": [text]}, timeout=20)


def copied_models(home: Path) -> Path:
    """A registry of this test's own, so that it may be damaged."""
    linked = home / "bentoml" / "models"
    source = linked.resolve()
    linked.unlink()
    shutil.copytree(source / "sentiment", linked / "sentiment")
    return linked / "sentiment"


def test_a_corrupted_model_file_is_named_and_the_other_version_serves(home) -> None:
    network = copied_models(home) / "2" / "model.onnx"
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 1
    network.write_bytes(data)
    with servers.running(home, **SENTIMENT) as gateway:
        index = httpx.post(f"{gateway.http}/v2/repository/index").json()
        states = {line["version"]: line for line in index}
        assert states["1"]["state"] == "READY"
        assert states["2"]["state"] == "UNAVAILABLE"
        assert "model.onnx" in states["2"]["reason"]
        good = httpx.post(
            f"{gateway.http}/v1/models/sentiment/versions/1:predict", json={"instances": ["x"]}
        )
        assert good.status_code == 200
        bad = httpx.post(
            f"{gateway.http}/v1/models/sentiment/versions/2:predict", json={"instances": ["x"]}
        )
        assert bad.status_code == 503
        assert "onnx" not in bad.json()["error"]
        assert "model.onnx" in gateway.output()


def test_a_taken_port_stops_the_start_with_a_sentence(home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="did not become ready") as failed:
            servers.start(home, WEIGHBRIDGE_GRPC_PORT=port, **SENTIMENT)
    assert f"could not listen on 127.0.0.1:{port} for gRPC" in str(failed.value)
    assert "WEIGHBRIDGE_GRPC_PORT" in str(failed.value)


def test_a_second_gateway_on_the_same_log_is_refused(home) -> None:
    with servers.running(home, **SENTIMENT) as gateway:
        with pytest.raises(AssertionError, match="did not become ready") as failed:
            servers.start(home, **SENTIMENT)
        assert "could not open the log" in str(failed.value)
        assert "another process" in str(failed.value)
        assert ask(gateway).status_code == 200


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 64 megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_every_answer_and_serving_resumes_without_a_restart(
    home, small_disk
) -> None:
    (home / "log").symlink_to(small_disk)
    with servers.running(home, **SENTIMENT) as gateway, httpx.Client(timeout=20) as client:

        def ask_again() -> httpx.Response:  # by one connection: there are thousands
            return client.post(f"{gateway.http}{PREDICT}", json={"instances": ["fine"]})

        acknowledged = [ask_again().headers["x-weighbridge-decision"]]
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(b"\0" * 4096)
        statuses, refused = set(), 0
        for _ in range(5000):  # room that was reserved before holds a thousand records
            reply = ask_again()
            statuses.add(reply.status_code)
            refused += reply.status_code == 503
            if refused == 100:
                break
            if reply.status_code == 200:
                acknowledged.append(reply.headers["x-weighbridge-decision"])
            else:
                assert reply.headers["content-type"] == "application/json"
                assert "could not be recorded" in reply.json()["error"]
                assert "No space" not in reply.text
        assert refused == 100
        assert statuses <= {200, 503}
        assert httpx.get(f"{gateway.http}/v2/health/live").status_code == 200
        filler.unlink()
        for _ in range(3):
            reply = ask_again()
            assert reply.status_code == 200, reply.text
            acknowledged.append(reply.headers["x-weighbridge-decision"])
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    for decision in (acknowledged[0], acknowledged[-1]):
        found = gateway.cli("audit", "show", decision)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["id"] == decision


def test_a_damaged_log_tail_is_cut_and_a_damaged_middle_is_refused(home) -> None:
    with servers.running(home, **SENTIMENT) as gateway:
        decisions = [ask(gateway).headers["x-weighbridge-decision"] for _ in range(20)]
    segment = max((home / "log" / "wal").iterdir())
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"\x99" * 37)
    with servers.running(home, **SENTIMENT) as gateway:
        assert ask(gateway).status_code == 200
        assert "cut a torn tail" in gateway.output()
    shown = json.loads(gateway.cli("audit", "show", decisions[-1]).stdout)
    assert shown["id"] == decisions[-1]

    damaged = bytearray(segment.read_bytes())
    damaged[len(whole) // 2] ^= 0x40
    segment.write_bytes(damaged)
    with pytest.raises(AssertionError, match="did not become ready") as failed:
        servers.start(home, **SENTIMENT)
    assert segment.name in str(failed.value)
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 1
    assert segment.name in verified.stdout
    assert bytes(damaged) == segment.read_bytes(), "nothing was cut or repaired silently"


def test_an_empty_registry_says_what_to_do(home) -> None:
    (home / "bentoml" / "models").unlink()
    with servers.running(home, WEIGHBRIDGE_EXPLAINER="false") as gateway:
        assert "weighbridge train" in gateway.output()
        assert httpx.get(f"{gateway.http}/v2/models").json() == {"models": []}


def test_a_missing_data_package_says_what_to_do_and_leaves_nothing_behind(tmp_path) -> None:
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(tmp_path),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    environment = {k: v for k, v in environment.items() if k != "PIP_FIND_LINKS"}
    code = "from services.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "income", "--fast"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "xai" in done.stderr
    assert not list((tmp_path / "bentoml").rglob("model.onnx"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("GRPC_PORT", "hello"), ("RUNNER", "moon"), ("SAMPLE_BASE", "7"), ("DURABILITY", "maybe")],
)
def test_a_wrong_setting_is_named(name, value) -> None:
    environment = os.environ | {f"WEIGHBRIDGE_{name}": value}
    done = subprocess.run(
        [sys.executable, "-c", "from services.cli import main; main()", "models"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"WEIGHBRIDGE_{name}" in done.stderr


def test_a_device_that_is_not_there_stops_the_start_with_a_sentence(home) -> None:
    with pytest.raises(AssertionError, match="did not become ready") as failed:
        servers.start(home, WEIGHBRIDGE_DEVICE="cuda", **SENTIMENT)
    assert "weighbridge: not started" in str(failed.value)
    assert "WEIGHBRIDGE_DEVICE=auto" in str(failed.value)
