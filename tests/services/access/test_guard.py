"""Credentials, needs and gates, without a server."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.access.apikeys import add, new_key
from services.access.credential import MAX_BYTES, Said, read_said
from services.access.gate import HttpGate
from services.access.guard import Guard
from services.access.keybook import KeyBook
from services.access.limits import RateLimits
from services.access.needs import ANYBODY, AUTHENTICATED, INFER, OPERATE, http_need, rpc_need
from services.access.principal import ANONYMOUS, ROLES, Principal, Rate, known_roles
from services.access.rpcgate import RpcGate
from services.faults import BadRequest, Forbidden, RateLimited, Unauthenticated
from services.oip import METHODS

CANARY = "canary-7f3a9c"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"x-weighbridge-arm", b"cookie"]),
            st.binary(max_size=60),
        )
    )
)
def test_headers_are_one_credential_or_a_refusal(pairs) -> None:
    try:
        said = read_said(pairs)
    except BadRequest as exc:
        refusal = str(exc)
    else:
        refusal = ""
    long = [value.decode("latin-1") for _, value in pairs if len(value) > 8]
    assert not any(value in refusal for value in long)
    if refusal:
        return
    sent = [value for name, value in pairs if name in (b"authorization", b"x-api-key")]
    assert len(sent) <= 1
    assert (said.credential is None) == (not sent)
    assert said.forced == any(v for n, v in pairs if n == b"x-weighbridge-arm")


def test_two_credentials_are_none() -> None:
    bearer, key = ("authorization", "Bearer abc"), ("x-api-key", "abc")
    assert read_said([bearer]).credential == read_said([key]).credential == "abc"
    for pairs in ([bearer, bearer], [key, key], [bearer, key], [key, ("cookie", "x"), bearer]):
        with pytest.raises(BadRequest, match="more than one"):
            read_said(pairs)


def test_a_credential_is_not_printed() -> None:
    assert CANARY not in repr(read_said([(b"x-api-key", CANARY.encode())]))
    with pytest.raises(Unauthenticated) as found:
        read_said([(b"authorization", f"Basic {CANARY}".encode())])
    assert CANARY not in str(found.value)


def test_what_is_too_long_is_not_looked_at() -> None:
    assert read_said([("x-api-key", "A" * MAX_BYTES)]).credential
    with pytest.raises(Unauthenticated):
        read_said([("x-api-key", "A" * (MAX_BYTES + 1))])


SEGMENTS = st.sampled_from(
    [
        "v1",
        "v2",
        "models",
        "repository",
        "m",
        "load",
        "infer",
        "experiments",
        "reload",
        "health",
        "live",
        "ready",
        "",
        ".",
        "..",
        "V2",
        "metrics",
        "index",
        "livez",
    ]
)
PATHS = st.lists(SEGMENTS, max_size=7).map(lambda parts: "/" + "/".join(parts))
VERBS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])


@given(VERBS, PATHS)
def test_doubled_slashes_never_change_what_a_path_needs(method: str, path: str) -> None:
    need = http_need(method, path)
    doubled = http_need(method, path.replace("/", "//"))
    assert doubled in (need, AUTHENTICATED, INFER)
    if need != ANYBODY:
        assert doubled == need


@given(VERBS, PATHS)
def test_what_changes_something_is_never_open(method: str, path: str) -> None:
    """The operations as Admin reads a path, and probes as they are spelled; nothing between."""
    parts = [part for part in path.split("/") if part]
    need = http_need(method, path)
    if method == "POST" and parts[:3] == ["v2", "repository", "models"]:
        assert need == OPERATE
    if method == "POST" and parts == ["v1", "experiments", "reload"]:
        assert need == OPERATE
    if need == ANYBODY:
        assert method in ("GET", "HEAD")
        assert path in ("/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"])
def test_paths_that_change_something_need_more_than_a_role(method: str) -> None:
    for path in ("/v1/experiments/reload", "/v1/experiments", "//v1//experiments/reload/"):
        assert http_need(method, path) == OPERATE
    for path in ("/v2/repository/models/m/load", "/v2/repository", "/v2//repository/x"):
        assert http_need(method, path) == OPERATE
    for path in ("/v2/health/live", "/livez", "/", "/v2", "/v1/outcomes", "/docs.json", "/cnn"):
        assert http_need(method, path) == INFER


def test_every_method_of_the_service_has_its_need() -> None:
    found = {name: rpc_need(f"/inference.GRPCInferenceService/{name}") for name in METHODS}
    assert {name for name, need in found.items() if need == ANYBODY} == {
        "ServerLive",
        "ServerReady",
    }
    assert {name for name, need in found.items() if need == OPERATE} == {
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    }
    assert {name for name, need in found.items() if need == INFER} == {
        "ModelInfer",
        "ModelStreamInfer",
    }
    assert rpc_need("/grpc.health.v1.Health/Watch") == ANYBODY
    for odd in (
        "/grpc.health.v1.Health",
        "/other.Service/Do",
        "",
        "/inference.grpcinferenceservice/X",
    ):
        assert rpc_need(odd) == INFER


def test_unknown_roles_grant_nothing() -> None:
    assert known_roles(["infer", "Infer", "root", 1, None]) == {"infer"}
    assert known_roles([]) == frozenset()


# --- the guard ------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    made = {}
    for role in ROLES:
        key = new_key(role, frozenset({role}), now=0)
        add(tmp_path / "keys.json", key)
        made[role] = key.text
    return made


@pytest.fixture
def guard(keys, tmp_path: Path) -> Guard:
    return Guard(keys=KeyBook(tmp_path / "keys.json"))


async def test_an_open_guard_lets_everybody_in_and_counts_them_together() -> None:
    guard = Guard(rates=RateLimits(Rate(0.001, 1), clock=lambda: 0.0))
    assert guard.open
    assert await guard.admit(Said("whatever", forced=True), OPERATE) == ANONYMOUS
    with pytest.raises(RateLimited):
        await guard.admit(Said(None, forced=False), INFER)


async def test_a_stranger_learns_nothing_and_costs_nobody(guard) -> None:
    with pytest.raises(Unauthenticated, match="authenticate"):
        await guard.admit(Said(None, forced=False), OPERATE)
    for text in ("wb_x", "eyJ.x.y", "x" * 8000):
        with pytest.raises(Unauthenticated, match="does not hold"):
            await guard.admit(Said(text, forced=False), OPERATE)


async def test_a_role_opens_what_needs_it_and_nothing_else(guard, keys) -> None:
    for role in ROLES:
        for need in (frozenset({other}) for other in ROLES):
            said = Said(keys[role], forced=False)
            if role in need:
                assert (await guard.admit(said, need)).name == f"key:{role}"
            else:
                with pytest.raises(Forbidden):
                    await guard.admit(said, need)


async def test_forcing_needs_a_role_beside_the_other(guard, keys) -> None:
    with pytest.raises(Forbidden, match="force-arm"):
        await guard.admit(Said(keys["infer"], forced=True), INFER)
    with pytest.raises(Forbidden):
        await guard.admit(Said(keys["force-arm"], forced=True), INFER)


# --- the gates ------------------------------------------------------------------------------


class Reached(Exception):
    """The application behind the gate was reached."""


async def behind(*_: Any) -> None:
    raise Reached


async def ask(gate: HttpGate, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("the body of a refused call was read")

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    return sent


def scope(path: str = "/v2", *headers: tuple[bytes, bytes], kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": "POST", "path": path, "headers": list(headers)}


async def test_a_refused_call_is_not_read(guard, keys) -> None:
    gate = HttpGate(behind, lambda: guard)
    start, body = await ask(gate, scope())
    assert start["status"] == 401
    assert (b"www-authenticate", b'Bearer realm="weighbridge"') in start["headers"]
    assert body["body"].startswith(b'{"error":')
    with pytest.raises(Reached):
        await ask(gate, scope("/v2", (b"x-api-key", keys["infer"].encode())))


async def test_the_gate_fails_closed(keys) -> None:
    class Broken(Guard):
        async def admit(self, *_: Any, **__: Any) -> Principal:
            raise RuntimeError(CANARY)

    start, body = await ask(HttpGate(behind, Broken), scope())
    assert start["status"] == 500
    assert CANARY.encode() not in body["body"]
    start, _ = await ask(HttpGate(behind, lambda: None), scope())
    assert start["status"] == 503
    gate = RpcGate(Broken(), lambda number: number)
    found = await gate.admit("/inference.GRPCInferenceService/ModelInfer", [])
    assert found is not None
    assert (found.grpc_code, CANARY in found.message) == (13, False)


async def test_websockets_are_refused_and_the_lifespan_passes(guard) -> None:
    gate = HttpGate(behind, lambda: guard)
    assert await ask(gate, scope("/v2", kind="websocket")) == [
        {"type": "websocket.close", "code": 1008}
    ]
    with pytest.raises(Reached):
        await ask(gate, scope("/v2", kind="lifespan"))


async def test_refusals_are_counted(guard) -> None:
    counted: list[tuple[int, str]] = []
    guard._refused = lambda *, status, origin: counted.append((status, origin))
    await ask(HttpGate(behind, lambda: guard), scope())
    await RpcGate(guard, int).admit("/x/y", [("x-api-key-bin", b"\x00\xff")])
    assert counted == [(401, "http"), (401, "grpc")]
