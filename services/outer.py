"""What stands around BentoML's application: our form of errors, and bodies that can be read.

Source: ASGI 3; docs/protocol.md, "Errors" and "Native endpoints".
Rule 1: every error, whoever found it, is `{"error": text}` as `application/json`. BentoML's own
texts may repeat what a caller sent or how a library failed: of its refusals only the place and
pydantic's sentence are kept, of its failures nothing.
Rule 2: a native body is JSON, whatever an untrue Content-Type says: curl's default is not a form.
BentoML's other serialisations are refused; it answers malformed ones with 500.
Boundary: an ASGI wrapper for paths that are not `/v1` or `/v2`; those have a door of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson

from .codec import parse_json
from .connection import ClientGone, Message, Receive, read_body
from .faults import BadRequest, fault_of

__all__ = ["Outer"]

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_OTHER_FORMS = (b"multipart/form-data", b"application/vnd.bentoml")
_SENTENCES = {
    404: "no such path",
    405: "no such verb on this path",
    500: "the server could not answer; the operator finds the reason in the server's log",
    503: "the server is not ready; try again shortly",
    504: "the deadline passed",
}
_MAX_TEXT = 480
_MAX_FAULTS = 3


class _OtherForm(BadRequest):
    """A body that is not JSON by its own name."""

    status_hint = 415


class Outer:
    """An application inside, asked and answered in our forms."""

    def __init__(self, app: App, *, max_body_bytes: int, native: frozenset[str]) -> None:
        """`native` are the paths whose bodies are JSON objects."""
        self._app = app
        self._limit = max_body_bytes
        self._native = native

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; everything that is not HTTP goes through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(send, scope["method"])
        try:
            if scope["method"] == "POST" and scope["path"] in self._native:
                scope, receive = await self._readable(scope, receive)
        except ClientGone:
            return
        except BadRequest as exc:
            fault = fault_of(exc)
            await reply.refuse(fault.status, [], fault.message)
            return
        await self._app(scope, receive, reply.send)

    async def _readable(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """A native call whose body was read, within the limit, and is JSON where it should be."""
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        kind = kinds[0].lower() if kinds else b""
        body = await read_body(receive, self._limit)
        if kind.startswith(_OTHER_FORMS):
            raise _OtherForm("send the body as a JSON object")
        parse_json(body)
        others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
        scope = {**scope, "headers": [*others, _JSON]}
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return scope, again


class _Reply:
    """One reply on its way out; an error is held back until its text can be told in our form."""

    def __init__(self, send: Send, method: str) -> None:
        self._send = send
        self._head_only = method == "HEAD"
        self._start: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Pass on what is no error."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                status = self._start["status"]
                headers = list(self._start.get("headers", []))
                await self.refuse(status, headers, _text(status, bytes(self._body)))

    async def refuse(self, status: int, headers: list[tuple[bytes, bytes]], text: str) -> None:
        """Send an error; of `headers` all stay that do not describe the old body."""
        body = orjson.dumps({"error": text[:_MAX_TEXT]})
        kept = [
            (name, value)
            for name, value in headers
            if name.lower() not in (b"content-type", b"content-length", b"content-encoding")
        ]
        kept += [_JSON, (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": kept})
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})


def _text(status: int, body: bytes) -> str:
    """What a caller may read of an error's body."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]  # BentoML wraps a refusal's object in a list
    if isinstance(found, dict) and status < 500:
        if isinstance(found.get("detail"), list) and found["detail"]:
            return "; ".join(map(_sentence, found["detail"][:_MAX_FAULTS]))
        if isinstance(found.get("error"), str):
            return str(found["error"])
    return _SENTENCES.get(status) or HTTPStatus(status).phrase.lower()


def _sentence(fault: Any) -> str:
    """One of pydantic's faults, without a validator's own text, which may hold an exception's."""
    if not isinstance(fault, dict):
        return "the body does not fit"
    place = ".".join(str(step)[:64] for step in fault.get("loc", ())) or "the body"
    plain = fault.get("type") not in ("value_error", "assertion_error")
    return f"{place}: {fault.get('msg', '')}" if plain else f"{place}: the value does not fit"
