"""`weighbridge register` on ONNX files of every awkward kind, and what a server then answers."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import zoo

from audit.reader import LogReader

NUMBERS = {
    name: np.dtype(kind)
    for name, kind in {
        "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2",
        "UINT32": "u4", "UINT64": "u8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A gateway whose registry holds nothing but what was registered here, before its start."""
    home = tmp_path_factory.mktemp("register")
    files = home / "files"
    files.mkdir()
    made = {
        "types": zoo.every_datatype(files / "types.onnx"),
        "bfloat": zoo.bfloat(files / "bfloat.onnx"),
        "lstm": zoo.recurrent(files / "lstm.onnx"),
        "four": zoo.fixed(files / "four.onnx", 4),
        "one": zoo.fixed(files / "one.onnx", 1),
        "scalar": zoo.scalar(files / "scalar.onnx"),
        "empty": zoo.empty(files / "empty.onnx"),
        "mixing": zoo.mixing(files / "mixing.onnx"),
        "external": zoo.external(files / "external.onnx"),
    }
    unstarted = servers.stopped(home)
    for name, path in made.items():
        done = unstarted.cli("register", str(path), "--name", name, "--version", "1")
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    words = ("--name", "classes", "--version", "1", "--labels", "no,yes", "--label-output", "class")
    path = zoo.classifier(files / "classes.onnx")
    done = unstarted.cli("register", str(path), *words, "--score-output", "scores")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(files)
    with servers.running(home, WEIGHBRIDGE_SAMPLE_BASE="1", WEIGHBRIDGE_SAMPLE_NEAR="1") as started:
        yield started


def over_http(server: servers.Server, model: str, feeds: dict[str, tuple[str, np.ndarray]]) -> Any:
    tensors = []
    for name, (datatype, data) in feeds.items():
        tensor = triton_http.InferInput(name, list(data.shape), datatype)
        tensor.set_data_from_numpy(data, binary_data=True)
        tensors.append(tensor)
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        return client.infer(model, tensors)


def over_grpc(server: servers.Server, model: str, feeds: dict[str, tuple[str, np.ndarray]]) -> Any:
    tensors = []
    for name, (datatype, data) in feeds.items():
        tensor = triton_grpc.InferInput(name, list(data.shape), datatype)
        tensor.set_data_from_numpy(data)
        tensors.append(tensor)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        return client.infer(model, tensors)


def fp32(*rows: Any) -> tuple[str, np.ndarray]:
    return "FP32", np.array(rows, np.float32)


both = pytest.mark.parametrize("call", [over_http, over_grpc])


@both
def test_every_datatype_goes_in_and_comes_out_unchanged(gateway, call) -> None:
    feeds: dict[str, tuple[str, np.ndarray]] = {}
    for name, dtype in NUMBERS.items():
        info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        feeds[f"in_{name}"] = (name, np.array([[info.min, 0], [1, info.max]], dtype))
    feeds["in_BOOL"] = ("BOOL", np.array([[True, False], [False, True]]))
    texts = np.array([[b"a", "é很".encode()], [b"", b"a\x00b"]], dtype=object)
    feeds["in_BYTES"] = ("BYTES", texts)
    found = call(gateway, "types", feeds)
    for name, (_, data) in feeds.items():
        out = found.as_numpy(name.replace("in_", "out_"))
        assert out.dtype == data.dtype
        np.testing.assert_array_equal(out, data)


def test_metadata_tells_every_tensor(gateway) -> None:
    found = httpx.get(f"{gateway.http}/v2/models/types").json()
    assert found["platform"] == "onnxruntime_onnx"
    assert {t["name"][3:]: t["datatype"] for t in found["inputs"]} == {n: n for n in zoo.ELEMENTS}
    assert all(t["shape"] == [-1, 2] for t in (*found["inputs"], *found["outputs"]))
    config = httpx.get(f"{gateway.http}/v2/models/lstm/config").json()
    assert config["max_batch_size"] == 0
    said = {key: config["input"][1][key] for key in ("name", "data_type", "dims")}
    assert said == {"name": "h0", "data_type": "TYPE_FP32", "dims": [1, -1, 4]}
    assert httpx.get(f"{gateway.http}/v2/models/types/config").json()["max_batch_size"] == 64


