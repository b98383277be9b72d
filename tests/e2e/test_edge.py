"""The edge of HTTP: base path, bounded heads and waits, traces out, and the native endpoints."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import server as servers
import tritonclient.http as thttp
import wire
from tritonclient.grpc import service_pb2, service_pb2_grpc

INFER = "/v2/models/sentiment/infer"
BASE = "/ml/gateway"
PARENT = f"00-{'ab' * 16}-{'cd' * 8}-00"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


def text_body(*texts: str) -> bytes:
    item = {"name": "text", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
    return json.dumps({"inputs": [item]}).encode()


@pytest.fixture(scope="module")
def narrow(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway behind a base path, impatient, with small heads and raw gRPC."""
    home = tmp_path_factory.mktemp("edge")
    (home / "bentoml").symlink_to(trained_home / "bentoml")
    with servers.running(
        home,
        WEIGHBRIDGE_BASE_PATH=f"{BASE}/",
        WEIGHBRIDGE_READ_TIMEOUT_S="1",
        WEIGHBRIDGE_MAX_HEAD_BYTES="4096",
        WEIGHBRIDGE_GRPC_ALWAYS_RAW="true",
        WEIGHBRIDGE_EXPLAINER="false",
        WEIGHBRIDGE_MODELS="sentiment,income",
    ) as started:
        yield started


# --- base path --------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", BASE])
def test_the_base_path_may_stand_in_front_of_everything(narrow, base) -> None:
    url = narrow.http + base
    assert httpx.get(f"{url}/v2/health/ready").json()["ready"] is True
    assert httpx.post(url + INFER, content=text_body("fine")).status_code == 200
    body = {"instances": ["fine"]}
    assert httpx.post(f"{url}/v1/models/sentiment:predict", json=body).status_code == 200
    assert httpx.post(f"{url}/lstm", json={"text": ["fine"]}).status_code == 200
    assert httpx.get(f"{url}/livez").status_code == 200
    assert "weighbridge_decisions_total" in httpx.get(f"{url}/metrics").text
    page = httpx.get(f"{url}/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert httpx.get(f"{url}/").json() == {"status": "alive"}


def test_what_only_looks_like_the_base_path_is_not_it(narrow) -> None:
    for path in (
        f"{BASE}{BASE}/livez",
        f"{BASE}y/v2/health/live",
        f"{BASE}{BASE}/v2/health/live",
        "/ml/v2/health/live",
    ):
        reply = httpx.get(narrow.http + path)
        assert reply.status_code == 404
        assert reply.json() == {"error": "no such path"}


def test_tritonclient_works_behind_the_base_path(narrow) -> None:
    with thttp.InferenceServerClient(f"127.0.0.1:{narrow.http_port}{BASE}") as client:
        assert client.is_server_ready(query_params={"x": "1"})
        assert client.get_model_config("sentiment")["name"] == "sentiment"


@pytest.mark.parametrize("path", ["ml", "/v2", "/v1/x", "/a//b", "/..", "/a b", "/é"])
def test_a_base_path_that_cannot_be_one_stops_the_start(monkeypatch, path) -> None:
    from services.settings import SettingsError, settings  # noqa: PLC0415

    monkeypatch.setenv("WEIGHBRIDGE_BASE_PATH", path)
    with pytest.raises(SettingsError, match=r"WEIGHBRIDGE_BASE_PATH: .*must be a path"):
        settings.__wrapped__()


# --- heads and waits --------------------------------------------------------------------------


def test_a_head_that_is_too_large_is_refused(narrow) -> None:
    fits = wire.request("GET", "/v2", b"", b"x-filler: " + b"x" * 3800)
    assert wire.send(narrow.http_port, fits).status == 200
    for data in (
        wire.request("GET", "/v2", b"", b"x-filler: " + b"x" * 4096),
        wire.request("GET", f"/v2?{'x' * 5000}"),
        wire.request("GET", "/v2", b"", *(b"x-%d: y" % number for number in range(600))),
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-filler: " + b"x" * 5000,
    ):
        answer = wire.send(narrow.http_port, data)
        assert answer.status == 431
        assert "4096" in answer.error()


def test_a_large_body_behind_a_small_head_is_read(narrow) -> None:
    body = text_body("word " * 20_000)
    assert wire.send(narrow.http_port, wire.request("POST", INFER, body)).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"POST /v2/mod",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-slow:",
        wire.request("POST", INFER, b'{"inputs":', length=1000),
        wire.request("POST", "/lstm", b'{"text":', length=1000),
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab".encode(),
    ],
)
def test_a_request_that_never_ends_is_given_up(narrow, data) -> None:
    with wire.connect(narrow.http_port) as client:
        client.sendall(data)
        answer = wire.read(client)
    assert answer.status == 408
    assert "1 s" in answer.error()


