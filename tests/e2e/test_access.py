"""Who may do what over HTTP, on a real server: every endpoint, every way around."""

import json

import bentoml
import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import wire
from callers import ROLES, Callers
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from audit.reader import LogReader
from audit.record import Erasure, LegalHold, Override
from tests.e2e.conftest import INCOME

SENTIMENT = {"instances": ["a wonderful film"]}


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
    ("POST", "/v1/overrides", ("review",)),
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
    assert callers.wait(headers, 200)
    assert callers.server.cli("apikey", "revoke", "leaver").returncode == 0
    assert callers.wait(headers, 401)


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


def test_who_erases_and_overrides_is_the_principal_whatever_they_call_themselves(callers) -> None:
    url, income = callers.server.http, {"instances": [dict(INCOME)]}
    unit = callers.http("infer") | {"x-weighbridge-unit": "frank"}
    reply = httpx.post(f"{url}/v1/models/income:predict", json=income, headers=unit, timeout=30)
    decision = reply.headers["x-weighbridge-decision"]
    body = {"unit": "frank", "actor": "the king", "reason": "asked"}
    assert httpx.post(f"{url}/v1/audit/holds", json=body).status_code == 401
    refused = httpx.post(f"{url}/v1/audit/holds", json=body, headers=callers.http("operate"))
    assert refused.status_code == 403
    eraser = callers.http("erase")
    held = httpx.post(f"{url}/v1/audit/holds", json=body, headers=eraser)
    assert held.status_code == 200, held.text
    no = httpx.post(f"{url}/v1/audit/erasures", json=body, headers=eraser)
    assert "a legal hold by key:only-erase, for the king stands on it" in no.json()["error"]
    unnamed = {"unit": "frank", "reason": "asked"}  # who it is, is known
    for path in ("holds/release", "erasures"):
        done = httpx.post(f"{url}/v1/audit/{path}", json=unnamed, headers=eraser)
        assert done.status_code == 200, done.text
    said = {"decision": decision, "label": "<=50K", "reason": "papers"}
    for role, status in (("infer", 403), ("erase", 403), ("review", 200)):
        found = httpx.post(f"{url}/v1/overrides", json=said, headers=callers.http(role))
        assert found.status_code == status, found.text
    events = [e.event for e in LogReader(callers.server.home / "log").entries()]
    actors = [e.actor for e in events if isinstance(e, Erasure | LegalHold | Override)]
    assert actors == [
        "key:only-erase, for the king",
        "key:only-erase",
        "key:only-erase",
        "key:only-review",
    ]


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


# --- nothing leaks --------------------------------------------------------------------------


def test_no_key_and_no_token_is_written_anywhere(callers) -> None:
    """Last in this file: home folder, output, processes, traces and figures hold none."""
    token = callers.issuer.token(roles=["infer"])
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = {"authorization": f"Bearer {token}", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    url = f"{callers.server.http}/v1/models/sentiment:predict"
    assert httpx.post(url, json=SENTIMENT, headers=sent).status_code == 200
    secrets = [key[-20:].encode() for key in callers.keys.values()]
    secrets.append(token.split(".")[2][:20].encode())
    written = [path for path in callers.server.home.rglob("*") if path.is_file()]
    for path in written:
        if "bentoml" not in path.parts:
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret in data], path
    bad = [("x-api-key", callers.keys["infer"] + "x")]
    with grpc.insecure_channel(callers.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.ModelReady(pb.ModelReadyRequest(name="income"), metadata=bad, timeout=20)
    callers.collector.wait(trace, 4)
    exported = repr([callers.collector.spans, callers.collector.logs]).encode()
    assert not [secret for secret in secrets if secret in exported]
    supervisor = psutil.Process(callers.server.process.pid)
    started = [supervisor, *supervisor.children(recursive=True)]
    processes = repr([process.cmdline() for process in started]).encode()
    assert not [secret for secret in secrets if secret in processes]
    figures = httpx.get(f"{callers.server.http}/metrics", headers=callers.http("review")).text
    assert 'weighbridge_refusals_total{origin="http",status="401"}' in figures
    assert 'weighbridge_refusals_total{origin="grpc",status="401"}' in figures
    assert "only-infer" not in figures
