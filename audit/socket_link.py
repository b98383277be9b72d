"""Appending from other processes, over a Unix socket: a server beside the notary, and a client.

Rules:
1. The socket is private to the user (mode 0600). Whoever may connect may append, and erase and hold
   where the server is given who does that; nothing else.
2. A client that lost its connection sends again, on the next one, whatever was not answered; the
   notary knows the event ids, so a record whose receipt got lost is not stored twice.
3. A refusal travels as the error it is; silence beyond `timeout_s` is LogUnavailable.
Read next: wire.py (the bytes), notary.py (who stores).
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .blobs import Payload, as_payloads
from .canonical import JSON, is_canonical
from .erasing import Erasing
from .errors import AuditError, EntryTooLarge, EventInvalid, LogUnavailable
from .events import Event
from .notary import Durability, Notary, Receipt
from .pruning import PRUNES, Pruning
from .receipts import Told, tell
from .record import MAX_ENTRY_BYTES, decode, encode, subject_of
from .wire import (
    APPEND,
    DONE,
    GREETING,
    HEAD,
    MANAGE,
    MAX_FRAME_BYTES,
    REFUSED,
    STORED,
    AppendRequest,
    format_append,
    format_frame,
    format_greeting,
    format_json,
    format_refusal,
    format_stored,
    parse_append,
    parse_json,
    parse_refusal,
    parse_stored,
)

_NO_PAYLOADS: Mapping[str, bytes] = {}
_RECONNECT_DELAY_S = 0.05


async def serve(
    notary: Notary, path: Path, erasing: Erasing | None = None, pruning: Pruning | None = None
) -> "NotaryServer":
    """Offer `notary` on a Unix socket at `path`, replacing what a dead server left there.

    Raises:
        OSError: the socket cannot be made (a path beyond 107 bytes, no such folder).
    """
    listener = _listen(path)
    server = NotaryServer(notary, path, erasing, pruning)
    server.listener = await asyncio.start_unix_server(server.connected, sock=listener)
    return server


class NotaryServer:
    """A running server; made by `serve`."""

    def __init__(
        self,
        notary: Notary,
        path: Path,
        erasing: Erasing | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        self._erasing = erasing
        self._pruning = pruning
        self.path = path
        self.listener: asyncio.Server | None = None
        self._notary = notary
        self._connections: set[asyncio.StreamWriter] = set()
        self._requests: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop listening, answer what is under way, hang up. The notary stays open."""
        if self.listener is not None:
            self.listener.close()
        self.path.unlink(missing_ok=True)
        if self._requests:
            await asyncio.wait(self._requests)
        for writer in list(self._connections):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        self._connections.add(writer)
        writer.write(format_greeting(self._notary.origin))
        try:
            while True:
                number, kind, body = await _read_frame(reader)
                if kind not in (APPEND, MANAGE):
                    return  # not our protocol: hang up
                task = asyncio.create_task(self._answer(writer, number, kind, body))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
        except (asyncio.IncompleteReadError, OSError, ValueError):
            return  # the client is gone, or speaks no sense; what it asked for is still stored
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, number: int, kind: int, body: bytes
    ) -> None:
        try:
            if kind == MANAGE:
                reply = format_frame(number, DONE, format_json(await self._manage(body)))
            else:
                receipt = await self._append(body)
                stored = format_stored(receipt.index, receipt.leaf_hash)
                reply = format_frame(number, STORED, stored)
        except AuditError as error:
            reply = format_frame(number, REFUSED, format_refusal(error))
        if not writer.is_closing():
            writer.write(reply)

    async def _manage(self, body: bytes) -> Mapping[str, JSON]:
        if self._erasing is None:
            raise EventInvalid("could not erase or hold: this notary's process does not offer it")
        try:
            asked = parse_json(body)
            if self._pruning is not None and asked.get("do") in PRUNES:
                return await self._pruning.answer(asked)
            do, unit_ref = asked["do"], str(asked["unit_ref"])
            actor, reason = str(asked["actor"]), str(asked["reason"])
        except (ValueError, KeyError) as exc:
            raise EventInvalid(f"could not read a request: {exc}") from exc
        if do == "erase":
            return (await self._erasing.erase(unit_ref, actor=actor, reason=reason))._asdict()
        if do not in ("hold", "release"):
            raise EventInvalid("could not go on: ask to erase, hold or release")
        leaf = await self._erasing.hold(
            unit_ref, actor=actor, reason=reason, release=do == "release"
        )
        return {"leaf": leaf}

    async def _append(self, body: bytes) -> Receipt:
        try:
            request = parse_append(body)
        except ValueError as exc:
            raise EventInvalid(str(exc)) from exc
        event = _checked_event(request.data)
        decision_id = subject_of(event)
        subject = request.subject or decision_id
        payloads = [
            Payload(decision_id, name, subject, data) for name, data in request.payloads.items()
        ]
        return await self._notary.append_encoded(
            event.id,
            request.data,
            payloads=tuple(payloads),
            durability=_durability(request.durability),
        )


