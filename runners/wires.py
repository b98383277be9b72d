"""Two ways to another server: HTTP with kept connections, and one gRPC channel.

Rule: what a failed call may have caused is in its type. `Unsent`: the far side never had it.
`Lost`: it may have run. Everything else is an answer, told as the refusals of this package.
Rule: a reply is bounded in size before it is read.
Source: httpx 0.28; grpc 1.8 `grpc.aio`; OIP v2 paths and service name.
Boundary: `wire_to` chooses by the address; both kinds have a blocking twin of each call, for
threads without an event loop.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import grpc
import grpc.aio
import httpx
import orjson

from .errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
    RunnerError,
)
from .oip import format_http, format_message, parse_http, parse_message, parse_metadata
from .tensor import Array, Batch, Signature

__all__ = ["SCHEMES", "Lost", "Place", "Unsent", "Wire", "wire_to"]

SCHEMES: Final = ("http", "https", "grpc", "grpcs")
_MAX_REPLY_BYTES: Final = 256 << 20
_KEEP_S: Final = 4.0  # less than the 5 s after which common servers hang up on an idle connection
_CONNECT_S: Final = 5.0
_SERVICE: Final = "/inference.GRPCInferenceService"
_NO_DEADLINE_S: Final = 3600.0
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)

Metadata = dict[str, list[tuple[str, str, tuple[int, ...]]]]


class Unsent(Exception):
    """No connection: the far side never had the request."""


class Lost(Exception):
    """The far side may have had the request, and no answer came back."""


class Place(NamedTuple):
    """Where a remote model is; the token is sent as a bearer, and is never written anywhere."""

    address: str
    model: str
    version: str
    token: str | None

    def __repr__(self) -> str:
        """Without the token and the address."""
        return f"Place({self.model!r})"


class Wire(Protocol):
    """One way to one remote model."""

    async def infer(self, batch: Batch, timeout_s: float | None, context: str) -> dict[str, Array]:
        """One call; raises Unsent, Lost or a RunnerError."""

    async def close(self) -> None:
        """Drop the connections of `infer`."""

    def metadata(self, timeout_s: float) -> Metadata:
        """The far side's model metadata, blocking."""

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        """`infer`, blocking, on a connection of its own."""

    def close_once(self) -> None:
        """Drop the connections of the blocking calls."""


def wire_to(place: Place, signature: Signature, messages: Any) -> Wire:
    """The way that the address's scheme names.

    Raises:
        ModelFailed: it names none, or gRPC messages are needed and not at hand.
    """
    scheme = urlsplit(place.address).scheme
    if scheme in ("http", "https"):
        return _Http(place, signature)
    if scheme in ("grpc", "grpcs") and messages is not None:
        return _Grpc(place, signature, messages)
    raise ModelFailed(f"could not reach a remote model by '{scheme}'")


class _Http:
    """HTTP/1.1 with kept connections."""

    def __init__(self, place: Place, signature: Signature) -> None:
        self._signature = signature
        version = f"/versions/{quote(place.version, safe='')}" if place.version else ""
        self._path = f"/v2/models/{quote(place.model, safe='')}{version}"
        self._options: dict[str, Any] = {
            "base_url": place.address,
            "headers": {"accept-encoding": "identity"}
            | ({"authorization": f"Bearer {place.token}"} if place.token else {}),
            "limits": httpx.Limits(
                max_connections=256, max_keepalive_connections=64, keepalive_expiry=_KEEP_S
            ),
            "follow_redirects": False,
            "trust_env": False,
        }
        self._client: httpx.AsyncClient | None = None
        self._blocking: httpx.Client | None = None

    async def infer(self, batch: Batch, timeout_s: float | None, context: str) -> dict[str, Array]:
        if self._client is None:
            self._client = httpx.AsyncClient(**self._options)
        body, headers = self._request(batch, timeout_s, context)
        request = self._client.build_request(
            "POST", f"{self._path}/infer", content=body, headers=headers, timeout=_limit(timeout_s)
        )
        try:
            reply = await self._client.send(request, stream=True)
            try:
                parts, size = [], 0
                async for part in reply.aiter_raw():
                    parts.append(part)
                    size = _bounded(size + len(part))
            finally:
                await reply.aclose()
        except _NEVER_SENT as exc:
            raise Unsent from exc
        except httpx.TimeoutException as exc:
            raise TimeoutError from exc
        except httpx.TransportError as exc:
            raise Lost from exc
        return self._read(reply, b"".join(parts))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def metadata(self, timeout_s: float) -> Metadata:
        reply = self._blocked("GET", self._path, timeout_s=timeout_s)
        if reply.status_code != 200:
            raise _refusal(reply.status_code)
        try:
            return parse_metadata(orjson.loads(reply.content))
        except orjson.JSONDecodeError as exc:
            raise ModelFailed("the remote's answer is no model metadata") from exc

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        body, headers = self._request(batch, timeout_s, "")
        reply = self._blocked(
            "POST", f"{self._path}/infer", timeout_s=timeout_s, content=body, headers=headers
        )
        return self._read(reply, reply.content)

    def _blocked(self, method: str, path: str, *, timeout_s: float, **more: Any) -> httpx.Response:
        if self._blocking is None:
            self._blocking = httpx.Client(**self._options)
        try:
            return self._blocking.request(method, path, timeout=_limit(timeout_s), **more)
        except _NEVER_SENT as exc:
            raise Unsent from exc
        except httpx.TransportError as exc:
            raise Lost from exc

    def close_once(self) -> None:
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None

    def _request(
        self, batch: Batch, timeout_s: float | None, context: str
    ) -> tuple[bytes, dict[str, str]]:
        body, size = format_http(batch, self._signature)
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(size),
        }
        if timeout_s is not None:
            headers["x-weighbridge-timeout-ms"] = str(max(1, int(timeout_s * 1000)))
        if context:
            headers["traceparent"] = context
        return body, headers

    def _read(self, reply: httpx.Response, body: bytes) -> dict[str, Array]:
        if reply.status_code != 200:
            raise _refusal(reply.status_code)
        length = reply.headers.get("inference-header-content-length")
        return parse_http(body, length, self._signature)


