"""Who may do what, on a real server with API keys and tokens: every endpoint, every way around."""

import itertools
import json
import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import grpc
import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import wire
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.conftest import link_models
from tests.services.access.issuer import AUDIENCE, ISSUER, Issuer, serving

ROLES = ("infer", "operate", "review", "force-arm", "erase")
SENTIMENT = {"instances": ["a wonderful film"]}


class Callers:
    """Keys and tokens of the module's server."""

    def __init__(self, server: servers.Server, issuer: Issuer) -> None:
        self.server = server
        self.issuer = issuer
        self.keys = {role: self.key(f"only-{role}", role) for role in ROLES}
        self.keys["forcing"] = self.key("forcing", "infer", "force-arm")

    def key(self, name: str, *roles: str, options: tuple[str, ...] = ()) -> str:
        words = itertools.chain.from_iterable(("--role", role) for role in roles)
        done = self.server.cli("apikey", "add", name, *words, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def http(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[who]}"}


def own_home(trained_home: Path, folder: Path) -> Path:
    link_models(trained_home, folder)
    return folder


@pytest.fixture(scope="module")
def callers(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    folder = own_home(trained_home, tmp_path_factory.mktemp("access"))
    issuer = Issuer()
    with (
        serving(issuer) as published,
        servers.running(
            folder,
            WEIGHBRIDGE_AUTH="keys,jwt",
            WEIGHBRIDGE_JWT_ISSUER=ISSUER,
            WEIGHBRIDGE_JWT_AUDIENCE=AUDIENCE,
            WEIGHBRIDGE_JWT_JWKS=published.url,
            WEIGHBRIDGE_EXPLAINER="false",
        ) as started,
    ):
        yield Callers(started, issuer)


def status(callers: Callers, method: str, path: str, **headers: str) -> int:
    reply = httpx.request(method, callers.server.http + path, headers=headers, json={})
    if reply.status_code == 401:
        assert reply.headers["www-authenticate"] == 'Bearer realm="weighbridge"'
        assert set(reply.json()) == {"error"}
    return reply.status_code


PROBES = ["/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz"]
ENDPOINTS = [
    ("GET", "/", ROLES),
    ("GET", "/v2", ROLES),
    ("GET", "/v2/models", ROLES),
    ("GET", "/v2/models/income", ROLES),
    ("GET", "/v2/models/income/config", ROLES),
    ("GET", "/v2/models/income/versions/1/ready", ROLES),
    ("GET", "/v2/models/stats", ROLES),
    ("GET", "/v1/models", ROLES),
    ("GET", "/v1/experiments", ROLES),
    ("GET", "/docs.json", ROLES),
    ("GET", "/schema.json", ROLES),
    ("GET", "/static_content/x.js", ROLES),
    ("POST", "/v2/repository/index", ROLES),
    ("GET", "/metrics", ("operate", "review")),
    ("POST", "/v2/repository/models/nobody/load", ("operate",)),
    ("POST", "/v2/repository/models/nobody/unload", ("operate",)),
    ("POST", "/v1/experiments/reload", ("operate",)),
    ("POST", "/v2/models/income/infer", ("infer",)),
    ("POST", "/v2/models/income/versions/1/infer", ("infer",)),
    ("POST", "/v1/models/income:predict", ("infer",)),
    ("POST", "/v1/models/income:explain", ("infer",)),
    ("POST", "/v1/outcomes", ("infer",)),
    ("POST", "/cnn", ("infer",)),
    ("POST", "/lstm", ("infer",)),
    ("POST", "/dnn", ("infer",)),
    ("GET", "/somewhere", ("infer",)),
]


@pytest.mark.parametrize(("method", "path", "roles"), ENDPOINTS)
def test_an_endpoint_answers_its_roles_and_nobody_else(callers, method, path, roles) -> None:
    assert status(callers, method, path) == 401
    for role in ROLES:
        found = status(callers, method, path, **callers.http(role))
        assert (found == 403) == (role not in roles), (role, found)
        assert found != 401


@pytest.mark.parametrize("path", PROBES)
def test_probes_are_open_as_they_are_spelled(callers, path) -> None:
    assert status(callers, "GET", path) == 200
    assert status(callers, "HEAD", path) == 200
    assert status(callers, "GET", path, authorization="nonsense") == 200
    assert status(callers, "POST", path) == 401
    for other in (f"/{path}", f"{path}/", path.upper(), f"/x/..{path}"):
        found = wire.send(callers.server.http_port, wire.request("GET", other))
        assert found.status == 401, other


OPERATIONS = [
    "/v2/repository/models/income/unload",
    "//v2/repository/models/income/unload",
    "/v2//repository//models/income/unload/",
    "/v2/repository/models/income%2Funload",
    "/%76%32/repository/models/income/unload",
    "/v2%2Frepository/models/income/unload",
    "/v2/repository/models/income/unload?x=/v2/health/live",
    "/v2/repository/models/income/unload;/v2/health/live",
    "/v2/repository/models/income/unload%00",
    "/v2/./repository/models/income/unload",
    "/v2/health/live/../../repository/models/income/unload",
    "/v2/health/live%2F..%2F..%2Frepository/models/income/unload",
    "/v2/models/../repository/models/income/unload",
    "/V2/repository/models/income/unload",
    "/v2/Repository/models/income/unload",
    "http://127.0.0.1/v2/repository/models/income/unload",
    "\\v2\\repository\\models\\income\\unload",
]


@pytest.mark.parametrize("path", OPERATIONS)
def test_no_spelling_of_a_path_reaches_an_operation(callers, path) -> None:
    port = callers.server.http_port
    assert wire.send(port, wire.request("POST", path)).status in (400, 401)
    key = f"x-api-key: {callers.keys['infer']}".encode()
    assert wire.send(port, wire.request("POST", path, b"", key)).status in (400, 403, 404)
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "GET", "HEAD", "TRACE"):
        assert wire.send(port, wire.request(method, path, b"", key)).status in (400, 403, 404, 405)
    ready = httpx.get(
        f"{callers.server.http}/v2/models/income/ready", headers=callers.http("infer")
    )
    assert ready.status_code == 200


def smuggled(key: str, bad: str) -> list[tuple[bytes, ...]]:
    good = f"authorization: Bearer {key}".encode()
    return [
        (good, f"authorization: Bearer {bad}".encode()),
        (good, good),
        (good, f"x-api-key: {key}".encode()),
        (f"authorization: Bearer {key}, Bearer {bad}".encode(),),
        (f"authorization: Bearer {key} {bad}".encode(),),
        (f"authorization: Basic {key}".encode(),),
        (f"authorization: {key}".encode(),),
        (b"authorization: Bearer",),
        (b"authorization: Bearer ",),
        (b"authorization:",),
        (b"x-api-key:",),
        (f"authorization: Bearer {key}\x00".encode(),),
        (f"x-api-key: {key}é".encode("latin-1"),),
        (f"x-api-key: {key[:-1]}".encode(),),
        (f"x-api-key: {key}A".encode(),),
        (f"x-api-key: {key.upper()}".encode(),),
        (f"x-api-key: {'A' * 8193}".encode(),),
        (f"authorization: Bearer {'A' * 60_000}".encode(),),
        (f"x_api_key: {key}".encode(),),
        (f"proxy-authorization: Bearer {key}".encode(),),
        (f"cookie: x-api-key={key}".encode(),),
    ]


@pytest.mark.parametrize("number", range(len(smuggled("k", "b"))))
def test_one_whole_credential_or_none(callers, number) -> None:
    headers = smuggled(callers.keys["infer"], callers.keys["operate"])[number]
    found = wire.send(callers.server.http_port, wire.request("GET", "/v2", b"", *headers))
    assert found.status in (400, 401), found
    assert callers.keys["infer"][20:] not in found.body.decode()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_scheme_has_no_case(callers, scheme) -> None:
    assert status(callers, "GET", "/v2", authorization=f"{scheme} {callers.keys['erase']}") == 200
    assert status(callers, "GET", "/v2", **{"x-api-key": callers.keys["erase"]}) == 200


def test_a_refused_body_is_not_read(callers) -> None:
    """The refusal comes while the body has not been sent, and nothing waits for it."""
    with wire.connect(callers.server.http_port) as client:
        head = wire.request("POST", "/v2/models/income/infer", length=50_000_000)
        client.sendall(head)
        assert wire.read(client).status == 401


def test_a_revoked_key_is_refused_within_a_second_and_a_bit(callers) -> None:
    key = callers.key("leaver", "infer")
    headers = {"x-api-key": key}
    assert wait_for(callers, headers, 200)
    assert callers.server.cli("apikey", "revoke", "leaver").returncode == 0
    assert wait_for(callers, headers, 401)


def wait_for(callers: Callers, headers: dict[str, str], wanted: int) -> bool:
    with httpx.Client(base_url=callers.server.http, headers=headers) as client:
        return any(client.get("/v2").status_code == wanted for _ in range(5000))


def test_a_token_of_the_issuer_is_a_caller(callers) -> None:
    token = callers.issuer.token(roles=["operate"])
    bearer = {"authorization": f"Bearer {token}"}
    assert status(callers, "POST", "/v2/repository/models/nobody/load", **bearer) == 404
    assert status(callers, "POST", "/v2/models/income/infer", **bearer) == 403
    none = {"authorization": f"Bearer {callers.issuer.token(roles=[])}"}
    assert status(callers, "GET", "/v2", **none) == 403
    for bad in (callers.issuer.unsigned(), callers.issuer.confused()):
        assert status(callers, "GET", "/v2", authorization=f"Bearer {bad}") == 401


def test_forcing_an_arm_needs_its_role(callers) -> None:
    url = f"{callers.server.http}/v1/models/sentiment:predict"
    arm = {"x-weighbridge-arm": "treatment"}
    assert httpx.post(url, json=SENTIMENT, headers=callers.http("infer")).status_code == 200
    refused = httpx.post(url, json=SENTIMENT, headers=callers.http("infer") | arm)
    assert (refused.status_code, "force-arm" in refused.json()["error"]) == (403, True)
    forced = httpx.post(url, json=SENTIMENT, headers=callers.http("forcing") | arm)
    assert (forced.status_code, forced.headers["x-weighbridge-arm"]) == (200, "treatment")
    upper = b"X-Weighbridge-ARM: treatment"
    key = f"x-api-key: {callers.keys['infer']}".encode()
    body = json.dumps(SENTIMENT).encode()
    raw = wire.request("POST", "/v1/models/sentiment:predict", body, key, upper)
    assert wire.send(callers.server.http_port, raw).status == 403


def test_unmodified_clients_send_keys(callers) -> None:
    key = callers.keys["infer"]
    tensor = httpclient.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([["fine"]], dtype=object))
    bearer = {"authorization": f"Bearer {key}"}
    with httpclient.InferenceServerClient(callers.server.http.removeprefix("http://")) as client:
        assert (
            client.infer("sentiment", [tensor], headers=dict(bearer)).as_numpy("label") is not None
        )
    with grpcclient.InferenceServerClient(callers.server.grpc) as client:
        rpc = grpcclient.InferInput("text", [1, 1], "BYTES")
        rpc.set_data_from_numpy(np.array([["fine"]], dtype=object))
        assert client.infer("sentiment", [rpc], headers=bearer).as_numpy("label") is not None
    with bentoml.SyncHTTPClient(callers.server.http, token=key) as client:
        assert client.lstm(text=["fine"])["predictions"]
        client._temp_dir.cleanup()  # closing leaves it to the garbage collector, with a warning


