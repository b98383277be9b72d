"""Clients that leave, crowd and change the models under load: peers never notice, no hole."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import server as servers
import wire
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from audit.reader import LogReader
from audit.record import Decision

ONE = "/v2/models/digits/versions/1/infer"
SETTINGS = {
    "WEIGHBRIDGE_MODELS": "digits",
    "WEIGHBRIDGE_EXPLAINER": "false",
    "WEIGHBRIDGE_SAMPLE_BASE": "0",
    "WEIGHBRIDGE_SAMPLE_NEAR": "0",
    "WEIGHBRIDGE_MAX_BATCH_ROWS": "8",
    "WEIGHBRIDGE_MAX_QUEUED_ROWS": "64",
}


@pytest.fixture(scope="module")
def small(trained_home, tmp_path_factory) -> Iterator[servers.Server]:
    """A gateway with a short queue and small batches."""
    home = tmp_path_factory.mktemp("small")
    (home / "bentoml").symlink_to(trained_home / "bentoml")
    (home / "keys").mkdir()
    for key in (trained_home / "keys").iterdir():
        (home / "keys" / key.name).write_bytes(key.read_bytes())
        (home / "keys" / key.name).chmod(0o600)
    with servers.running(home, **SETTINGS) as started:
        yield started


@pytest.fixture(autouse=True)
def whole(small) -> Iterator[None]:
    """Afterwards a good request is answered and the log verifies, without a missing number."""
    before = len(small.output())
    yield
    until(lambda: images(small, 1).status_code == 200)
    assert "Traceback" not in small.output()[before:]
    verified = small.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def packed(rows: int) -> tuple[bytes, bytes]:
    """A body of `rows` raw images, and the header with the length of its JSON part."""
    item = {"name": "image", "datatype": "UINT8", "shape": [rows, 28, 28, 1]}
    item |= {"parameters": {"binary_data_size": rows * 784}}
    head = json.dumps({"inputs": [item]}).encode()
    return head + bytes(rows * 784), b"inference-header-content-length: %d" % len(head)


def images(gateway: servers.Server, rows: int, timeout_ms: int = 30_000) -> httpx.Response:
    body, length = packed(rows)
    name, _, value = length.decode().partition(": ")
    headers = {name: value, "x-weighbridge-timeout-ms": str(timeout_ms)}
    return httpx.post(f"{gateway.http}{ONE}", content=body, headers=headers, timeout=60)


def occupy(gateway: servers.Server) -> socket.socket:
    """A connection whose call keeps the model from others; another one, where it was too quick."""
    body, length = packed(60_000)
    deadline = time.monotonic() + 60
    while True:
        client = wire.connect(gateway.http_port)
        client.sendall(wire.request("POST", ONE, body, length))
        while not is_answered(client):
            if images(gateway, 1, timeout_ms=200).status_code == 504:
                return client
        client.close()
        assert time.monotonic() < deadline, "the model is too quick to be kept busy"


def is_answered(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


def decisions(gateway: servers.Server) -> list[Decision]:
    entries = LogReader(gateway.home / "log").entries()
    return [entry.event for entry in entries if isinstance(entry.event, Decision)]


def test_a_client_that_leaves_while_the_model_runs_ends_its_work(small) -> None:
    answered = True
    while answered:
        with occupy(small) as client:
            before = [event.rows for event in decisions(small)].count(60_000)
            answered = is_answered(client)
        until(lambda: images(small, 1).status_code == 200)
    assert [event.rows for event in decisions(small)].count(60_000) == before


def test_clients_that_leave_or_dawdle_with_their_body_hold_nobody_up(small) -> None:
    body, length = packed(4)
    whole_request = wire.request("POST", ONE, body, length)
    waiting = [wire.connect(small.http_port) for _ in range(50)]
    for place, client in enumerate(waiting):
        client.sendall(whole_request[: 40 + place * 7])
    assert images(small, 1).status_code == 200
    for client in waiting[::2]:
        client.close()
    assert images(small, 1).status_code == 200
    for place, client in list(enumerate(waiting))[1::2]:
        client.sendall(whole_request[40 + place * 7 :])
        assert wire.read(client).status == 200
        client.close()


def test_a_full_queue_refuses_at_once_and_recovers(small) -> None:
    request = pb.ModelInferRequest(model_name="digits", model_version="1")
    request.inputs.add(name="image", datatype="UINT8", shape=[60, 28, 28, 1])
    request.raw_input_contents.append(bytes(60 * 784))
    with occupy(small) as client, ThreadPoolExecutor(12) as pool:
        crowd = [pool.submit(images, small, 16) for _ in range(12)]
        until(lambda: any(one.done() for one in crowd))
        with pytest.raises(grpc.RpcError) as full:
            infer(small, request)
        client.close()
        refused = [one.result() for one in crowd if one.result().status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"] == "1"
    assert set(refused[0].json()) == {"error"}
    assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def infer(gateway: servers.Server, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ModelInfer(request, timeout=30)


@pytest.mark.parametrize(
    ("started", "bursts", "size"), [("small", 9, 24), ("grpcio_gateway", 4, 50)]
)
def test_cancelled_calls_leave_their_peers_alone(request, started, bursts, size, image) -> None:
    """Bursts of calls, half of them cancelled at once: the others get their own answers.

    On the native engine more than twenty resets at once end their connection (docs/protocol.md).
    """
    blank = np.zeros_like(image)
    with grpc.insecure_channel(request.getfixturevalue(started).grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def call(picture: np.ndarray, number: int) -> Any:
            made = pb.ModelInferRequest(model_name="digits", model_version="1", id=str(number))
            made.inputs.add(name="image", datatype="UINT8", shape=picture.shape)
            made.raw_input_contents.append(picture.tobytes())
            return made

        alone = [stub.ModelInfer(call(p, 0)).raw_output_contents[0] for p in (image, blank)]
        answered = 0
        for burst in range(bursts):
            pictures = [(image, blank)[place % 3 == 0] for place in range(size)]
            calls = [stub.ModelInfer.future(call(p, n)) for n, p in enumerate(pictures)]
            for doomed in calls[burst % 2 :: 2]:
                doomed.cancel()
            for number, running in enumerate(calls):
                if running.cancelled():
                    continue
                reply = running.result(timeout=30)
                assert reply.id == str(number)
                found = np.frombuffer(reply.raw_output_contents[0], np.float32)
                own = np.frombuffer(alone[number % 3 == 0], np.float32)
                assert np.allclose(found, own, atol=1e-5)
                answered += 1
        assert answered >= 100


def test_models_come_and_go_under_load(small) -> None:
    statuses: set[int] = set()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            statuses.add(images(small, 1).status_code)

    def change(verb: str, **body: Any) -> httpx.Response:
        url = f"{small.http}/v2/repository/models/digits/{verb}"
        return httpx.post(url, json=body, timeout=60)

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    try:
        for _ in range(3):
            assert change("unload").status_code == 200
            assert change("unload").status_code == 200
            gone = images(small, 1)
            assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
            assert httpx.get(f"{small.http}/v2/models/digits/ready").status_code == 503
            with ThreadPoolExecutor(2) as pool:
                loads = [pool.submit(change, "load") for _ in range(2)]
                assert [load.result().status_code for load in loads] == [200, 200]
            assert images(small, 1).status_code == 200
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    assert statuses <= {200, 503}
    assert change("load", parameters={"config": '{"max_batch_size": 4}'}).status_code == 501
    assert change("load", parameters=[1]).status_code == 400


def test_a_caller_who_leaves_does_not_stop_a_load_half_way(small) -> None:
    with grpc.insecure_channel(small.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="digits"))
        for _ in range(3):
            with contextlib.suppress(grpc.RpcError):
                request = pb.RepositoryModelLoadRequest(model_name="digits")
                stub.RepositoryModelLoad(request, timeout=0.002)
        until(lambda: stub.ModelReady(pb.ModelReadyRequest(name="digits")).ready)
    assert images(small, 1).status_code == 200
