"""The base path is taken off, and every error that comes out is in our form."""

import json
from typing import Any

import pytest

from services.basepath import BasePath, without_base
from services.outer import Outer


@pytest.mark.parametrize(
    ("base", "root", "path", "expected"),
    [
        ("", "", "/v2", "/v2"),
        ("/ml", "", "/v2", "/v2"),
        ("/ml", "", "/ml/v2", "/v2"),
        ("/ml", "", "/ml", "/"),
        ("/ml", "", "/ml/", "/"),
        ("/ml", "", "/mlx/v2", "/mlx/v2"),
        ("/ml", "", "/ml/ml/v2", "/ml/v2"),
        ("", "/proxy", "/proxy/v2", "/v2"),
        ("", "/proxy", "/v2", "/v2"),
        ("/ml", "/proxy", "/proxy/ml/v2", "/v2"),
    ],
)
def test_the_path_as_if_no_proxy_stood_in_front(base, root, path, expected) -> None:
    scope = {"type": "http", "path": path, "root_path": root, "headers": []}
    found = without_base(scope, base)
    assert found["path"] == expected
    assert scope["path"] == path, "the caller's scope is left alone"
    if expected != path:
        assert found["root_path"] == ""


async def test_what_stands_inside_sees_the_stripped_path_only() -> None:
    seen: list[str] = []

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"] if scope["type"] == "http" else scope["type"])

    outermost = BasePath(gate, base="/ml")
    for scope in (
        {"type": "http", "path": "/ml/v2/repository/models/m/unload"},
        {"type": "http", "path": "/v2"},
        {"type": "lifespan"},
    ):
        await outermost(scope, None, None)
    assert seen == ["/v2/repository/models/m/unload", "/v2", "lifespan"]


async def ask(
    status: int, body: bytes, *, method: str = "GET", headers: Any = (), pieces: int = 1
) -> tuple[int, dict[bytes, bytes], bytes]:
    """What a caller sees of an inner application's reply."""
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        step = max(1, len(body) // pieces)
        parts = [body[i : i + step] for i in range(0, len(body), step)] or [b""]
        for number, part in enumerate(parts):
            more = number < len(parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    outer = Outer(inner, max_body_bytes=10, native=frozenset())
    await outer({"type": "http", "method": method, "path": "/", "headers": []}, receive, send)
    starts = [m for m in sent if m["type"] == "http.response.start"]
    assert len(starts) == 1
    whole = b"".join(m.get("body", b"") for m in sent[1:])
    return starts[0]["status"], dict(starts[0]["headers"]), whole


CANARY = "canary-1234"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, b"Not Found", "no such path"),
        (405, b"Method Not Allowed", "no such verb on this path"),
        (418, b"<html>", "i'm a teapot"),
        (400, b'{"error": "its text"}', "its text"),
        (415, b'[{"error": "its text"}]', "its text"),
        (400, b'{"error": 5}', "bad request"),
        (400, b'{"detail": "' + CANARY.encode() + b'"}', "bad request"),
        (400, b'{"detail": []}', "bad request"),
        (500, b'{"error": "' + CANARY.encode() + b'"}', "the operator finds the reason"),
        (500, CANARY.encode(), "the operator finds the reason"),
        (503, b"", "not ready"),
        (504, b'{"error": "Not able to process the request in 60 seconds"}', "deadline"),
    ],
)
async def test_an_error_becomes_ours(status, body, text) -> None:
    for pieces in (1, 3):
        found, headers, sent = await ask(status, body, pieces=pieces)
        assert found == status
        assert headers[b"content-type"] == b"application/json"
        assert int(headers[b"content-length"]) == len(sent)
        told = json.loads(sent)
        assert set(told) == {"error"}
        assert text in told["error"]
        assert CANARY not in told["error"]


async def test_faults_of_pydantic_keep_the_place_and_never_a_validators_text() -> None:
    detail = [
        {"type": "missing", "loc": ["rows"], "msg": "Field required"},
        {"type": "value_error", "loc": ["image", 3], "msg": f"Value error, {CANARY}"},
    ]
    _, _, sent = await ask(400, json.dumps({"error": "2 errors", "detail": detail}).encode())
    assert json.loads(sent) == {"error": "rows: Field required; image.3: the value does not fit"}


async def test_headers_of_an_error_stay_and_a_head_request_gets_no_body() -> None:
    given = [(b"allow", b"POST"), (b"content-type", b"text/plain"), (b"content-length", b"3")]
    _, headers, sent = await ask(405, b"no!", method="HEAD", headers=given)
    assert headers[b"allow"] == b"POST"
    assert headers[b"content-type"] == b"application/json"
    assert sent == b""


async def test_what_is_no_error_is_passed_on_as_it_is() -> None:
    status, headers, sent = await ask(200, b"anything", headers=[(b"x", b"y")], pieces=4)
    assert (status, headers, sent) == (200, {b"x": b"y"}, b"anything")