# --- gRPC -----------------------------------------------------------------------------------


@pytest.fixture
def channel(callers) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(callers.server.grpc) as found:
        yield found


TEXT = pb.ModelInferRequest(model_name="sentiment")
TEXT.inputs.add(name="text", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"ok")
CALLS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("ServerMetadata", pb.ServerMetadataRequest(), ROLES),
    ("ModelReady", pb.ModelReadyRequest(name="income"), ROLES),
    ("ModelMetadata", pb.ModelMetadataRequest(name="income"), ROLES),
    ("RepositoryIndex", pb.RepositoryIndexRequest(), ROLES),
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nobody"), ("operate",)),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nobody"), ("operate",)),
    ("ModelInfer", TEXT, ("infer",)),
    ("ModelStatistics", pb.ModelStatisticsRequest(), ROLES),
    ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(), ("infer",)),
]


def code(call: Any, request: Any, *metadata: tuple[str, str | bytes]) -> grpc.StatusCode:
    try:
        call(request, metadata=metadata, timeout=20)
    except grpc.RpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


def bearer(key: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {key}")


@pytest.mark.parametrize(("name", "request_", "roles"), CALLS, ids=[call[0] for call in CALLS])
def test_a_method_answers_its_roles_and_nobody_else(callers, channel, name, request_, roles):
    call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), name)
    assert code(call, request_) is grpc.StatusCode.UNAUTHENTICATED
    for role in ROLES:
        found = code(call, request_, bearer(callers.keys[role]))
        assert (found is grpc.StatusCode.PERMISSION_DENIED) == (role not in roles), (role, found)
        assert found is not grpc.StatusCode.UNAUTHENTICATED


