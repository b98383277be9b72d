"""Tensors between two of our own processes: framed binary over a Unix socket.

Frame: 4-byte little-endian length of the head, 4-byte length of the body, head (JSON), body.
Head of a request: {"id", "name", "version", "rows", "budget_s", "context"}; of a reply: {"id",
"queue_s", "infer_s", "batch_rows"} or {"id", "error", "message"}. The body is `tensor.pack` of the
arrays.
Rule: calls are pipelined and answered in any order, matched by id; the far side batches whatever
has arrived. When the peer goes away every call in flight fails at once and the next one reconnects.
Boundary: asyncio; the socket file is private to the user who runs both processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from . import errors
from .batch import Answer
from .errors import ModelNotReady, RunnerError
from .tensor import Array, Batch, pack, unpack

__all__ = ["Call", "Link", "LinkServer", "Remote", "serve"]

log = logging.getLogger("weighbridge")

_HEAD = struct.Struct("<II")
_MAX_BYTES = 1 << 30
_Message = dict[str, Any]


class Call(NamedTuple):
    """One request as the far side sees it."""

    name: str
    version: str
    batch: Batch
    rows: int
    deadline: float | None
    context: str


Handler = Callable[[Call], Awaitable[Answer]]


def _format(head: _Message, arrays: Mapping[str, Array]) -> bytes:
    text, body = orjson.dumps(head), pack(arrays)
    return b"".join((_HEAD.pack(len(text), len(body)), text, body))


async def _read(reader: asyncio.StreamReader) -> tuple[_Message, bytes]:
    head_size, body_size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if head_size + body_size > _MAX_BYTES:
        raise ConnectionError("a frame is larger than 1 GiB")
    data = await reader.readexactly(head_size + body_size)
    head: _Message = orjson.loads(data[:head_size])
    return head, data[head_size:]


class LinkServer:
    """The answering side: every connection, and every call on it, is a task of its own."""

    def __init__(self, handler: Handler) -> None:
        """`serve` makes one and opens its socket."""
        self._handler = handler
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        """Open the socket; a stale file of an earlier process is replaced."""
        path.unlink(missing_ok=True)  # noqa: ASYNC240  once, at start
        self._listening = await asyncio.start_unix_server(self._connected, str(path))
        path.chmod(0o600)  # noqa: ASYNC240

    @property
    def connected(self) -> bool:
        """Whether any caller holds a connection."""
        return bool(self._writers)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._listening is not None:
            self._listening.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        self._writers.add(writer)
        try:
            async with asyncio.TaskGroup() as calls:
                while True:
                    head, body = await _read(reader)
                    calls.create_task(self._answer(head, body, writer))
        except* (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller went away: its calls were cancelled with the group
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: _Message, body: bytes, writer: asyncio.StreamWriter) -> None:
        reply: _Message = {"id": head["id"]}
        outputs: Mapping[str, Array] = {}
        try:
            got = await self._handler(_call(head, body))
            outputs = got.outputs
            reply |= {"queue_s": got.queue_s, "infer_s": got.infer_s, "batch_rows": got.batch_rows}
        except RunnerError as exc:
            reply |= {"error": type(exc).__name__, "message": str(exc)}
        except Exception:  # the edge of this process: the caller gets a refusal, the log the rest
            log.exception("a call of %s:%s failed", head.get("name"), head.get("version"))
            reply |= {"error": "ModelFailed", "message": "the runner could not answer"}
        if not writer.is_closing():
            writer.write(_format(reply, outputs))


def _call(head: _Message, body: bytes) -> Call:
    budget = head["budget_s"]
    deadline = None if budget is None else time.monotonic() + budget
    return Call(
        head["name"], head["version"], unpack(body), head["rows"], deadline, head["context"]
    )


async def serve(path: Path, handler: Handler) -> LinkServer:
    """Answer calls on a Unix socket at `path` (mode 0600) until the result is closed."""
    server = LinkServer(handler)
    await server.listen(path)
    return server


class Link:
    """One connection to a far side, shared by every `Remote` behind it."""

    def __init__(self, path: Path) -> None:
        """Connect lazily to the socket at `path`."""
        self._path = path
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[_Message, bytes]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def call(
        self,
        name: str,
        version: str,
        batch: Batch,
        rows: int,
        *,
        deadline: float | None = None,
        context: str = "",
    ) -> Answer:
        """Answer as the far side's model does, with the same refusals.

        Raises:
            ModelNotReady: the far side is away, or went away during the call.
        """
        writer = await self._connected()
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        budget = None if deadline is None else max(0.0, deadline - time.monotonic())
        head = {"id": number, "name": name, "version": version, "rows": rows}
        try:
            writer.write(_format(head | {"budget_s": budget, "context": context}, batch))
            reply, body = await future
        finally:
            self._waiting.pop(number, None)
        if "error" in reply:
            raise _refusal(reply)
        return Answer(unpack(body), reply["queue_s"], reply["infer_s"], reply["batch_rows"])

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None or self._writer.is_closing():
                try:
                    reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                except OSError as exc:
                    raise ModelNotReady(f"the runner at {self._path.name} is away") from exc
                self._reading = asyncio.create_task(self._read_replies(reader, self._writer))
            return self._writer

    async def _read_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head, body = await _read(reader)
                future = self._waiting.get(head["id"])
                if future is not None and not future.done():
                    future.set_result((head, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ModelNotReady(f"the runner {self._path.name} went away"))

    async def close(self) -> None:
        """Drop the connection; calls in flight fail."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        if self._reading is not None:
            await asyncio.wait([self._reading])


class Remote:
    """One version behind a link; fills `fleet.Served`."""

    def __init__(self, link: Link, name: str, version: str, context: Callable[[], str]) -> None:
        """`context` gives the trace context (a traceparent) of the running request, or ''."""
        self._link = link
        self._name = name
        self._version = version
        self._context = context

    async def infer(self, batch: Batch, rows: int, *, deadline: float | None = None) -> Answer:
        """Answer as `batch.Batcher.infer` does, over the link."""
        return await self._link.call(
            self._name, self._version, batch, rows, deadline=deadline, context=self._context()
        )


def _refusal(reply: _Message) -> RunnerError:
    kind = getattr(errors, str(reply["error"]), RunnerError)
    known = isinstance(kind, type) and issubclass(kind, RunnerError)
    return kind(reply["message"]) if known else RunnerError(reply["message"])