def test_a_head_that_trickles_is_given_up_however_often_a_byte_comes(narrow) -> None:
    began = time.monotonic()
    with wire.connect(narrow.http_port) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-slow: ")
        client.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - began < 15:
            client.sendall(b"x")
            try:
                answer = client.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_many_who_never_finish_hinder_nobody_and_are_all_given_up(narrow) -> None:
    begun = b"POST /v2/models/sentiment/infer HTTP/1.1\r\nhost: x\r\nx-slow: "
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(narrow.http_port)) for _ in range(300)]
        for client in slow:
            client.sendall(begun)
        for _ in range(20):
            good = wire.send(narrow.http_port, wire.request("POST", INFER, text_body("fine")))
            assert good.status == 200
        assert {wire.read(client).status for client in slow} == {408}


def test_a_slow_body_that_moves_is_read_to_its_end(narrow) -> None:
    body = text_body("word " * 20_000)
    with wire.connect(narrow.http_port) as client:
        client.sendall(wire.request("POST", INFER, body[:1000], length=len(body)))
        for first in range(1000, len(body), 20_000):
            client.sendall(body[first : first + 20_000])
            time.sleep(0.3)  # six pieces: longer than the wait for a request that does not move
        assert wire.read(client).status == 200


def test_a_connection_may_rest_between_requests(narrow) -> None:
    with wire.connect(narrow.http_port) as client:
        for _ in range(2):
            client.sendall(wire.request("GET", "/v2/health/live"))
            assert wire.read(client).status == 200
            time.sleep(2)  # longer than the wait for a request


@pytest.mark.parametrize(
    "behind",
    [
        b"\x00garbage\r\n\r\n",
        wire.request("POST", INFER, b"{", b"transfer-encoding: chunked"),
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".encode(),
    ],
)
def test_garbage_behind_a_request_does_not_take_its_answer_away(narrow, behind) -> None:
    data = wire.request("POST", INFER, text_body(*["word " * 50] * 2000)) + behind
    with wire.connect(narrow.http_port) as client:
        client.sendall(data)
        stream = client.makefile("rb").read()
    assert stream.startswith(b"HTTP/1.1 200")
    assert b'"model_name":"sentiment"' in stream
    assert stream.count(b"HTTP/1.1 ") == 1


# --- gRPC always raw, traces out --------------------------------------------------------------


def test_grpc_answers_raw_only_when_it_is_told_to(narrow, gateway) -> None:
    request = service_pb2.ModelInferRequest(model_name="sentiment")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(b"fine")
    for server, raw in ((narrow, True), (gateway, False)):
        with grpc.insecure_channel(server.grpc) as channel:
            response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        assert bool(response.raw_output_contents) is raw
        assert response.outputs[0].HasField("contents") is not raw


