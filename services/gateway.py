"""The BentoML service that users start: `bentoml serve services.gateway:Gateway`.

Rule: `/v1` and `/v2` go straight to our ASGI door, because BentoML's own request path costs
several times a small model (see docs/adr/0002-fast-path.md); everything else (native endpoints,
`/livez`, `/readyz`, `/metrics`) stays BentoML's. All of them end in the same data plane, and all
stand behind the gate of `access/` when one is set up.
Source: bentoml 1.4 `Service.to_asgi`, the one method that is overridden. Where it is not as
expected, or WEIGHBRIDGE_FAST_PATH=false, the same door is mounted inside BentoML's application.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, cast

import bentoml
import numpy as np
from _bentoml_sdk import Service

from runners.fleet import Fleet

from . import httpserver, preflight, wire
from .access.checks import gated, tls_of
from .access.gate import HttpGate
from .access.tls import bentoml_ssl
from .basepath import BasePath
from .explainer import Explainer
from .front import front_page
from .native import NATIVE_PATHS, hide_inputs, predict
from .orphans import end_with_parent
from .outer import Outer
from .placement import hide_cards, see_first_card
from .runners import CnnRunner, DnnRunner, LstmRunner, attach_runners
from .stopping import before_stopping
from .watch import watch
from .wiring import House

__all__ = ["Gateway"]

log = logging.getLogger("weighbridge")
_SETTINGS = preflight.settings_at_start()
_TLS = tls_of(_SETTINGS)
_EXPLAINER = _SETTINGS.explainer and not _SETTINGS.notary  # it runs where the log is
_OUTER: dict[str, Any] = {
    "max_body_bytes": _SETTINGS.max_body_bytes,
    "native": NATIVE_PATHS,
}
Scope = MutableMapping[str, Any]


class FastPath(Service):
    """A BentoML service whose `/v1` and `/v2` bypass BentoML's middleware."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Callable[..., Awaitable[None]]:
        """Put our door in front of BentoML's application."""
        inner = Outer(super().to_asgi(is_main=is_main), **_OUTER)

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and _ours(scope["path"]):
                await house.http(scope, receive, send)
            elif scope["type"] == "http" and scope["path"] == "/":
                await front_page(scope, send)
            else:
                if scope["type"] == "http" and scope["path"] == "/metrics":
                    house.metrics.flush()
                await inner(scope, receive, send)

        gate = HttpGate(app, lambda: house.guard) if gated(_SETTINGS) else None
        wire.install(lambda: house.http, gate)
        return BasePath(gate or app, base=_SETTINGS.base_path)


def _ours(path: str) -> bool:
    """Whether our door answers; a doubled slash at the start is a client's, not another path."""
    return path.lstrip("/").partition("/")[0] in ("v1", "v2")


def _fast() -> bool:
    """Whether BentoML still has the one method that `FastPath` overrides."""
    method = getattr(Service, "to_asgi", None)
    fits = method is not None and list(inspect.signature(method).parameters) == ["self", "is_main"]
    if not fits:
        log.warning("this BentoML has another Service.to_asgi: /v1 and /v2 take the slow path")
    return fits and _SETTINGS.fast_path


async def _door(scope: Scope, receive: Any, send: Any) -> None:
    """The same door as a mounted application, which sees the path it was asked for."""
    await house.http(scope, receive, send)


def _mounted(inner: type) -> type:
    """Mount the door inside BentoML's application where the fast path is not to be had."""
    if not _FAST:
        for path in ("/v1", "/v2"):
            inner = bentoml.asgi_app(_door, path=path, name=f"door{path[1:]}")(inner)
    return inner


def _based_and_gated(service: Any) -> Any:
    """Take the base path off and ask who calls inside BentoML's application, where need be.

    The middleware that is added first is outermost: the gate judges the path without its base.
    """
    if not _FAST:
        service.add_asgi_middleware(BasePath, base=_SETTINGS.base_path)
        if gated(_SETTINGS):
            service.add_asgi_middleware(HttpGate, guard=lambda: house.guard)
    return service


