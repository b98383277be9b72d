"""Odd and hostile HTTP: a refusal in the protocol's form, and the server goes on as before."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import wire

INFER = "/v2/models/sentiment/infer"
UNIT = f"x-weighbridge-unit: {wire.CANARY}".encode()


def text_body(text: object = "fine", **changes: Any) -> bytes:
    item = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    return json.dumps({"inputs": [item | changes]}).encode()


@pytest.fixture(autouse=True)
def goes_on(gateway) -> Iterator[None]:
    """After every attack a good request is answered as ever, and nothing was left in the log."""
    before = len(gateway.output())
    yield
    good = wire.send(gateway.http_port, wire.request("POST", INFER, text_body(), UNIT))
    assert good.status == 200, good
    said = gateway.output()[before:]
    assert "Traceback" not in said
    assert wire.CANARY not in said


def post(gateway, body: bytes, *headers: bytes, path: str = INFER) -> wire.Answer:
    return wire.send(gateway.http_port, wire.request("POST", path, body, UNIT, *headers))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "HEAD", "GET"])
def test_a_wrong_method_is_an_error_of_the_protocol(gateway, method) -> None:
    for path in (INFER, "/v1/models/sentiment:predict", "/v1/outcomes", "/v1", "/v2/repository"):
        answer = wire.send(gateway.http_port, wire.request(method, path))
        assert answer.status == 404
        if method != "HEAD":
            answer.error()


def test_head_is_get_without_a_body(gateway) -> None:
    answer = wire.send(gateway.http_port, wire.request("HEAD", "/v2/health/live"))
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/..%2Fdigits/infer", 400),
        ("/v2/models/%2e%2e/infer", 404),
        ("/v2/models/a%2Fb/infer", 400),
        ("/v2/models/%00%0a/infer", 404),
        ("/v2/models/%ff%fe/infer", 404),
        ("/v2/models//infer", 400),
        ("/v2/models/infer", 400),
        (f"/v2/models/{'x' * 5000}/infer", 404),
        ("/v2/models/sentiment/versions/1/infer/extra", 404),
        ("/v2/models/sentiment/versions/77/infer", 404),
        ("/v1/models/:predict", 404),
        ("/v1/models/sentiment:", 404),
        ("/v1/models/sentiment:fly", 404),
        ("/v1/models/sentiment:predict/extra", 404),
        ("/v1/models/a/b:predict", 400),
        ("/v2/repository/models/..%2F..%2Fetc/load", 404),
        ("/v2/repository/models/nothing/load", 404),
        ("/v2/repository/models/nothing/unload", 404),
    ],
)
def test_an_odd_path_is_refused(gateway, path, status) -> None:
    body = b"" if "repository" in path else text_body()
    answer = post(gateway, body, path=path)
    assert answer.status == status
    assert len(answer.error()) < 600


@pytest.mark.parametrize(
    "path", [f"{INFER}/", f"{INFER}?a=1&b", f"/{INFER}", "/v2/models/sentiment/versions/2/infer"]
)
def test_harmless_variations_of_a_path_are_answered(gateway, path) -> None:
    assert post(gateway, text_body(), path=path).status == 200


def test_chunks_and_pipelining_are_understood(gateway) -> None:
    body = text_body()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (body[:7], body[7:]))
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    assert wire.send(gateway.http_port, head + chunks + b"0\r\n\r\n").status == 200
    with wire.connect(gateway.http_port) as client:
        client.sendall(wire.request("POST", INFER, body) + wire.request("GET", "/v2/health/live"))
        stream = client.makefile("rb")
        assert b"200" in stream.readline()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01 garbage\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".encode(),
        wire.request("POST", INFER, b"abc", b"content-length: 2"),
        wire.request("POST", INFER, b"abc", length=-5),
        wire.request("POST", INFER, b"abc", b"transfer-encoding: chunked"),
    ],
)
def test_what_is_not_http_is_refused_and_closed(gateway, data) -> None:
    answer = wire.send(gateway.http_port, data)
    assert answer.status == 400
    assert "HTTP/1.1" in answer.error()
    assert answer.headers["connection"] == "close"


def test_the_upgrade_to_a_websocket_is_refused(gateway) -> None:
    upgrade = (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13")
    key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    data = wire.request("GET", "/v2/health/live", b"", *upgrade, key)
    assert wire.send(gateway.http_port, data).status == 403


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        (b"gzip", gzip.compress(text_body()), 200),
        (b"GZIP", gzip.compress(text_body()), 200),
        (b"gzip", gzip.compress(text_body()[:9]) + gzip.compress(text_body()[9:]), 200),
        (b"deflate", zlib.compress(text_body()), 200),
        (b"Identity", text_body(), 200),
        (b"", text_body(), 200),
        (b"gzip", gzip.compress(text_body())[:-4], 400),
        (b"gzip", gzip.compress(b"") * 100_000, 400),
        (b"deflate", zlib.compress(text_body(), wbits=-15), 400),
        (b"deflate", zlib.compress(text_body()) + b"x", 400),
        (b"gzip", text_body(), 400),
        (b"br", text_body(), 400),
        (b"gzip, gzip", gzip.compress(gzip.compress(text_body())), 400),
        (b"gzip", gzip.compress(b"\0" * (65 << 20), 1), 413),
    ],
)
def test_compressed_requests_are_read_or_refused(gateway, coding, body, status) -> None:
    answer = post(gateway, body, b"content-encoding: " + coding)
    assert answer.status == status
    if status != 200:
        answer.error()


@pytest.mark.parametrize(
    ("asked", "coding"),
    [
        (b"gzip, deflate, br", "gzip"),
        (b"gzip;q=0", None),
        (b"gzip;q=0, deflate", "deflate"),
        (b"gzip;q=0.1, deflate;q=0.9", "deflate"),
        (b"gzip;q=lots", None),
        (b"br", None),
    ],
)
def test_a_reply_is_compressed_as_asked_and_an_error_never(gateway, asked, coding) -> None:
    many = text_body("fine", shape=[200, 1], data=["fine"] * 200)
    answer = post(gateway, many, b"accept-encoding: " + asked)
    assert answer.status == 200
    assert answer.headers.get("content-encoding") == coding
    post(gateway, b"{", b"accept-encoding: " + asked).error()
    found = wire.request("GET", "/v2/models/income/config", b"", b"accept-encoding: " + asked)
    assert "content-encoding" not in wire.send(gateway.http_port, found).headers


NUMBERS = [
    {"name": "text", "datatype": "INT32", "shape": [4001], "data": ["x" * 1_000_000] + ["a"] * 4000}
]


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + text_body(),
        text_body().decode().encode("utf-16"),
        text_body(wire.CANARY + "\ud800"),
        text_body(wire.CANARY, shape=[0, 2**63]),
        text_body(wire.CANARY, shape=[0, 2**40, 2**40], data=[]),
        text_body(wire.CANARY, shape=[2**32, 2**32], data=[]),
        text_body(wire.CANARY, shape=[2, 1]),
        text_body(wire.CANARY, name="n" * 100_000),
        text_body(wire.CANARY, datatype="n" * 100_000),
        text_body(wire.CANARY, datatype="INT64"),
        text_body({wire.CANARY: 1}),
        text_body(wire.CANARY)[:-1] + b',"id":5}',
        text_body(wire.CANARY)[:-1] + b',"parameters":{"x":1e999}}',
        text_body(wire.CANARY)[:-1] + b',"parameters":{"x":null}}',
        text_body(wire.CANARY)[:-1] + b',"parameters":{"x":' + b"[" * 900 + b"]" * 900 + b"}}",
        text_body(wire.CANARY)[:-1] + b',"outputs":[{"name":"label"},{"name":"label"}]}',
        text_body(wire.CANARY)[:-1] + b',"outputs":[{"name":"nothing"}]}',
        text_body(wire.CANARY)[:-1] + b',"parameters":{"weighbridge_timeout_ms":1.5}}',
        text_body(wire.CANARY)[:-1] + b',"parameters":{"weighbridge_attributes":"[1]"}}',
        json.dumps({"inputs": NUMBERS}).encode(),
    ],
)
def test_an_odd_body_is_a_clear_400(gateway, body) -> None:
    answer = post(gateway, body)
    assert answer.status == 400, answer
    assert 10 < len(answer.error()) < 600


@pytest.mark.parametrize(
    "body",
    [
        text_body(wire.CANARY)[:-1] + b',"id":null,"parameters":null,"outputs":null}',
        text_body(wire.CANARY, parameters=None),
        text_body(wire.CANARY + "\u0000"),
        text_body(""),
        text_body("word " * 400_000),
        text_body(wire.CANARY)[:-1] + b',"parameters":{"weighbridge_unit":""}}',
    ],
)
def test_odd_but_lawful_bodies_are_answered(gateway, body) -> None:
    assert post(gateway, body).status == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"x-weighbridge-timeout-ms: 0", 400),
        (b"x-weighbridge-timeout-ms: -1", 400),
        (b"x-weighbridge-timeout-ms: 1e9", 400),
        (b"x-weighbridge-timeout-ms: 000000001" + b"9" * 400, 400),
        (b"x-weighbridge-timeout-ms: " + "٣".encode(), 400),
        (b"x-weighbridge-timeout-ms: ", 200),
        (b"x-weighbridge-timeout-ms: 3600000", 200),
        (b"inference-header-content-length: " + b"0" * 5000, 400),
        (b"inference-header-content-length: " + b"0" * 20 + b"99999", 400),
        (b"x-weighbridge-attributes: [1]", 400),
        (b"x-weighbridge-attributes: {", 400),
        (b'x-weighbridge-attributes: {"sex": ["' + wire.CANARY.encode() + b'"]}', 400),
        (b'x-weighbridge-attributes: {"sex": "' + b"x" * 200 + b'"}', 400),
        (b"x-weighbridge-attributes: " + b'{"a":' * 100 + b"1" + b"}" * 100, 400),
        (b'x-weighbridge-attributes: {"sex": "\xe9"}', 200),
        (b"x-weighbridge-arm: control", 403),
        (b"traceparent: 00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", 200),
        (b"traceparent: " + b"x" * 9000, 200),
        (b"tracestate: " + b"=,=;" * 2000, 200),
        (UNIT, 400),
    ],
)
def test_an_odd_header_is_refused_or_does_no_harm(gateway, header, status) -> None:
    answer = post(gateway, text_body(wire.CANARY), header)
    assert answer.status == status
    if status != 200:
        answer.error()


@pytest.mark.parametrize(
    ("unit", "status"),
    [(b"", 200), (b"u" * 1024, 200), (b"u" * 1025, 400), ("é".encode(), 200), (b"\xff\xfe", 200)],
)
def test_a_unit_is_bounded_text(gateway, unit, status) -> None:
    data = wire.request("POST", INFER, text_body(), b"x-weighbridge-unit: " + unit)
    answer = wire.send(gateway.http_port, data)
    assert answer.status == status
    if status != 200:
        assert "1024" in answer.error()


def test_an_id_is_echoed_exactly_when_given_and_parameters_never(gateway) -> None:
    for number in range(5):
        parameters = {"note": f"{wire.CANARY}-{number}", "weighbridge_unit": "u"}
        extra = {"id": f"é-{number}", "parameters": parameters} if number % 2 else {}
        whole = json.loads(text_body()) | extra
        reply = httpx.post(f"{gateway.http}{INFER}", json=whole).json()
        assert reply.get("id") == extra.get("id")
        assert reply["model_version"] in ("1", "2")
        assert wire.CANARY not in json.dumps(reply)


def test_nothing_that_was_sent_is_in_the_log_and_no_number_is_missing(gateway) -> None:
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    kept = [path for path in (gateway.home / "log").rglob("*") if path.is_file()]
    assert kept
    assert not [path.name for path in kept if wire.CANARY.encode() in path.read_bytes()]
