"""gRPC to the data plane and back: the servicer of `inference.GRPCInferenceService`.

Source: docs/protocol.md; Open Inference Protocol, gRPC.
Rule 1: raw in, raw out; typed in, typed out.
Rule 2: "not ready" is an OK reply with `ready = false`; refusals carry the codes of faults.py and
never an exception's text.
Rule 3: a stream answers its requests one by one, in order; an error is a message in it.
Rule 4: requests come as bytes and are parsed here, so that one that is no message is refused like
any other mistake.
Boundary: a servicer of async methods with `context`; grpcserver.py starts a server around it,
messages.py reads and writes tensors.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from audit.entropy import random_bytes
from runners.errors import RunnerError

from .admin import Admin
from .body import checked_id
from .claims import refuse_repeated, take_claims
from .dataplane import DataPlane, Reply, Request
from .faults import BadRequest, report
from .large import LARGE_BYTES, aside
from .messages import read_inputs, read_parameters, write_response
from .oip import METHODS, Envelope, message

__all__ = ["Servicer"]

_StreamResponse = message("ModelStreamInferResponse")
_MAX_DEADLINE_S = 3600.0
_KINDS = {name: kind for name, (kind, _) in METHODS.items()} | {
    "ModelInfer": Envelope,
    "ModelStreamInfer": Envelope,
}


class Servicer:
    """The methods of the service; every one may raise, `grpcserver` turns that into a status."""

    def __init__(
        self,
        plane: DataPlane,
        admin: Admin,
        status: Callable[[int], Any],
        *,
        always_raw: bool = False,
        again: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        """`status` turns a code's number into what `context.abort` takes.

        `again` may refuse a message of a stream, by its context; None asks nobody.
        """
        self._plane = plane
        self._admin = admin
        self._status = status
        self._always_raw = always_raw
        self._again = again

    async def call(self, name: str, data: bytes, context: Any) -> bytes:
        """Run a unary method; refusals become a status of the call."""
        try:
            reply = await getattr(self, name)(_parsed(name, data), context)
            return bytes(reply.SerializeToString())
        except Exception as exc:  # the edge: the caller gets a code, we the log
            fault = report(exc)
            await context.abort(self._status(fault.grpc_code), fault.message, fault.trailers)
            raise  # `abort` never returns

    async def ServerLive(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerLiveResponse")(live=True)

    async def ServerReady(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerReadyResponse")(ready=self._admin.ready())

    async def ModelReady(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        try:
            slot = self._admin.slot(request.name, request.version or None)
        except RunnerError:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=slot.state == "READY")

    async def ServerMetadata(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerMetadataResponse")(**self._admin.server())

    async def ModelMetadata(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        found = self._admin.metadata(request.name, request.version or None)
        return message("ModelMetadataResponse")(**found)

    async def ModelConfig(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        found = self._admin.config(request.name, request.version or None)
        return ParseDict({"config": found}, message("ModelConfigResponse")())

    async def ModelStatistics(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        found = self._admin.statistics(request.name, request.version or None)
        return ParseDict(found, message("ModelStatisticsResponse")())

    async def RepositoryIndex(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        lines = await self._admin.repository.index(only_ready=request.ready)
        return message("RepositoryIndexResponse")(models=lines)

    async def RepositoryModelLoad(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        asked = read_parameters(request.parameters)
        await self._admin.repository.change(request.model_name, "load", asked)
        return message("RepositoryModelLoadResponse")()

    async def RepositoryModelUnload(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        asked = read_parameters(request.parameters)
        await self._admin.repository.change(request.model_name, "unload", asked)
        return message("RepositoryModelUnloadResponse")()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        reply, raw = await self._infer(request, context)
        context.set_trailing_metadata(reply.headers())
        return write_response(reply, request.id, raw=raw or self._always_raw)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """Answer each request of the stream in its order; a refusal is a message, not the end."""
        async for data in requests:
            request_id = ""
            try:
                request = _parsed("ModelStreamInfer", data)
                request_id = checked_id(request.id)
                if self._again is not None:
                    await self._again(context)
                reply, raw = await self._infer(request, context)
            except Exception as exc:  # noqa: BLE001  the edge, as in `call`
                refused = _StreamResponse(error_message=report(exc).message)
                refused.infer_response.id = request_id
                yield refused.SerializeToString()
            else:
                response = write_response(reply, request_id, raw=raw or self._always_raw)
                yield _StreamResponse(infer_response=response).SerializeToString()

    async def _infer(self, message_in: Any, context: Any) -> tuple[Reply, bool]:
        metadata = _metadata(context.invocation_metadata() or ())
        request = Request(
            model=message_in.model_name,
            version=message_in.model_version or None,
            inputs={},
            origin="grpc",
            trace=self._plane.telemetry.begin(
                metadata.get("traceparent"), metadata.get("tracestate")
            ),
            outputs=tuple(output.name for output in message_in.outputs) or None,
            request_id=checked_id(message_in.id) or random_bytes(16).hex(),
        )
        take_claims(request, metadata.get, read_parameters(message_in.parameters))
        large = message_in.ByteSize() >= LARGE_BYTES
        request.inputs = await aside(read_inputs, message_in) if large else read_inputs(message_in)
        left = context.time_remaining()
        if left is not None and left < _MAX_DEADLINE_S:
            own = time.monotonic() + left
            request.deadline = own if request.deadline is None else min(own, request.deadline)
        reply = await self._plane.infer(request)
        return reply, bool(message_in.raw_input_contents)


def _parsed(name: str, data: bytes) -> Any:
    kind = _KINDS[name]
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise BadRequest(f"the message is not an {kind.DESCRIPTOR.full_name}") from exc


def _metadata(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Metadata by key; binary values (`-bin` keys) are none of ours."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if key in found:
            refuse_repeated(key)
        if isinstance(value, str):
            found[key] = value
    return found
