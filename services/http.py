"""HTTP to the data plane and back: a thin ASGI converter for `/v1` and `/v2`.

Source: docs/protocol.md (Open Inference Protocol, V1 predict, Triton's and KServe's extensions).
Rule 1: an error is always `{"error": text}` as `application/json`, never compressed, never with an
exception's text; an inner bug is a 500 and the connection goes on.
Rule 2: a body is read up to the limit, before and after decompression, and no further.
Rule 3: only `infer` replies are ever compressed, and only with gzip or deflate.
Read next: codec.py and v1.py (bodies), admin.py (everything that is not a prediction).
"""

from __future__ import annotations

import asyncio
import gzip
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, NamedTuple

import orjson

from .admin import Admin
from .codec import decode, encode
from .dataplane import DataPlane, Origin, Reply, Request
from .explaining import Explaining
from .faults import BadRequest, TooLarge, report
from .protected import parse_attributes
from .v1 import decode_instances, encode_predictions

__all__ = ["HttpDoor", "Result"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]

_COMPRESS_BYTES = 4096
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class Result(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class HttpDoor:
    """The ASGI application behind `/v1` and `/v2`."""

    def __init__(
        self, plane: DataPlane, admin: Admin, explaining: Explaining, *, max_body_bytes: int
    ) -> None:
        """Serve `plane`; `admin` answers everything that is not a prediction."""
        self._plane = plane
        self._admin = admin
        self._explaining = explaining
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            result = await self._answer(scope, receive)
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001  the edge: the caller gets a stable text, we the log
            result = _refused(exc)
        length = str(len(result.body)).encode()
        headers = [*result.headers, (b"content-length", length)]
        await send({"type": "http.response.start", "status": result.status, "headers": headers})
        await send({"type": "http.response.body", "body": result.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Result:
        method, path = scope["method"], scope["path"]
        headers: Headers = dict(scope["headers"])
        if method == "POST":
            body = await self._body(headers, receive)
            parts = path.strip("/").split("/")
            if path.startswith("/v2/models/") and parts[-1] == "infer":
                return await self._infer(parts, headers, body)
            if path.startswith("/v1/models/") and ":" in parts[-1]:
                return await self._v1(parts, headers, body)
        else:
            body = b""
        found = await self._admin.answer(method, path, body)
        return Result(found.status, [_JSON], orjson.dumps(found.body))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, decompressed.

        Raises:
            TooLarge: more than the limit, on the wire or decompressed.
        """
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("the client went away before its request was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise TooLarge(f"the body is larger than {self._limit} bytes")
            chunks.append(chunk)
            if not message.get("more_body"):
                break
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        encoding = headers.get(b"content-encoding")
        return body if encoding in (None, b"identity") else _inflate(body, encoding, self._limit)

    async def _infer(self, parts: list[str], headers: Headers, body: bytes) -> Result:
        model, version = _target(parts)
        length = headers.get(b"inference-header-content-length")
        decoded = decode(
            body,
            length.decode("latin-1") if length is not None else None,
            self._admin.signature(model, version),
        )
        request = self._request(headers, model, version, "http", decoded.request_id)
        _take_parameters(request, decoded.parameters)
        request.inputs, request.outputs = decoded.inputs, decoded.outputs
        reply = await self._plane.infer(request)
        head = _reply_head(reply, decoded.request_id)
        out, json_size = encode(
            head,
            reply.specs,
            reply.outputs,
            binary=decoded.binary,
            binary_default=decoded.binary_default,
        )
        found = [_JSON] if json_size is None else [_BINARY]
        if json_size is not None:
            found.append((b"inference-header-content-length", str(json_size).encode()))
        out, coding = _deflate(out, headers.get(b"accept-encoding", b""))
        if coding:
            found.append((b"content-encoding", coding))
        return Result(200, found + _ours(reply), out)

    async def _v1(self, parts: list[str], headers: Headers, body: bytes) -> Result:
        name, _, verb = parts[-1].rpartition(":")
        model, version = _target([*parts[:-1], name, ""], root="v1")
        signature = self._admin.signature(model, version)
        if verb not in ("predict", "explain") or signature is None:
            raise self._admin.unknown(model, verb)
        request = self._request(headers, model, version, "v1", "")
        request.inputs = decode_instances(body, signature)
        if verb == "predict":
            reply = await self._plane.infer(request)
            return Result(
                200, [_JSON, *_ours(reply)], encode_predictions(reply.specs, reply.outputs)
            )
        reply, explanation = await self._explaining.explain(request)
        return Result(200, [_JSON, *_ours(reply)], orjson.dumps(explanation))

    def _request(
        self, headers: Headers, model: str, version: str | None, origin: Origin, request_id: str
    ) -> Request:
        started = time.time_ns()
        trace = self._plane.telemetry.begin(
            _text(headers, b"traceparent"), _text(headers, b"tracestate")
        )
        request = Request(
            model=model,
            version=version,
            inputs={},
            origin=origin,
            trace=trace,
            request_id=request_id or uuid.uuid4().hex,
            started_ns=started,
        )
        unit = _text(headers, b"x-weighbridge-unit")
        if unit:
            request.unit, request.unit_source = unit, "header"
        request.attributes = parse_attributes(_text(headers, b"x-weighbridge-attributes"))
        request.forced_arm = _text(headers, b"x-weighbridge-arm")
        request.deadline = parse_timeout(_text(headers, b"x-weighbridge-timeout-ms"))
        return request


def parse_timeout(text: str | None) -> float | None:
    """A deadline in `time.monotonic()` seconds from `x-weighbridge-timeout-ms`.

    Raises:
        BadRequest: not a whole number of 1 to 3,600,000 milliseconds.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 3_600_000):
        raise BadRequest("x-weighbridge-timeout-ms must be a whole number from 1 to 3600000")
    return time.monotonic() + int(text) / 1000


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    if not value:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _take_parameters(request: Request, parameters: dict[str, str | int | float | bool]) -> None:
    """OIP parameters of the same meaning as our headers, for clients that cannot set headers."""
    unit = parameters.get("weighbridge_unit")
    if unit is not None and request.unit is None:
        request.unit, request.unit_source = str(unit), "parameter"
    attributes = parameters.get("weighbridge_attributes")
    if attributes is not None and not request.attributes:
        request.attributes = parse_attributes(str(attributes))
    timeout = parameters.get("weighbridge_timeout_ms")
    if timeout is not None and request.deadline is None:
        request.deadline = parse_timeout(str(timeout))


def _target(parts: list[str], root: Literal["v1", "v2"] = "v2") -> tuple[str, str | None]:
    """Model and version of `ROOT/models/NAME[/versions/VERSION]/VERB`."""
    if len(parts) == 4 and parts[0] == root:
        return parts[2], None
    if len(parts) == 6 and parts[0] == root and parts[3] == "versions":
        return parts[2], parts[4]
    raise BadRequest("the path must be /v2/models/NAME[/versions/VERSION]/infer")


def _reply_head(reply: Reply, request_id: str) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": reply.model, "model_version": reply.version}
    if request_id:
        head["id"] = request_id
    head["parameters"] = {
        "weighbridge_decision": reply.decision,
        "weighbridge_receipt": f"{reply.receipt.origin}#{reply.receipt.index}",
    }
    if reply.arm:
        head["parameters"]["weighbridge_arm"] = reply.arm
    return head


def _ours(reply: Reply) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in reply.headers()]


def _refused(error: Exception) -> Result:
    fault = report(error)
    headers = [_JSON]
    if fault.retry_after_s is not None:
        headers.append((b"retry-after", str(fault.retry_after_s).encode()))
    return Result(fault.status, headers, orjson.dumps({"error": fault.message}))


def _inflate(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress gzip or deflate (zlib), never beyond `limit` bytes."""
    windows = {b"gzip": 31, b"deflate": 15}
    wbits = windows.get(encoding.strip().lower())
    if wbits is None:
        raise BadRequest("Content-Encoding must be gzip, deflate or identity")
    try:
        stream = zlib.decompressobj(wbits)
        found = stream.decompress(body, limit + 1)
    except zlib.error as exc:
        raise BadRequest("the body does not decompress") from exc
    if len(found) > limit:
        raise TooLarge(f"the decompressed body is larger than {limit} bytes")
    if not stream.eof or stream.unused_data:
        raise BadRequest("the compressed body is cut short or has bytes behind it")
    return found


def _deflate(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    if len(body) < _COMPRESS_BYTES or not accepted:
        return body, None
    offers = {offer.split(b";")[0].strip() for offer in accepted.lower().split(b",")}
    if b"gzip" in offers:
        return gzip.compress(body, 1), b"gzip"
    if b"deflate" in offers:
        return zlib.compress(body, 1), b"deflate"
    return body, None