@both
def test_bf16_travels_as_raw_bytes(gateway, call) -> None:
    rows = np.array([[1.5, -2, 0.1], [3, 1e30, 0]], ml_dtypes.bfloat16)
    found = call(gateway, "bfloat", {"x": ("BF16", rows)})
    assert found.as_numpy("y").dtype == rows.dtype
    np.testing.assert_array_equal(found.as_numpy("y"), (rows + rows))
    np.testing.assert_array_equal(found.as_numpy("z"), rows.astype(np.float32) * 2)


def test_bf16_in_json_is_a_400_that_says_so(gateway) -> None:
    url = f"{gateway.http}/v2/models/bfloat/infer"
    tensor = {"name": "x", "datatype": "BF16", "shape": [1, 3], "data": [1, 2, 3]}
    reply = httpx.post(url, json={"inputs": [tensor]})
    assert reply.status_code == 400
    assert "BF16 cannot be sent as JSON; send it as binary" in reply.json()["error"]


@both
def test_a_model_with_state_gives_its_state_back(gateway, call) -> None:
    rng = np.random.default_rng(5)
    state = np.zeros((1, 2, 4), np.float32)
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    whole = call(gateway, "lstm", {"x": ("FP32", x), "h0": ("FP32", state), "c0": ("FP32", state)})
    first = call(
        gateway, "lstm", {"x": ("FP32", x[:2]), "h0": ("FP32", state), "c0": ("FP32", state)}
    )
    second = call(
        gateway,
        "lstm",
        {
            "x": ("FP32", x[2:]),
            "h0": ("FP32", first.as_numpy("h1")),
            "c0": ("FP32", first.as_numpy("c1")),
        },
    )
    assert whole.as_numpy("y").shape == (6, 1, 2, 4)
    np.testing.assert_allclose(second.as_numpy("h1"), whole.as_numpy("h1"), atol=1e-6)


@both
def test_a_fixed_number_of_rows_is_taken_as_it_is(gateway, call) -> None:
    for model, rows in (("four", 4), ("one", 1)):
        x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        np.testing.assert_array_equal(call(gateway, model, {"x": ("FP32", x)}).as_numpy("y"), x + 1)
    reply = httpx.post(
        f"{gateway.http}/v2/models/four/infer",
        json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
    )
    assert reply.status_code == 400
    assert "FP32 of shape [4, 2]" in reply.json()["error"]


@both
def test_scalars_and_nothing_at_all_are_tensors(gateway, call) -> None:
    found = call(gateway, "scalar", {"x": fp32(1, 2, 3), "by": ("FP32", np.array(2, np.float32))})
    assert found.as_numpy("total").shape == ()
    assert found.as_numpy("total") == 12
    nothing = ("FP32", np.zeros((2, 0), np.float32))
    found = call(gateway, "empty", {"none": nothing, "some": fp32([1, 2], [3, 4])})
    assert found.as_numpy("y").tolist() == [[1, 2], [3, 4]]


def test_json_takes_scalars_and_empty_tensors(gateway) -> None:
    url = f"{gateway.http}/v2/models/scalar/infer"
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2]},
        {"name": "by", "datatype": "FP32", "shape": [], "data": [2]},
    ]
    reply = httpx.post(url, json={"inputs": inputs}).json()
    assert reply["outputs"] == [{"name": "total", "datatype": "FP32", "shape": [], "data": [7.0]}]
    raw = httpx.post(
        f"{gateway.http}/v2/models/empty/infer",
        content=b"",
        headers={"inference-header-content-length": "0"},
    )
    assert raw.status_code == 400


def test_v1_takes_whole_tensors_where_rows_are_none(gateway) -> None:
    url = f"{gateway.http}/v1/models/scalar:predict"
    reply = httpx.post(url, json={"instances": [{"x": [1, 2], "by": 3}]})
    assert reply.json() == {"predictions": [{"total": 9.0}]}
    assert httpx.post(url, json={"instances": [{"x": [1], "by": 3}] * 2}).status_code == 400
    url = f"{gateway.http}/v1/models/four:predict"
    reply = httpx.post(url, json={"instances": [[1, 2]] * 4})
    assert reply.json() == {"predictions": [{"y": [2.0, 3.0]}] * 4}