class NotaryClient:
    """Appends to a notary in another process; the same `append` as the notary's.

    Args:
        path: the notary's socket.
        timeout_s: how long an append may take, reconnecting included, before LogUnavailable.
    """

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Any]]] = {}
        self._number = 0
        self._runner: asyncio.Task[None] | None = None
        self._origin: str | None = None

    @property
    def origin(self) -> str | None:
        """The log's name; None before the first connection."""
        return self._origin

    async def append(
        self,
        event: Event,
        *,
        payloads: Mapping[str, bytes] = _NO_PAYLOADS,
        subject: str | None = None,
        durability: Durability | None = None,
    ) -> Receipt:
        """Store an event; returns when it is as durable as asked. See Notary.append.

        Raises:
            EventInvalid, EntryTooLarge, EventConflict: the event cannot be stored.
            LogUnavailable: it was not acknowledged in time; retry with the same event id.
        """
        decision_id = subject_of(event)
        kept = as_payloads(decision_id, payloads, subject or decision_id)
        return await self.append_encoded(
            event.id, encode(event), payloads=kept, durability=durability
        )

    async def append_encoded(
        self,
        event_id: str,
        data: bytes,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,
    ) -> Receipt:
        """As `append`, for bytes that `encode` made; see Notary.append_encoded."""
        subject = payloads[0].subject if payloads else ""
        kept = {payload.name: payload.data for payload in payloads}
        body = format_append(AppendRequest(durability, data, subject, kept))
        if len(body) >= MAX_FRAME_BYTES:
            raise EntryTooLarge(f"could not store {event_id}: its payloads have {len(body)} bytes")
        index, leaf = await self._call(body)
        return Receipt(self._origin or "", index, leaf)

    async def manage(self, do: str, unit_ref: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Have the notary "erase", "hold" or "release" a subject; what it did. See erasing.py.

        Raises:
            EventInvalid, HoldStands, NotFound: as Erasing.erase and Erasing.hold.
            LogUnavailable: no answer in time; ask again.
        """
        asked = {"do": do, "unit_ref": unit_ref, "actor": actor, "reason": reason}
        found: dict[str, Any] = await self._call(format_json(asked), MANAGE)
        return found

    async def ask(self, body: Mapping[str, JSON]) -> dict[str, Any]:
        """Have the notary do what `body` says; what it did. See Pruning.answer.

        Raises:
            EventInvalid, NotPrunable: it does not.
            LogUnavailable: no answer in time; ask again.
        """
        found: dict[str, Any] = await self._call(format_json(body), MANAGE)
        return found

    def submit(
        self,
        event_id: str,
        data: bytes,
        told: Told,
        *,
        payloads: tuple[Payload, ...] = (),
        once: bool = False,  # noqa: ARG002  the link itself may send it again
    ) -> None:
        """As `append_encoded`, for callers without a task; see Notary.submit."""
        tell(self.append_encoded(event_id, data, payloads=payloads), told)

    async def close(self) -> None:
        """Hang up; appends still waiting fail with LogUnavailable."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(LogUnavailable("could not store a record: client closed"))

    async def _call(self, body: bytes, kind: int = APPEND) -> Any:
        self._number = self._number % 0xFFFFFFFF + 1
        number, frame = self._number, format_frame(self._number, kind, body)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (frame, future)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        if self._writer is not None:
            self._writer.write(frame)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError as exc:
            raise LogUnavailable(
                f"could not store a record: no answer from the notary at {self._path} "
                f"within {self._timeout_s:g} s"
            ) from exc
        finally:
            del self._waiting[number]

    async def _run(self) -> None:
        """Keep connected as long as somebody may want to append."""
        while True:
            with suppress(asyncio.IncompleteReadError, OSError, ValueError):
                await self._converse()
            # The connection ended or never came to be. What waits is sent again on the next.
            await asyncio.sleep(_RECONNECT_DELAY_S)

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            if await reader.readexactly(len(GREETING)) != GREETING:
                raise ValueError("not a notary")
            length = int.from_bytes(await reader.readexactly(2), "big")
            self._origin = (await reader.readexactly(length)).decode()
            for frame, _ in list(self._waiting.values()):
                writer.write(frame)
            self._writer = writer
            while True:
                self._settle(*await _read_frame(reader))
        finally:
            self._writer = None
            writer.close()

    def _settle(self, number: int, kind: int, body: bytes) -> None:
        _, future = self._waiting.get(number, (b"", None))
        if future is None or future.done():
            return  # its caller gave up
        if kind == STORED:
            future.set_result(parse_stored(body))
        elif kind == DONE:
            future.set_result(parse_json(body))
        else:
            future.set_exception(parse_refusal(body))


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    length, number, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
    if not 5 <= length <= MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return number, kind, await reader.readexactly(length - 5)


def _checked_event(data: bytes) -> Event:
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(f"could not store an event of {len(data)} bytes")
    try:
        event = decode(data)
    except AuditError as exc:
        raise EventInvalid(str(exc)) from exc
    if not is_canonical(data):
        raise EventInvalid(f"could not store {event.id}: its bytes are not canonical")
    return event


def _durability(name: str | None) -> Durability | None:
    for known in ("strict", "bounded", "async"):
        if name == known:
            return known
    return None


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener
