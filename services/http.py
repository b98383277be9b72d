"""HTTP to the data plane and back: a thin ASGI converter for `/v1` and `/v2`.

Source: docs/protocol.md (Open Inference Protocol, V1 predict, Triton's and KServe's extensions).
Rule 1: an error is always `{"error": text}` as `application/json`, never compressed, never with an
exception's text; an inner bug is a 500 and the connection goes on.
Rule 2: only `infer` replies are ever compressed.
Rule 3: a client that goes away cancels its work; its record, if it came to one, stands.
Read next: connection.py (the client's end), bodylimits.py (how much of it is read), codec.py and
v1.py (bodies), claims.py (our headers), admin.py (all that predicts nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import orjson

from audit.entropy import random_bytes

from .admin import Admin
from .bodylimits import limit_of
from .claims import take_claims
from .codec import decode, encode
from .compression import deflate, inflate
from .connection import (
    ClientGone,
    Headers,
    Message,
    Receive,
    header,
    read_body,
    read_headers,
    while_connected,
)
from .dataplane import DataPlane, Origin, Reply, Request
from .explaining import Explaining
from .faults import BadRequest, report
from .large import LARGE_BYTES, aside
from .v1 import decode_instances, encode_predictions

__all__ = ["HttpDoor", "Result"]

Scope = Message
Send = Callable[[Message], Awaitable[None]]

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
        self.max_body_bytes = max_body_bytes
        self.leaving = False

    async def call(self, path: str, pairs: list[tuple[bytes, bytes]], body: bytes) -> Result:
        """Answer one inference call whose client is watched by somebody else; never refuses."""
        try:
            headers = read_headers(pairs)
            if encoding := header(headers, "content-encoding"):
                body = inflate(body, encoding, self.max_body_bytes)
            return await self._infer(path.split("/")[1:], headers, body)
        except Exception as exc:  # noqa: BLE001  the edge, as below
            return self.refused(exc)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            result = await self._answer(scope, receive)
        except ClientGone:
            return  # nobody is left to answer; the server has closed the connection
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001  the edge: the caller gets a stable text, we the log
            result = self.refused(exc)
        length = str(len(result.body)).encode()
        headers = [*result.headers, (b"content-length", length)]
        await send({"type": "http.response.start", "status": result.status, "headers": headers})
        await send({"type": "http.response.body", "body": result.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Result:
        method, parts = scope["method"], [part for part in scope["path"].split("/") if part]
        body = b""
        if method == "POST":
            headers = read_headers(scope["headers"])
            limit = limit_of(parts, self.max_body_bytes)
            body = await read_body(receive, limit)
            if encoding := header(headers, "content-encoding"):
                body = inflate(body, encoding, limit)
            if parts[:2] == ["v2", "models"] and parts[-1] == "infer":
                return await while_connected(self._infer(parts, headers, body), receive)
            if parts[:2] == ["v1", "models"] and ":" in parts[-1]:
                return await while_connected(self._v1(parts, headers, body), receive)
        found = await self._admin.answer("GET" if method == "HEAD" else method, parts, body)
        return Result(found.status, [_JSON], orjson.dumps(found.body))

    async def _infer(self, parts: list[str], headers: Headers, body: bytes) -> Result:
        model, version = _target(parts)
        length = header(headers, "inference-header-content-length")
        raw = length is not None and not length.strip("0")  # only then the signature is asked for
        signature = self._admin.signature(model, version) if raw else None
        if len(body) < LARGE_BYTES:
            decoded = decode(body, length, signature)
        else:
            decoded = await aside(decode, body, length, signature)
        request = self._request(headers, model, version, "http", decoded.request_id)
        take_claims(request, partial(header, headers), decoded.parameters)
        request.inputs, request.outputs = decoded.inputs, decoded.outputs
        reply = await self._plane.infer(request)
        head = _reply_head(reply, decoded.request_id)
        written = partial(
            encode,
            head,
            reply.specs,
            reply.outputs,
            binary=decoded.binary,
            binary_default=decoded.binary_default,
        )
        large = sum(array.nbytes for array in reply.outputs.values()) >= LARGE_BYTES
        out, json_size = await aside(written) if large else written()
        found = [_JSON] if json_size is None else [_BINARY]
        if json_size is not None:
            found.append((b"inference-header-content-length", str(json_size).encode()))
        out, coding = deflate(out, header(headers, "accept-encoding") or "")
        if coding:
            found.append((b"content-encoding", coding))
        return Result(200, found + _ours(reply), out)

    async def _v1(self, parts: list[str], headers: Headers, body: bytes) -> Result:
        name, _, verb = parts[-1].rpartition(":")
        model, version = _target([*parts[:-1], name, verb])
        signature = self._admin.signature(model, version)
        if verb not in ("predict", "explain") or signature is None:
            raise self._admin.unknown(model, verb)
        request = self._request(headers, model, version, "v1", "")
        take_claims(request, partial(header, headers), {})
        large = len(body) >= LARGE_BYTES
        request.inputs = (
            await aside(decode_instances, body, signature)
            if large
            else decode_instances(body, signature)
        )
        if verb == "predict":
            reply = await self._plane.infer(request)
            return Result(
                200, [_JSON, *_ours(reply)], encode_predictions(reply.specs, reply.outputs)
            )
        reply, explanation = await self._explaining.explain(request)
        return Result(200, [_JSON, *_ours(reply)], orjson.dumps(explanation))

    def refused(self, error: Exception) -> Result:
        """The answer to a request that gets none."""
        fault = report(error)
        headers = [_JSON]
        if fault.retry_after_s is not None:
            headers.append((b"retry-after", str(fault.retry_after_s).encode()))
        return Result(fault.status, headers, orjson.dumps({"error": fault.message}))

    def _request(
        self, headers: Headers, model: str, version: str | None, origin: Origin, request_id: str
    ) -> Request:
        return Request(
            model=model,
            version=version,
            inputs={},
            origin=origin,
            trace=self._plane.telemetry.begin(
                header(headers, "traceparent"), header(headers, "tracestate")
            ),
            request_id=request_id or random_bytes(16).hex(),
        )


def _target(parts: list[str]) -> tuple[str, str | None]:
    """Model and version of `ROOT/models/NAME[/versions/VERSION]/VERB`."""
    if len(parts) == 4:
        return parts[2], None
    if len(parts) == 6 and parts[3] == "versions":
        return parts[2], parts[4]
    raise BadRequest(
        "the path must be /v2/models/NAME[/versions/VERSION]/infer or "
        "/v1/models/NAME[/versions/VERSION]:predict"
    )


def _reply_head(reply: Reply, request_id: str) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": reply.model, "model_version": reply.version}
    if request_id:
        head["id"] = request_id
    head["parameters"] = {
        "weighbridge_decision": reply.decision,
        "weighbridge_receipt": str(reply.receipt),
    }
    if reply.arm:
        head["parameters"]["weighbridge_arm"] = reply.arm
    return head


def _ours(reply: Reply) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in reply.headers()]
