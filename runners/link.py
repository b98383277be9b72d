"""Batches between two of our own processes: frames (frames.py) over a Unix socket.

Rule 1: calls of one version meet here as they do in front of a model in this process, and go as one
frame per batch; the far side answers the whole batch at once.
Rule 2: frames are pipelined and answered in any order, matched by number. When the peer goes away
every call in flight on that connection fails at once, and the next one connects anew.
Rule 3: what one call brought upon its batch comes back as the batch's refusal, and the queue here
finds the guilty (batchqueue.py, rule 3).
Boundary: asyncio; the socket file is private to the user who runs both processes. A sender does not
wait for a full socket: what is under way is bounded by `depth` batches of each version.
Read next: batchqueue.py (how calls meet), services/runners.py (both ends).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from . import errors
from .batchqueue import Answer, BatchQueue, Queued
from .errors import ModelNotReady, RunnerError
from .frames import Ask, Frame, Splitter, Told, format_frame, parse_arrays, parse_head
from .tensor import Batch, Signature

__all__ = ["Call", "Link", "LinkServer", "Remote", "serve"]

log = logging.getLogger("weighbridge")


class Call(NamedTuple):
    """One frame as the far side sees it: the rows of one caller or of many."""

    name: str
    version: str
    batch: Batch
    rows: int
    deadline: float | None
    contexts: tuple[str, ...]


Handler = Callable[[Call], Awaitable[Answer]]


class _Wire(asyncio.Protocol):
    """What both ends of a connection have in common: frames out, frames in."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._splitter = Splitter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._splitter.feed(data):
                self.arrived(frame)
        except ConnectionError as exc:
            log.error("a runner connection is dropped: %s", exc)
            self.transport.abort()

    def arrived(self, frame: Frame) -> None:
        raise NotImplementedError


