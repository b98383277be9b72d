"""The gRPC server around the servicer, with health checks and reflection, on one of two engines.

`native` is pygrpc-native: HTTP/2 in Rust, calls handed over in batches; several times as fast. It
takes the unary calls of our own service and passes the others on to grpc.aio.
`grpcio` is grpc.aio, which can do what the other cannot: TLS, a maximum connection age, and
refusing a call before its message is read, which authentication asks for.
Rule 1: every worker binds the same port (SO_REUSEPORT); stopping refuses new calls, lets running
ones finish for the grace period, then ends them.
Rule 2: both engines serve the same servicer; where `native` cannot do what is configured, `grpcio`
takes over and says so.
Rule 3: with a connection age, a channel is asked to reconnect after it, so that it finds new
servers.
Source: gRPC health checking protocol v1; server reflection v1alpha; pygrpc-native 0.5, README.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from .background import in_background
from .gathering import Gathering
from .nativegrpc import NativeFront
from .oip import METHODS, POOL, SERVICE
from .rpc import Servicer

__all__ = ["Engine", "GrpcServer", "PortInUse", "status_of"]

log = logging.getLogger("weighbridge")
Engine = Literal["native", "grpcio"]
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_STREAMS = {"ModelStreamInfer"}
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
        engine: Engine = "native",
        connection_age_s: float = 0,
        credentials: grpc.ServerCredentials | None = None,
        interceptors: Sequence[Any] = (),
    ) -> None:
        """Bind `address:port`; 0 picks a free port.

        Args:
            servicer: answers the calls.
            address: an IP address.
            port: of `address`; 0 picks a free one.
            max_bytes: the largest request.
            engine: the one to prefer; `self.engine` says which one it became.
            connection_age_s: ask channels to reconnect after this; 0 never does.
            credentials: for TLS; None serves in clear.
            interceptors: stand before every method, health checks included.

        Raises:
            PortInUse: another program listens there.
        """
        self.engine = _chosen(engine, connection_age_s, credentials, interceptors)
        options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
        ]
        if connection_age_s:  # gRPC adds a jitter of 10 %
            options.append(("grpc.max_connection_age_ms", round(connection_age_s * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", _CONNECTION_GRACE_MS))
        self._max_bytes = max_bytes
        with in_background():
            self._server = grpc.aio.server(interceptors=interceptors, options=options)
        handlers = _handlers(servicer)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=POOL)
        self._front: NativeFront | None = None
        try:
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            if self.engine == "native":
                unary = [name for name in METHODS if name not in _STREAMS]
                self._front = NativeFront(where, SERVICE, unary, servicer.call)
                self.port = self._front.port
                self._server.add_insecure_port(self._front.behind)
            elif credentials is None:
                self.port = self._server.add_insecure_port(where)
            else:
                self.port = self._server.add_secure_port(where, credentials)
        except (RuntimeError, OSError) as exc:
            raise PortInUse(_taken(address, port)) from exc
        if port and self.port != port:
            raise PortInUse(_taken(address, port))

    async def start(self) -> None:
        """Begin to answer; the health service says NOT_SERVING until `serving` says otherwise."""
        await self.serving(ready=False)
        with in_background():
            await self._server.start()
        if self._front is not None:
            self._front.start(self._max_bytes)

    async def serving(self, *, ready: bool) -> None:
        """Tell the health service's watchers."""
        state = health_pb2.HealthCheckResponse
        status = state.SERVING if ready else state.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls and let running ones finish."""
        stopping = [self._server.stop(grace_s)]
        if self._front is not None:
            stopping.append(self._front.stop(grace_s))
        await asyncio.gather(*stopping)


def _chosen(
    engine: Engine, connection_age_s: float, credentials: Any, interceptors: Sequence[Any]
) -> Engine:
    """The engine that can do what is configured."""
    asked = {
        "TLS": credentials,
        "a connection age": connection_age_s,
        "refusals before the message is read": interceptors,
    }
    needs = [name for name, said in asked.items() if said]
    if engine == "native" and needs:
        log.warning("gRPC runs on grpcio: the native engine cannot do %s", " and ".join(needs))
        return "grpcio"
    return engine


def _taken(address: str, port: int) -> str:
    return (
        f"could not listen on {address}:{port} for gRPC: another program does; stop it, or set "
        "WEIGHBRIDGE_GRPC_PORT to a free port"
    )


def _handlers(servicer: Servicer) -> dict[str, Any]:
    # No serialisers: the servicer parses, because a failure there would be answered with the
    # exception's text, and gives bytes.
    methods = {}
    for name in METHODS:
        if name in _STREAMS:
            handler = grpc.stream_stream_rpc_method_handler(getattr(servicer, name))
        elif name == "ModelInfer":
            infer = _gathered(servicer, Gathering(), name)
            handler = grpc.unary_unary_rpc_method_handler(infer)
        else:
            handler = grpc.unary_unary_rpc_method_handler(_unary(servicer, name))
        methods[name] = handler
    return methods


def _unary(servicer: Servicer, name: str) -> Any:
    async def call(data: bytes, context: Any) -> bytes:
        return await servicer.call(name, data, context)

    return call


def _gathered(servicer: Servicer, gathering: Gathering, name: str) -> Any:
    async def call(data: bytes, context: Any) -> bytes:
        context.add_done_callback(gathering.leave)
        await gathering.arrive(context)
        return await servicer.call(name, data, context)

    return call
