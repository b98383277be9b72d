"""The gRPC server around the servicer: `grpc.aio`, with health checks and reflection.

Rule 1: every worker binds the same port (SO_REUSEPORT); stopping refuses new calls, lets running
ones finish for the grace period, then ends them.
Rule 2: a channel is asked to reconnect after half an hour, so that it finds new servers.
Source: gRPC health checking protocol v1; server reflection v1alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from .oip import METHODS, POOL, SERVICE
from .rpc import Servicer

__all__ = ["GrpcServer", "PortInUse", "status_of"]

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_STREAMS = {"ModelStreamInfer"}
_CONNECTION_AGE_MS = 30 * 60_000
_CONNECTION_GRACE_MS = 5 * 60_000


class PortInUse(OSError):
    """The port is taken; says which, and what to set."""


def status_of(number: int) -> grpc.StatusCode:
    """A gRPC status code by its number."""
    return _STATUS[number]


class GrpcServer:
    """One started server; `port` is the one that was bound."""

    def __init__(
        self,
        servicer: Servicer,
        *,
        address: str,
        port: int,
        max_bytes: int,
        credentials: Any = None,
        interceptors: Sequence[Any] = (),
    ) -> None:
        """Bind `address:port`; 0 picks a free port.

        Args:
            servicer: answers.
            address: an IP address.
            port: of `address`.
            max_bytes: the largest message received.
            credentials: `grpc.ServerCredentials`; None is plain text.
            interceptors: stand before every method, health checks included.

        Raises:
            PortInUse: another program listens there.
        """
        options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
            ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),  # gRPC adds a jitter of 10 %
            ("grpc.max_connection_age_grace_ms", _CONNECTION_GRACE_MS),
        ]
        self._server = grpc.aio.server(interceptors=interceptors, options=options)
        self._server.add_generic_rpc_handlers((_handlers(servicer),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=POOL)
        try:
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            if credentials is None:
                self.port = self._server.add_insecure_port(where)
            else:
                self.port = self._server.add_secure_port(where, credentials)
        except RuntimeError as exc:
            raise PortInUse(_taken(address, port)) from exc
        if port and self.port != port:
            raise PortInUse(_taken(address, port))

    async def start(self) -> None:
        """Begin to answer; the health service says NOT_SERVING until `serving` says otherwise."""
        await self.serving(ready=False)
        await self._server.start()

    async def serving(self, *, ready: bool) -> None:
        """Tell the health service's watchers."""
        state = health_pb2.HealthCheckResponse
        status = state.SERVING if ready else state.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls and let running ones finish."""
        await self._server.stop(grace_s)


def _taken(address: str, port: int) -> str:
    return (
        f"could not listen on {address}:{port} for gRPC: another program does; stop it, or set "
        "WEIGHBRIDGE_GRPC_PORT to a free port"
    )


def _handlers(servicer: Servicer) -> Any:
    methods = {}
    for name, (_, response) in METHODS.items():
        # No request_deserializer: the servicer parses, because a failure there would be answered
        # with the exception's text.
        write = response.SerializeToString
        if name in _STREAMS:
            handler = grpc.stream_stream_rpc_method_handler(
                getattr(servicer, name), response_serializer=write
            )
        else:
            handler = grpc.unary_unary_rpc_method_handler(
                _unary(servicer, name), response_serializer=write
            )
        methods[name] = handler
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _unary(servicer: Servicer, name: str) -> Any:
    async def call(data: bytes, context: Any) -> Any:
        return await servicer.call(name, data, context)

    return call
