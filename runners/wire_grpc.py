"""The way to another server by gRPC: one channel for callers, one for blocking calls.

Rule: tensors travel raw; a reply is bounded in size by the channel; no proxy is used.
Source: grpc 1.8x `grpc.aio`; OIP v2, `inference.GRPCInferenceService`.
Boundary: one model on one server. Message classes are handed in (see oip.py).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import grpc
import grpc.aio

from .oip import format_message, parse_message
from .tensor import Array, Batch, Signature
from .wire import MAX_REPLY_BYTES, Lost, Metadata, Place, refusal

__all__ = ["GrpcWire"]

_SERVICE: Final = "/inference.GRPCInferenceService"
_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
}


class GrpcWire:
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
            ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
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
        """As `Wire.infer`."""
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
        """As `Wire.close`."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._infer = None

    def metadata(self, timeout_s: float) -> Metadata:
        """As `Wire.metadata`."""
        place = self._place
        request = self._messages("ModelMetadataRequest")(name=place.model, version=place.version)
        reply = self._blocked("ModelMetadata", request, timeout_s)
        return {
            side: [(t.name, t.datatype, tuple(t.shape)) for t in getattr(reply, side)]
            for side in ("inputs", "outputs")
        }

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        """As `Wire.infer_once`."""
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
        """As `Wire.close_once`."""
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None


def _of_code(code: grpc.StatusCode) -> Exception:
    """`UNAVAILABLE` may stand for a call that ran; gRPC itself repeats one that never left."""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Lost()
    return refusal(_CODES.get(code, 500))
