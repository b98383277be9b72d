"""The gate in front of every gRPC method: inference, reflection, and whatever is added later.

Source: gRPC status codes; `grpc.aio` server interceptors.
Rule 1: a refused call's message is not read: the refusal is a handler that reads nothing.
Rule 2: a stream lives long, so `again` asks anew for each of its messages: a key that was revoked
or a token that expired ends its use, and each message counts towards the rate.
Boundary: `admit` needs a method name and metadata only, so another engine may call it, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from ..faults import BadRequest, Fault
from .credential import read_said
from .guard import Guard
from .needs import ANYBODY, INFER, rpc_need

__all__ = ["RpcGate"]

Metadata = Iterable[tuple[str, str | bytes]]
_STREAMS = {"/inference.GRPCInferenceService/ModelStreamInfer"}


class RpcGate(grpc.aio.ServerInterceptor):
    """An interceptor that lets calls through."""

    def __init__(self, guard: Guard, status: Callable[[int], Any]) -> None:
        """`status` turns a code's number into what `context.abort` takes."""
        self._guard = guard
        self._status = status

    async def admit(self, method: str, metadata: Metadata) -> Fault | None:
        """None when the call may go on; otherwise what its caller is told."""
        need = rpc_need(method)
        if need == ANYBODY:
            return None
        try:
            await self._guard.admit(read_said(metadata), need, counted=method not in _STREAMS)
        except Exception as exc:  # noqa: BLE001  the edge: whatever it is, the call does not pass
            return self._guard.refuse(exc, "grpc")
        return None

    async def again(self, context: Any) -> None:
        """Ask for one message of a stream.

        Raises:
            BadRequest: as `Guard.admit`.
        """
        try:
            await self._guard.admit(read_said(context.invocation_metadata() or ()), INFER)
        except BadRequest as exc:
            self._guard.refuse(exc, "grpc")
            raise

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler of the call, or one that refuses it."""
        fault = await self.admit(
            handler_call_details.method, handler_call_details.invocation_metadata or ()
        )
        return await continuation(handler_call_details) if fault is None else self._refusing(fault)

    def _refusing(self, fault: Fault) -> Any:
        async def refuse(_: Any, context: Any) -> None:
            await context.abort(self._status(fault.grpc_code), fault.message, fault.trailers)

        return grpc.stream_stream_rpc_method_handler(refuse)
