"""TLS and mTLS on real ports, the slow path's gate, limits, and what does not start."""

import json
import os
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import wire
from tritonclient.utils import InferenceServerException

from tests.services.access.authority import Authority, Pair

QUIET = {"WEIGHBRIDGE_EXPLAINER": "false"}
SENTIMENT = {"instances": ["a wonderful film"]}


def trusting(ca: Path, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if pair:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def text(library) -> list:
    tensor = library.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([["fine"]], dtype=object))
    return [tensor]


def over_grpc(server: servers.Server, ca: Path | None, pair: Pair | None = None) -> str:
    """The model version that answers tritonclient over TLS."""
    options = {"ssl": True, "root_certificates": str(ca)} if ca else {}
    if pair:
        options |= {"private_key": str(pair.key), "certificate_chain": str(pair.cert)}
    with grpcclient.InferenceServerClient(server.grpc, **options) as client:
        result = client.infer("sentiment", text(grpcclient), client_timeout=20)
        return result.get_response().model_version


def over_http(server: servers.Server, context: ssl.SSLContext | None) -> str:
    options = {"ssl": True, "ssl_context_factory": lambda: context} if context else {}
    address = f"127.0.0.1:{server.http_port}"
    with httpclient.InferenceServerClient(address, **options) as client:
        return client.infer("sentiment", text(httpclient)).get_response()["model_version"]


def test_tls_over_both_protocols(home: Path, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "other")
    pair = authority.issue("server")
    context = trusting(authority.path)
    tls = {"WEIGHBRIDGE_TLS_CERT": str(pair.cert), "WEIGHBRIDGE_TLS_KEY": str(pair.key)}
    with servers.running(home, tls=context, **tls, **QUIET) as server:
        assert over_http(server, context) in ("1", "2")
        assert over_grpc(server, authority.path) in ("1", "2")
        with pytest.raises(ssl.SSLCertVerificationError):
            over_http(server, trusting(other.path))
        with pytest.raises(InferenceServerException):
            over_grpc(server, other.path)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.http_port}/v2")
        with pytest.raises(InferenceServerException):
            over_grpc(server, None)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert negotiated(server, authority.path, version) >= 128
        assert f"https://127.0.0.1:{server.http_port}" in server.output()
        assert "BEGIN" not in server.output()


def negotiated(server: servers.Server, ca: Path, version: ssl.TLSVersion) -> int:
    """The key bits of a connection of exactly `version`; its cipher must authenticate (AEAD)."""
    context = trusting(ca)
    context.maximum_version = version
    with (
        wire.connect(server.http_port) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        name, _, bits = wrapped.cipher()
        assert "GCM" in name or "POLY1305" in name
        return bits


def test_mutual_tls_refuses_clients_of_another_authority(home: Path, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "other")
    pair, client = authority.issue("server"), authority.issue("client", client=True)
    stranger = other.issue("stranger", client=True)
    context = trusting(authority.path, client)
    tls = {
        "WEIGHBRIDGE_TLS_CERT": str(pair.cert),
        "WEIGHBRIDGE_TLS_KEY": str(pair.key),
        "WEIGHBRIDGE_TLS_CLIENT_CA": str(authority.path),
    }
    with servers.running(home, tls=context, **tls) as server:
        assert over_http(server, context) in ("1", "2")
        assert over_grpc(server, authority.path, client) in ("1", "2")
        explained = httpx.post(
            f"{server.http}/v1/models/sentiment:explain",
            json=SENTIMENT,
            timeout=60,
            verify=context,
        )
        assert explained.status_code == 200, explained.text
        for bad in (None, stranger):
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                httpx.get(f"{server.http}/v2", verify=trusting(authority.path, bad))
            with pytest.raises(InferenceServerException):
                over_grpc(server, authority.path, bad)


def test_the_slow_path_has_the_same_gate(home: Path) -> None:
    made = keyed(home, "infer")
    off = {"WEIGHBRIDGE_FAST_PATH": "false", "WEIGHBRIDGE_AUTH": "keys"}
    with servers.running(home, **off, **QUIET) as server:
        key = {"x-api-key": made}
        for path in ("/v2", "/v2/models", "/", "/docs.json", "/v1/models", "//v2/models", "/x"):
            found = wire.send(server.http_port, wire.request("GET", path))
            assert found.status == 401, path
        for path in ("/v2/health/ready", "/livez", "/readyz"):
            assert httpx.get(server.http + path).status_code == 200
        for path in ("/cnn", "/lstm", "/dnn", "/v2/models/income/infer"):
            assert httpx.post(server.http + path, json={}).status_code == 401
            assert httpx.post(server.http + path, json={}, headers=key).status_code == 400
        assert httpx.get(f"{server.http}/metrics", headers=key).status_code == 403
        unload = f"{server.http}/v2/repository/models/income/unload"
        assert httpx.post(unload, headers=key).status_code == 403
        url = f"{server.http}/v1/models/sentiment:predict"
        assert httpx.post(url, json=SENTIMENT, headers=key).status_code == 200
        arm = {"x-weighbridge-arm": "treatment"}
        assert httpx.post(url, json=SENTIMENT, headers=key | arm).status_code == 403


def keyed(home: Path, *roles: str, options: tuple[str, ...] = ()) -> str:
    """A new key for a server that is not started yet."""
    server = servers.Server(None, home, 0, 0, home / "x", environment(home))  # type: ignore[arg-type]
    words = [word for role in roles for word in ("--role", role)]
    done = server.cli("apikey", "add", f"key-{'-'.join(roles)}", *words, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def environment(home: Path, **settings: str) -> dict[str, str]:
    return dict(os.environ) | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "WEIGHBRIDGE_HTTP_PORT": str(servers.free_port()),
        "WEIGHBRIDGE_GRPC_PORT": "0",
        **settings,
    }


def test_runner_services_work_behind_tls_and_keys(home: Path, tmp_path: Path) -> None:
    """What BentoML starts beside the gateway talks over Unix sockets, and needs neither."""
    authority = Authority(tmp_path / "ca")
    pair, key = authority.issue("server"), keyed(home, "infer")
    options = {
        "WEIGHBRIDGE_TLS_CERT": str(pair.cert),
        "WEIGHBRIDGE_TLS_KEY": str(pair.key),
        "WEIGHBRIDGE_AUTH": "keys",
        "WEIGHBRIDGE_RUNNER": "service",
    }
    context = trusting(authority.path)
    with servers.running(home, tls=context, **options) as server:
        for verb in ("predict", "explain"):
            url = f"{server.http}/v1/models/sentiment:{verb}"
            bearer = {"authorization": f"Bearer {key}"}
            found = httpx.post(url, json=SENTIMENT, headers=bearer, timeout=60, verify=context)
            assert found.status_code == 200, found.text


def test_rates_and_concurrency_refuse_at_once_and_say_when_to_come_back(home: Path) -> None:
    """With authentication off everybody is one principal, whose bucket holds forty calls."""
    limits = {
        "WEIGHBRIDGE_RATE_PER_S": "0.001",
        "WEIGHBRIDGE_RATE_BURST": "40",
        "WEIGHBRIDGE_CONCURRENCY": "digits=1",
    }
    with servers.running(home, **limits, **QUIET) as server:
        assert httpx.get(f"{server.http}/v2/health/ready").status_code == 200
        full = crowd(server)
        assert set(full) == {200, 429}, full
        one = httpx.post(f"{server.http}/v1/models/sentiment:predict", json=SENTIMENT)
        assert one.status_code == 200
        found = [httpx.get(f"{server.http}/v2") for _ in range(60)]
        late = [reply for reply in found if reply.status_code == 429]
        taken = len(full) + 1 + sum(reply.status_code == 200 for reply in found)
        assert taken == 40
        assert int(late[0].headers["retry-after"]) > 1
        with pytest.raises(InferenceServerException) as refused:
            over_grpc(server, None)
        assert "RESOURCE_EXHAUSTED" in str(refused.value)
        assert httpx.get(f"{server.http}/v2/health/ready").status_code == 200


def crowd(server: servers.Server) -> list[int]:
    """Statuses of 16 calls of many rows at once, to a model that answers one at a time."""
    image = {"name": "image", "datatype": "UINT8", "shape": [512, 28, 28, 1]}
    body = {"inputs": [image | {"data": [0] * (512 * 784)}]}

    def call(_: int) -> int:
        url = f"{server.http}/v2/models/digits/infer"
        reply = httpx.post(url, json=body, timeout=60)
        if reply.status_code == 429:
            assert reply.headers["retry-after"] == "1"
        return reply.status_code

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(call, range(16)))