_FAST = _fast()
httpserver.install(read_timeout_s=_SETTINGS.read_timeout_s, max_head_bytes=_SETTINGS.max_head_bytes)
house = House(_SETTINGS)


@_based_and_gated
@bentoml.service(
    name="Gateway",
    service_class=FastPath if _FAST else Service,
    workers=_SETTINGS.workers,
    http={"host": _SETTINGS.host, "port": _SETTINGS.http_port},
    traffic={"timeout": 60},
    metrics={"enabled": True},
    **bentoml_ssl(_TLS),
)
@_mounted
class Gateway:
    """Routes, answers and records every model decision."""

    if _EXPLAINER:
        explainer = bentoml.depends(Explainer)
    if _SETTINGS.runner == "service":
        cnn_runner = bentoml.depends(CnnRunner)
        lstm_runner = bentoml.depends(LstmRunner)
        dnn_runner = bentoml.depends(DnnRunner)

    @bentoml.on_deployment
    def check() -> None:
        """Fail before any worker starts, with one sentence."""
        preflight.check(_SETTINGS)

    @bentoml.on_startup
    async def open(self) -> None:
        """Open the house and watch the definitions."""
        end_with_parent()
        if _SETTINGS.runner == "service":
            hide_cards()
        else:
            see_first_card(_SETTINGS)
        hide_inputs()
        await house.open(
            attach=self._attach if _SETTINGS.runner == "service" else None,
            explain=self._explain if _EXPLAINER else None,
            announce=_announce,
        )
        before_stopping(house.give_notice)
        self._watching = watch(_SETTINGS.definitions, house.router)

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Drain and close."""
        await self._watching.stop()
        await house.close()

    async def _explain(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.explainer.to_async.explain(*args)
        return found

    async def _attach(self, fleet: Fleet) -> None:
        proxies = [self.cnn_runner, self.lstm_runner, self.dnn_runner]
        house.admin.repository.place = await attach_runners(fleet, proxies, _SETTINGS)

    async def __is_ready__(self) -> bool:
        return house.ready

    @bentoml.api(route="/cnn")
    async def cnn(
        self,
        ctx: bentoml.Context,
        image: np.ndarray,  # bare: bentoml reads the class
        model: str = "digits",
        unit: str = "",
    ) -> dict[str, Any]:
        """Classify images of pixels 0-255, shape (rows, 28, 28, 1)."""
        return await predict(house, ctx, model, {"image": image}, unit)

    @bentoml.api(route="/lstm")
    async def lstm(
        self, ctx: bentoml.Context, text: list[str], model: str = "sentiment", unit: str = ""
    ) -> dict[str, Any]:
        """Classify texts."""
        return await predict(house, ctx, model, {"text": text}, unit)

    @bentoml.api(route="/dnn")
    async def dnn(
        self,
        ctx: bentoml.Context,
        rows: list[dict[str, Any]],
        model: str = "income",
        unit: str = "",
    ) -> dict[str, Any]:
        """Score rows of named columns."""
        return await predict(house, ctx, model, {"rows": rows}, unit)


if not _FAST:
    cast("Any", Gateway).add_asgi_middleware(Outer, **_OUTER)


def _announce() -> None:
    """Say what is ready and how to call it."""
    host = f"[{_SETTINGS.host}]" if ":" in _SETTINGS.host else _SETTINGS.host
    http = f"{'https' if _TLS else 'http'}://{host}:{_SETTINGS.http_port}"
    ready = [s for s in house.fleet.index() if s.state == "READY"]
    served = [
        f"{s.name}:{s.version} on {house.fleet.slot(s.name, s.version).device}" for s in ready
    ]
    log.warning("ready: %s", ", ".join(served) or "no model")
    log.warning("HTTP %s  gRPC %s:%d", http, host, house.grpc.port)
    if any(s.name == "income" for s in ready):
        example = os.path.relpath(Path(__file__).resolve().parent / "example.json")
        words = f"/infer -H 'x-weighbridge-unit: alice' -d @{example}"
        log.warning("try: curl -s %s/v2/models/income%s", http, words)
    elif ready:
        log.warning("what it takes: curl -s %s/v2/models/%s", http, ready[0].name)