@pytest.mark.parametrize("path", [INFER, "/v1/models/sentiment:predict", "/lstm"])
def test_the_trace_goes_on_at_every_door_of_http(gateway, path) -> None:
    body = {INFER: text_body("fine"), "/lstm": b'{"text": ["fine"]}'}.get(
        path, b'{"instances": ["fine"]}'
    )
    headers = {"traceparent": PARENT, "tracestate": STATE}
    reply = httpx.post(gateway.http + path, content=body, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["tracestate"] == STATE
    assert reply.headers["traceparent"].split("-")[1] == "ab" * 16
    assert reply.headers["traceparent"].split("-")[2] != "cd" * 8
    alone = httpx.post(gateway.http + path, content=body, headers={"tracestate": STATE})
    assert "tracestate" not in alone.headers, "a state without its trace means nothing"


def test_the_trace_goes_on_over_grpc(gateway) -> None:
    request = service_pb2.ModelInferRequest(model_name="sentiment")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(b"fine")
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        sent = (("traceparent", PARENT), ("tracestate", STATE))
        _, call = stub.ModelInfer.with_call(request, metadata=sent)
    said = dict(call.trailing_metadata())
    assert said["tracestate"] == STATE
    assert said["traceparent"].split("-")[1] == "ab" * 16


# --- native endpoints -------------------------------------------------------------------------


def test_native_endpoints_take_our_headers_and_answer_with_them(gateway, income) -> None:
    headers = {
        "x-weighbridge-unit": "alice",
        "x-weighbridge-attributes": '{"sex": "F"}',
        "x-weighbridge-timeout-ms": "20000",
    }
    reply = httpx.post(f"{gateway.http}/dnn", json={"rows": [income]}, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["x-weighbridge-decision"] == reply.json()["decision"]
    assert reply.headers["x-weighbridge-arm"] == "treatment", "alice's arm, as at the other doors"
    shown = gateway.cli("audit", "show", reply.json()["decision"]).stdout
    assert '"unit_source": "header"' in shown
    given = httpx.post(f"{gateway.http}/dnn", json={"rows": [income], "unit": "alice"})
    assert given.headers["x-weighbridge-arm"] == "treatment"


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/dnn", b"{bad", {}, 400),
        ("/dnn", b"[]", {}, 400),
        ("/dnn", b"{}", {}, 400),
        ("/dnn", b'{"rows": 5}', {}, 400),
        ("/dnn", b'{"rows": [{"age": "canary-7f3a9c"}]}', {}, 400),
        ("/dnn", b'{"rows": [{}], "model": "nothing"}', {}, 404),
        ("/cnn", b'{"image": [["canary-7f3a9c"]]}', {}, 400),
        ("/cnn", b'{"image": [[1], [1, 2]]}', {}, 400),
        ("/cnn", b'{"image": [[[[300]]]]}', {}, 400),
        ("/lstm", b'{"text": ["fine"]}', {"x-weighbridge-timeout-ms": "soon"}, 400),
        ("/lstm", b'{"text": ["fine"]}', {"x-weighbridge-attributes": "[1]"}, 400),
        ("/lstm", b'{"text": ["fine"]}', {"x-weighbridge-arm": "control"}, 403),
        ("/lstm", b"x", {"content-type": "application/vnd.bentoml+pickle"}, 415),
        ("/lstm", b"x", {"content-type": "multipart/form-data"}, 415),
        ("/lstm", b"x", {"content-type": "multipart/form-data; boundary=b"}, 415),
        ("/nothing", b"x", {}, 404),
        ("/lstm/nothing", b"x", {}, 404),
        ("/docs.json", b"x", {}, 405),
        ("/", b"x", {}, 405),
    ],
)
def test_every_refusal_of_a_native_path_is_in_our_form(
    gateway, path, body, headers, status
) -> None:
    data = wire.request(
        "POST", path, body, *(f"{name}: {value}".encode() for name, value in headers.items())
    )
    answer = wire.send(gateway.http_port, data)
    assert answer.status == status, answer
    text = answer.error()
    assert 8 < len(text) < 500
    assert "pydantic" not in text


def test_curls_default_content_type_is_no_obstacle(gateway) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = httpx.post(f"{gateway.http}/lstm", content=b'{"text": ["fine"]}', headers=headers)
    assert reply.status_code == 200


def test_a_native_deadline_is_a_504_in_our_form(gateway) -> None:
    body = {"text": ["fine"] * 5000}
    headers = {"x-weighbridge-timeout-ms": "1"}
    reply = httpx.post(f"{gateway.http}/lstm", json=body, headers=headers, timeout=30)
    assert reply.status_code == 504
    assert "deadline" in reply.json()["error"]