def test_a_key_may_have_a_rate_of_its_own(home: Path) -> None:
    slow = keyed(home, "infer", options=("--rate", "0.001", "--burst", "2"))
    free = keyed(home, "operate")
    with (
        servers.running(home, WEIGHBRIDGE_AUTH="keys", **QUIET) as server,
        httpx.Client(base_url=server.http) as client,
    ):
        found = [client.get("/v2", headers={"x-api-key": slow}).status_code for _ in range(4)]
        assert found == [200, 200, 429, 429]
        others = [client.get("/v2", headers={"x-api-key": free}) for _ in range(20)]
        assert {reply.status_code for reply in others} == {200}


# --- what does not start --------------------------------------------------------------------


def refused_start(home: Path, *words: str, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway", *words],
        cwd=servers.ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_open_door_to_the_world_does_not_start(home: Path) -> None:
    override = {"services": {"Gateway": {"http": {"host": "0.0.0.0"}}}}
    for words, settings in (
        ((), {"WEIGHBRIDGE_HOST": "0.0.0.0"}),
        ((), {"WEIGHBRIDGE_HOST": "::"}),
        (("--host", "0.0.0.0"), {}),
        ((), {"BENTOML_HOST": "0.0.0.0"}),
        ((), {"BENTOML_CONFIG_OVERRIDES": json.dumps(override)}),
    ):
        said = refused_start(home, *words, **settings)
        assert "WEIGHBRIDGE_AUTH=keys" in said
        assert "WEIGHBRIDGE_ALLOW_OPEN=true" in said


def test_a_mode_without_its_means_does_not_start(home: Path, tmp_path: Path) -> None:
    assert "weighbridge apikey add" in refused_start(home, WEIGHBRIDGE_AUTH="keys")
    assert "WEIGHBRIDGE_JWT_ISSUER" in refused_start(home, WEIGHBRIDGE_AUTH="jwt")
    pair = Authority(tmp_path / "ca").issue("server")
    pair.key.chmod(0o644)
    tls = {"WEIGHBRIDGE_TLS_CERT": str(pair.cert), "WEIGHBRIDGE_TLS_KEY": str(pair.key)}
    said = refused_start(home, **tls)
    assert "chmod 600" in said
    assert "BEGIN" not in said


def test_an_open_door_that_was_asked_for_starts(home: Path) -> None:
    opened = {"WEIGHBRIDGE_HOST": "0.0.0.0", "WEIGHBRIDGE_ALLOW_OPEN": "true"}
    with servers.running(home, **opened, **QUIET) as server:
        assert httpx.get(f"{server.http}/v2").status_code == 200