def test_grpc_health_is_open_and_reflection_is_not(callers, channel) -> None:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=20).live
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as found:
        list(reflect(iter([ask]), timeout=20))
    assert found.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = bearer(callers.keys["erase"])
    assert list(reflect(iter([ask]), metadata=[key], timeout=20))


def test_a_refused_message_is_not_waited_for(callers, channel) -> None:
    """A message that never comes: the server waits for it from those who may call, only."""
    method = "/inference.GRPCInferenceService/ModelInfer"
    call = channel.stream_unary(method, pb.ModelInferRequest.SerializeToString)
    never: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with pytest.raises(grpc.RpcError) as refused:
        call(iter(never.get, None), timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = bearer(callers.keys["infer"])
    with pytest.raises(grpc.RpcError) as waited:
        call(iter(never.get, None), metadata=[key], timeout=0.5)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    never.put(None)
    never.put(None)


def test_one_whole_credential_or_none_over_grpc(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerMetadata
    key, request = callers.keys["infer"], pb.ServerMetadataRequest()
    unauthenticated, invalid = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT
    assert code(call, request, ("x-api-key", key)) is grpc.StatusCode.OK
    assert code(call, request, ("x-api-key-bin", key.encode())) is unauthenticated
    assert code(call, request, ("authorization-bin", f"Bearer {key}".encode())) is unauthenticated
    assert code(call, request, bearer(key), ("x-api-key", key)) is invalid
    assert code(call, request, bearer(key), bearer(key)) is invalid
    assert code(call, request, ("x-api-key", "A" * 8193)) is not grpc.StatusCode.OK
    assert code(call, request, ("x-api-key", key + "A")) is unauthenticated


def test_forcing_an_arm_over_grpc_needs_its_role(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    arm = ("x-weighbridge-arm", "treatment")
    assert code(call, TEXT, bearer(callers.keys["infer"]), arm) is grpc.StatusCode.PERMISSION_DENIED
    assert code(call, TEXT, bearer(callers.keys["forcing"]), arm) is grpc.StatusCode.OK


def test_a_stream_is_asked_again_for_each_message(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
    with pytest.raises(grpc.RpcError) as refused:
        list(call(iter([TEXT]), timeout=20))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = callers.key("streamer", "infer")
    assert wait_for(callers, {"x-api-key": key}, 200)
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    replies = call(iter(feed.get, None), metadata=[bearer(key)], timeout=60)
    feed.put(TEXT)
    assert next(replies).infer_response.model_name == "sentiment"
    assert callers.server.cli("apikey", "revoke", "streamer").returncode == 0
    assert wait_for(callers, {"x-api-key": key}, 401)
    feed.put(TEXT)
    assert "does not hold" in next(replies).error_message
    feed.put(None)
    assert not list(replies)


# --- nothing leaks --------------------------------------------------------------------------


def test_no_key_and_no_token_is_written_anywhere(callers) -> None:
    """Last in this file: the home folder, the server's output and its processes hold none."""
    token = callers.issuer.token(roles=["infer"])
    assert status(callers, "GET", "/v2", authorization=f"Bearer {token}") == 200
    secrets = [key.rpartition("_")[2][:20].encode() for key in callers.keys.values()]
    secrets.append(token.split(".")[2][:20].encode())
    written = [path for path in callers.server.home.rglob("*") if path.is_file()]
    for path in written:
        if "bentoml" not in path.parts:
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret in data], path
    processes = subprocess.run(["ps", "axww"], capture_output=True, check=True).stdout
    assert not [secret for secret in secrets if secret in processes]
    figures = httpx.get(f"{callers.server.http}/metrics", headers=callers.http("review")).text
    assert 'weighbridge_refusals_total{origin="http",status="401"}' in figures
    assert 'weighbridge_refusals_total{origin="grpc",status="403"}' in figures
    assert "only-infer" not in figures