class _Caller(_Wire):
    """The asking end of one connection, and who waits on it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.waiting: dict[int, asyncio.Future[Answer]] = {}

    def arrived(self, frame: Frame) -> None:
        told = parse_head(Told, frame)
        future = self.waiting.get(told.number)
        if future is None or future.done():
            return
        if told.error:
            future.set_exception(_refusal(told))
        else:
            outputs = parse_arrays(told, frame.body)
            future.set_result(Answer(outputs, told.queue_s, told.infer_s, told.batch_rows))

    def connection_lost(self, _: Exception | None) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ModelNotReady(f"the runner {self._name} went away"))


class _Answerer(_Wire):
    """The answering end of one connection: every frame on it is a task of its own."""

    def __init__(self, handler: Handler, connections: set[_Answerer]) -> None:
        super().__init__()
        self._handler = handler
        self._connections = connections
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self)
        for task in self.tasks:  # nobody is left to hear the answers
            task.cancel()

    def arrived(self, frame: Frame) -> None:
        ask = parse_head(Ask, frame)
        batch = parse_arrays(ask, frame.body)
        deadline = None if ask.budget_s is None else time.monotonic() + ask.budget_s
        call = Call(ask.name, ask.version, batch, ask.rows, deadline, ask.contexts)
        task = asyncio.get_running_loop().create_task(self._answer(ask.number, call))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, number: int, call: Call) -> None:
        try:
            outputs, queue_s, infer_s, batch_rows = await self._handler(call)
            reply = format_frame(Told(number, queue_s, infer_s, batch_rows), outputs)
        except RunnerError as exc:
            told = Told(number, error=type(exc).__name__, message=str(exc))
            reply = format_frame(told, {})
        except Exception:  # the edge of this process: the caller gets a refusal, the log the rest
            log.exception("a batch of %s:%s failed", call.name, call.version)
            told = Told(number, error="ModelFailed", message="the runner could not answer")
            reply = format_frame(told, {})
        if not self.transport.is_closing():
            self.transport.write(reply)


class LinkServer:
    """The answering side; `serve` makes one and opens its socket."""

    def __init__(self, handler: Handler) -> None:
        """Answer every frame by `handler`."""
        self._handler = handler
        self._connections: set[_Answerer] = set()
        self._listening: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        """Open the socket; a stale file of an earlier process is replaced."""
        path.unlink(missing_ok=True)  # noqa: ASYNC240  once, at start
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_unix_server(
            lambda: _Answerer(self._handler, self._connections), str(path)
        )
        path.chmod(0o600)  # noqa: ASYNC240

    @property
    def connected(self) -> bool:
        """Whether any caller holds a connection."""
        return bool(self._connections)

    async def close(self) -> None:
        """Stop listening and drop every connection; what they asked is cancelled."""
        if self._listening is not None:
            self._listening.close()
        tasks = [task for connection in self._connections for task in connection.tasks]
        for connection in list(self._connections):
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks)


async def serve(path: Path, handler: Handler) -> LinkServer:
    """Answer frames on a Unix socket at `path` (mode 0600) until the result is closed."""
    server = LinkServer(handler)
    await server.listen(path)
    return server


class Link:
    """One connection to a far side, shared by every `Remote` behind it."""

    def __init__(self, path: Path) -> None:
        """Connect lazily to the socket at `path`."""
        self._path = path
        self._numbers = itertools.count()
        self._caller: _Caller | None = None
        self._connecting = asyncio.Lock()

    async def call(
        self,
        name: str,
        version: str,
        batch: Batch,
        rows: int,
        *,
        deadline: float | None = None,
        contexts: tuple[str, ...] = (),
    ) -> Answer:
        """Answer one batch as the far side's model does, with the same refusals.

        Args:
            name: the model.
            version: its exact version.
            batch: one array per input.
            rows: how many rows it has.
            deadline: the latest of its callers', in `time.monotonic()`; it travels as what is left.
            contexts: trace contexts of those of its callers whose traces are sampled.

        Raises:
            ModelNotReady: the far side is away, or went away during the call.
        """
        caller = self._caller
        if caller is None or caller.transport.is_closing():
            caller = await self._connect()
            if caller.transport.is_closing():  # it went as it came; nobody would tell us again
                raise ModelNotReady(f"the runner {self._path.name} went away")
        number = next(self._numbers)
        budget = None if deadline is None else max(0.0, deadline - time.monotonic())
        frame = format_frame(Ask(number, name, version, rows, budget, contexts), batch)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        caller.waiting[number] = future
        try:
            caller.transport.write(frame)
            return await future
        finally:
            del caller.waiting[number]

    async def _connect(self) -> _Caller:
        async with self._connecting:
            if self._caller is None or self._caller.transport.is_closing():
                loop, name = asyncio.get_running_loop(), self._path.name
                try:
                    _, self._caller = await loop.create_unix_connection(
                        lambda: _Caller(name), str(self._path)
                    )
                except OSError as exc:
                    raise ModelNotReady(f"the runner at {name} is away") from exc
            return self._caller

    async def close(self) -> None:
        """Drop the connection; calls in flight fail."""
        if self._caller is not None:
            self._caller.transport.abort()
            await asyncio.sleep(0)  # it is told so in the next turn


class Remote(BatchQueue):
    """One version behind a link, with a queue of its own; fills `fleet.Served`."""

    def __init__(
        self,
        link: Link,
        name: str,
        version: str,
        signature: Signature,
        *,
        context: Callable[[], str] = str,
        max_rows: int = 64,
        max_queued_rows: int = 2048,
        depth: int = 2,
    ) -> None:
        """`context` gives the running caller's traceparent if its trace is sampled, else ''."""
        super().__init__(
            name, signature, max_rows=max_rows, max_queued_rows=max_queued_rows, depth=depth
        )
        self._link = link
        self._version = version
        self._traceparent = context

    def _context(self) -> str:
        return self._traceparent()

    async def _compute(self, batch: Batch, rows: int, calls: Sequence[Queued]) -> Answer:
        contexts = tuple([call.context for call in calls if call.context])
        deadlines = [call.deadline for call in calls if call.deadline is not None]
        latest = max(deadlines) if len(deadlines) == len(calls) else None
        return await self._link.call(
            self._name, self._version, batch, rows, deadline=latest, contexts=contexts
        )


def _refusal(told: Told) -> RunnerError:
    kind = getattr(errors, told.error, RunnerError)
    known = isinstance(kind, type) and issubclass(kind, RunnerError)
    return kind(told.message) if known else RunnerError(told.message)
