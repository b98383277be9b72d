"""The way to another server by HTTP, over kept connections.

Rule: a reply is bounded in size while it is read; redirects, proxies and credentials of the
surroundings are not used.
Source: httpx 0.28; OIP v2, HTTP/REST with the binary tensor data extension.
Boundary: one model on one server; a blocking twin of each call, for threads without an event loop.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from .errors import ModelFailed
from .oip import format_http, parse_http, parse_metadata
from .tensor import Array, Batch, Signature
from .wire import MAX_REPLY_BYTES, Lost, Metadata, Place, Unsent, refusal

__all__ = ["HttpWire"]

_KEEP_S: Final = 4.0  # less than the 5 s after which common servers hang up on an idle connection
_CONNECT_S: Final = 5.0
_NO_DEADLINE_S: Final = 3600.0
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)


class HttpWire:
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
        """As `Wire.infer`."""
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
        """As `Wire.close`."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def metadata(self, timeout_s: float) -> Metadata:
        """As `Wire.metadata`."""
        reply = self._blocked("GET", self._path, timeout_s=timeout_s)
        if reply.status_code != 200:
            raise refusal(reply.status_code)
        try:
            return parse_metadata(orjson.loads(reply.content))
        except orjson.JSONDecodeError as exc:
            raise ModelFailed("the remote's answer is no model metadata") from exc

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        """As `Wire.infer_once`."""
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
        """As `Wire.close_once`."""
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
            raise refusal(reply.status_code)
        length = reply.headers.get("inference-header-content-length")
        return parse_http(body, length, self._signature)


def _limit(timeout_s: float | None) -> httpx.Timeout:
    whole = _NO_DEADLINE_S if timeout_s is None else timeout_s
    return httpx.Timeout(whole, connect=min(_CONNECT_S, whole))


def _bounded(size: int) -> int:
    if size > MAX_REPLY_BYTES:
        raise ModelFailed("the remote's reply is too large")
    return size
