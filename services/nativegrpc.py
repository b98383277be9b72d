"""Unary calls over a native HTTP/2 front, and everything else handed to grpc.aio behind it.

The front (pygrpc-native's low-level interface) does HTTP/2 and gRPC framing in threads of its own
and hands over whole calls, several at once; each becomes one task here. Streams, health checks and
reflection go through a Unix socket to a `grpc.aio` server.
Rule 1: a call is answered once: with a reply, with the status of a refusal, or, when the task is
ended from outside, with CANCELLED; nothing is sent to a caller who has left.
Rule 2: no exception's text leaves; who raises anything but a refusal finds it in our log.
Rule 3: the front's threads do not interrupt the loop at every reply they are handed: where they
share a core with it, what they would send one by one goes out, and comes in, many calls at once.
Source: pygrpc-native 0.5, README "Low-level API"; sched(7), SCHED_BATCH.
Boundary: `Unary` answers; grpcserver.py puts the two servers together.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from .background import in_background

__all__ = ["NativeFront", "Unary"]

log = logging.getLogger("weighbridge")
Metadata = Sequence[tuple[str, str | bytes]]
Unary = Callable[[str, bytes, Any], Awaitable[bytes]]
"""Answers `(method, message, context)`, and refuses by `context.abort`."""

_EVENTS = 256
_SENDING_S = 0.3
_IO_THREADS = 2


class _Refused(Exception):
    """The call ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata) -> None:
        super().__init__(code)
        self.code, self.details, self.trailers = code, details, trailers


class _Context:
    """What a unary method of ours asks of `grpc.aio.ServicerContext`."""

    __slots__ = ("_metadata", "_until", "trailers")

    def __init__(self, metadata: Metadata, left: float | None) -> None:
        self._metadata = metadata
        self._until = None if left is None else time.monotonic() + left
        self.trailers: Metadata | None = None

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def set_trailing_metadata(self, trailers: Metadata) -> None:
        self.trailers = trailers

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        raise _Refused(code, details, trailing_metadata)


class NativeFront:
    """One bound port; `port` is its number."""

    def __init__(self, where: str, service: str, names: Sequence[str], call: Unary) -> None:
        """Bind `where`, for the unary methods `names` of `service`.

        Raises:
            OSError: the address cannot be bound.
        """
        self._names, self._call = names, call
        self._folder = Path(tempfile.mkdtemp(prefix="weighbridge-grpc-"))
        self.behind = f"unix:{self._folder}/behind.sock"
        try:
            with in_background():
                self._front = NativeGrpcFront(
                    where,
                    [(f"/{service}/{name}", False) for name in names],
                    io_threads=_IO_THREADS,
                    call_details=True,
                    delay_stream_headers=True,
                    keepalive_permit_without_calls=False,
                    reuse_port=True,
                )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.port: int = self._front.bound_port
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._left: set[int] = set()
        self._stopping = False

    def start(self, max_bytes: int) -> None:
        """Take calls of at most `max_bytes`, once a server listens at `behind`."""
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._front.set_fallback(self.behind.removeprefix("unix:"))
        with in_background():
            self._front.start()
            threading.Thread(target=self._receive, name="grpc-calls", daemon=True).start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones finish for `grace_s`, then end them and close."""
        self._stopping = True
        running = list(self._tasks.values())
        if running:
            await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # The front's threads send what was handed to them, give way to everybody else while they
        # do, and tell nobody when they have; closing would drop the rest.
        await asyncio.sleep(_SENDING_S)
        await asyncio.to_thread(self._front.close)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        """The thread that waits for the front; the calls themselves belong to the loop."""
        while (events := self._front.recv_batch_details(_EVENTS)) is not None:
            try:
                self._loop.call_soon_threadsafe(self._take, events)
            except RuntimeError:  # the loop was closed without `stop`
                self._front.close()
                return

    def _take(self, events: list[tuple[Any, ...]]) -> None:
        create, tasks = self._loop.create_task, self._tasks
        for kind, call_id, method, message, _, details in events:
            if kind == EVENT_CANCEL:
                if (task := tasks.get(call_id)) is not None:
                    self._left.add(call_id)
                    task.cancel()
            elif self._stopping:
                self._fail(call_id, grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            elif len(message) > self._max_bytes:
                self._fail(
                    call_id,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"the message has {len(message)} bytes; at most {self._max_bytes} are taken",
                )
            else:
                tasks[call_id] = create(self._answer(call_id, method, message, details))

    async def _answer(self, call_id: int, method: int, message: bytes, details: Any) -> None:
        metadata, _, left = details
        context = _Context(metadata, left)
        try:
            data = await self._call(self._names[method], message, context)
            self._front.respond(call_id, data, trailing_metadata=context.trailers)
        except _Refused as exc:
            self._fail(call_id, exc.code, exc.details, exc.trailers)
        except asyncio.CancelledError:
            if call_id not in self._left:
                self._fail(call_id, grpc.StatusCode.CANCELLED, "the server ended the call")
        except Exception:  # the edge: the caller gets a code, we the log
            log.exception("could not answer a gRPC call")
            self._fail(call_id, grpc.StatusCode.INTERNAL, "the server could not answer")
        finally:
            del self._tasks[call_id]
            self._left.discard(call_id)

    def _fail(
        self, call_id: int, code: grpc.StatusCode, details: str, trailers: Metadata = ()
    ) -> None:
        self._front.fail(call_id, code.value[0], details, trailing_metadata=list(trailers))