def _limit(timeout_s: float | None) -> httpx.Timeout:
    whole = _NO_DEADLINE_S if timeout_s is None else timeout_s
    return httpx.Timeout(whole, connect=min(_CONNECT_S, whole))


def _bounded(size: int) -> int:
    if size > _MAX_REPLY_BYTES:
        raise ModelFailed("the remote's reply is too large")
    return size


def _refusal(status: int) -> RunnerError:
    """What a status of the far side means for our caller; never its text."""
    if status in (400, 413, 422):
        return InputInvalid("the remote model refused the input")
    if status == 429:
        return Overloaded("the remote model is overloaded")
    if status == 504:
        return DeadlinePassed("the deadline passed before the remote model answered")
    if status in (404, 502, 503):
        return ModelNotReady("the remote model is not ready")
    return ModelFailed(f"the remote model answered with status {status}")


_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
}


class _Grpc:
    """One gRPC channel for callers, another for the blocking calls."""

    def __init__(self, place: Place, signature: Signature, messages: Any) -> None:
        address = urlsplit(place.address)
        self._target = address.netloc
        self._secure = address.scheme == "grpcs"
        self._place = place
        self._signature = signature
        self._messages = messages
        self._channel: Any = None
        self._infer: Any = None
        self._blocking: Any = None

    def _open(self, package: Any) -> Any:
        options = [
            ("grpc.max_receive_message_length", _MAX_REPLY_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._secure:
            return package.secure_channel(self._target, grpc.ssl_channel_credentials(), options)
        return package.insecure_channel(self._target, options)

    def _method(self, channel: Any, name: str) -> Any:
        reply = self._messages(f"{name}Response")
        return channel.unary_unary(
            f"{_SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def _headers(self, context: str) -> list[tuple[str, str]]:
        found = [("traceparent", context)] if context else []
        if self._place.token:
            found.append(("authorization", f"Bearer {self._place.token}"))
        return found

    def _request(self, batch: Batch) -> Any:
        kind = self._messages("ModelInferRequest")
        place = self._place
        return format_message(
            kind, batch, self._signature, model=place.model, version=place.version
        )

    async def infer(self, batch: Batch, timeout_s: float | None, context: str) -> dict[str, Array]:
        if self._infer is None:
            self._channel = self._open(grpc.aio)
            self._infer = self._method(self._channel, "ModelInfer")
        try:
            reply = await self._infer(
                self._request(batch), timeout=timeout_s, metadata=self._headers(context)
            )
        except grpc.aio.AioRpcError as exc:
            raise _of_code(exc.code()) from exc
        return parse_message(reply, self._signature)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._infer = None

    def metadata(self, timeout_s: float) -> Metadata:
        place = self._place
        request = self._messages("ModelMetadataRequest")(name=place.model, version=place.version)
        reply = self._blocked("ModelMetadata", request, timeout_s)
        return {
            side: [(t.name, t.datatype, tuple(t.shape)) for t in getattr(reply, side)]
            for side in ("inputs", "outputs")
        }

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        reply = self._blocked("ModelInfer", self._request(batch), timeout_s)
        return parse_message(reply, self._signature)

    def _blocked(self, name: str, request: Any, timeout_s: float) -> Any:
        if self._blocking is None:
            self._blocking = self._open(grpc)
        method = self._method(self._blocking, name)
        try:
            return method(request, timeout=timeout_s, metadata=self._headers(""))
        except grpc.RpcError as exc:
            raise _of_code(exc.code()) from exc

    def close_once(self) -> None:
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None


def _of_code(code: grpc.StatusCode) -> Exception:
    """`UNAVAILABLE` may stand for a call that ran; gRPC itself repeats one that never left."""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Lost()
    return _refusal(_CODES.get(code, 500))