async def test_rows_that_would_mix_never_meet_another_request(gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.http) as client:

        async def ask(value: int) -> list[float]:
            tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
            body = {"inputs": [tensor | {"data": [value, 0, 0, value]}]}
            reply = await client.post("/v2/models/mixing/infer", json=body)
            assert reply.status_code == 200, reply.text
            return reply.json()["outputs"][0]["data"]

        found = await asyncio.gather(*(ask(value) for value in range(40)))
    half = [value / 2 for value in range(40)]
    assert found == [[h, -h, -h, h] for h in half]


def test_weights_beside_the_file_were_taken_along(gateway) -> None:
    x = np.eye(64, dtype=np.float32)[:2]
    expected = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)[:2]
    found = over_http(gateway, "external", {"x": ("FP32", x)}).as_numpy("y")
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_are_recorded_and_explanations_skipped_with_a_reason(gateway) -> None:
    reply = over_grpc(gateway, "classes", {"features": fp32([1, 4])})
    response = reply.get_response()
    decision = response.parameters["weighbridge_decision"].string_param
    shown = gateway.cli("audit", "show", decision)
    record = json.loads(shown.stdout)
    assert (record["label"], record["label_counts"]) == ("yes", {"yes": 1})
    assert record["score"].startswith("0.95")
    plain = over_http(gateway, "scalar", {"x": fp32(1), "by": ("FP32", np.array(2, np.float32))})
    decision = plain.get_response()["parameters"]["weighbridge_decision"]
    record = json.loads(gateway.cli("audit", "show", decision).stdout)
    assert (record["label"], record["rows"], record["label_counts"]) == (None, 1, {})
    refused = httpx.post(f"{gateway.http}/v1/models/classes:explain", json={"instances": [[1, 2]]})
    assert refused.status_code == 501


def test_the_log_verifies_and_every_explanation_was_skipped(gateway) -> None:
    deadline = time.monotonic() + 60
    while True:
        events = [entry.event for entry in LogReader(gateway.home / "log").entries()]
        chosen = {e.id for e in events if e.type == "decision" and e.sampling["selected"]}
        skipped = {e.decision: e.reason for e in events if e.type == "explanation_skipped"}
        if chosen and chosen == set(skipped):
            break
        assert time.monotonic() < deadline, f"{len(chosen)} selected, {len(skipped)} skipped"
        time.sleep(0.2)
    assert set(skipped.values()) == {"unknown_modality"}
    assert gateway.cli("audit", "verify").returncode == 0
    assert gateway.cli("report", "--out", str(gateway.home / "report")).returncode == 0
    assert gateway.cli("models").returncode == 0
    assert "Traceback" not in gateway.output()


def test_a_running_gateway_takes_a_new_version_by_load(gateway, tmp_path: Path) -> None:
    path = zoo.picky(tmp_path / "picky.onnx")
    done = gateway.cli("register", str(path), "--name", "picky", "--version", "3")
    assert done.returncode == 0, done.stderr
    assert "each request alone" not in done.stdout
    assert httpx.get(f"{gateway.http}/v2/models/picky").status_code == 404
    assert httpx.post(f"{gateway.http}/v2/repository/models/picky/load").status_code == 200
    words = ("INT64", np.array([[0, 2]], np.int64))
    assert over_grpc(gateway, "picky", {"word": words}).as_numpy("y").shape == (1, 2, 4)
    beyond = over_http_status(gateway, "picky", {"word": ("INT64", np.array([[9]], np.int64))})
    assert beyond == 400


def over_http_status(server: servers.Server, model: str, feeds: Any) -> int:
    inputs = [
        {"name": name, "datatype": kind, "shape": list(data.shape), "data": data.ravel().tolist()}
        for name, (kind, data) in feeds.items()
    ]
    return httpx.post(f"{server.http}/v2/models/{model}/infer", json={"inputs": inputs}).status_code
