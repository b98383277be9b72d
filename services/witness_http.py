"""A witness over HTTP: `POST <prefix>/add-checkpoint`, and its public key for people.

Source: c2sp.org/tlog-witness, "HTTP Interface"; the answers are audit/witness.py's.
Rule: bounded bodies and waits; who asks is not authenticated, as the protocol has it: the log's
signature is what counts. Signing happens off the event loop, since it waits for a disk.
Boundary: bytes in, ASGI out; knows nothing of logs or keys.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from audit.witness import MAX_REQUEST_BYTES, Answer, Witness

__all__ = ["WitnessDoor"]

log = logging.getLogger("weighbridge.witness")
_BODY_S = 10.0
_UNREAD = (408, 413)
_REFUSED = (403, 422)  # a stranger's key, or a log that contradicts itself: the operator is told


class WitnessDoor:
    """The ASGI application of one witness.

    Args:
        witness: who answers.
        key: its public key (vkey text), shown at `<prefix>/`.
        prefix: the path in front; "" or "/something".
    """

    def __init__(self, witness: Witness, key: str, prefix: str = "") -> None:
        self._witness, self._key, self._prefix = witness, key, prefix

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        found = await self._answer(scope["method"], scope["path"], receive)
        body = found.body.encode()
        headers = [(b"content-type", found.kind.encode()), (b"content-length", b"%d" % len(body))]
        if found.status in _UNREAD:
            headers.append((b"connection", b"close"))  # or the rest would be read all the same
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str, receive: Any) -> Answer:
        if path in (f"{self._prefix}/", self._prefix or "/"):
            return Answer(200, f"{self._key}\n") if method == "GET" else Answer(405, "use GET\n")
        if path != f"{self._prefix}/add-checkpoint":
            return Answer(404, "there is only add-checkpoint here\n")
        if method != "POST":
            return Answer(405, "use POST\n")
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _read(receive)
        except TimeoutError:
            return Answer(408, "the body did not come in time\n")
        if body is None:
            return Answer(413, f"a request has at most {MAX_REQUEST_BYTES} bytes\n")
        try:
            found = await asyncio.to_thread(self._witness.add_checkpoint, body)
        except OSError:
            log.exception("the state could not be written; nothing was signed")
            return Answer(503, "the witness cannot keep its state now; nothing was signed\n")
        if found.status in _REFUSED:
            log.warning("refused a checkpoint with %d: %s", found.status, found.body.strip())
        return found


async def _read(receive: Any) -> bytes | None:
    """The whole body; None if it is too large or its sender went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)
