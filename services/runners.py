"""Runner services: the models of one kind in a process of their own, near a device of their own.

Rule: BentoML starts and supervises the process, which takes a card of its own (placement.py), and
carries the control call `status`; tensors travel over the data socket of runners/link.py, one frame
for a batch of callers, and its file appears only after every model is warm. A control call that is
not yet answered is repeated: the services start side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import bentoml

from runners.batch import Answer
from runners.errors import ModelNotReady, RunnerError
from runners.fleet import Fleet, Status
from runners.link import Call, Link, Remote, serve

from .models import open_fleet, open_registry
from .orphans import end_with_parent
from .placement import KINDS, see_card
from .preflight import settings_at_start
from .repository import Place
from .settings import Settings
from .settling import settle_memory
from .stopping import before_stopping
from .telemetry import Mark, Span, SpanKind, Telemetry, current_traceparent

__all__ = ["CnnRunner", "DnnRunner", "LstmRunner", "attach_runners"]

_SETTINGS = settings_at_start()
_START_S = 60.0
_PLACE: dict[str, Any] = {
    "workers": 1,
    "runner_connection": {"max_requests": 10**9, "max_age": 1e9},
}


class _Runner:
    """What the three services share; a subclass names its kind."""

    kind = ""

    @bentoml.on_startup
    async def open(self) -> None:
        """Load and warm the models of this kind, then open the data socket."""
        end_with_parent()
        see_card(self.kind, _SETTINGS, open_registry(_SETTINGS))
        self.telemetry = Telemetry(f"weighbridge-runner-{self.kind}")
        self.fleet = open_fleet(_SETTINGS)
        wanted = _SETTINGS.model_names()
        for name in self.fleet.registry.names():
            if wanted is None or name in wanted:
                await self._load_kind(name)
        settle_memory()
        _SETTINGS.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.server = await serve(_SETTINGS.run_dir / f"runner-{self.kind}.sock", self._answer)
        before_stopping(self._outlast_callers)

    async def _outlast_callers(self) -> None:
        """Everybody gets SIGTERM at once; gateways need their runners until they have drained."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTINGS.notice_s + 2 * _SETTINGS.drain_s):
                while self.server.connected:  # noqa: ASYNC110  a few turns, at shutdown
                    await asyncio.sleep(0.02)

    async def _load_kind(self, name: str) -> None:
        registry = self.fleet.registry
        for version in registry.versions(name):
            manifest = await asyncio.to_thread(registry.manifest, name, version)
            if manifest.kind == self.kind:
                await self.fleet.load(name, version, strict=False)

    async def _answer(self, call: Call) -> Answer:
        slot = self.fleet.ready(call.name, call.version)
        if slot.served is None:
            raise ModelNotReady(f"model '{call.name}' is not ready")
        began, clock = time.time_ns(), time.monotonic_ns()
        try:
            return await slot.served.infer(call.batch, call.rows, deadline=call.deadline)
        finally:
            if call.contexts:
                lasted = time.monotonic_ns() - clock  # a clock may be set meanwhile
                self._trace(call, began, began + lasted, slot.device)

    def _trace(self, call: Call, began: int, ended: int, device: str) -> None:
        """A span under each sampled caller's; the batch they shared is the first one's child."""
        marks = [Mark("batch", began, ended, {"device": device})]
        for context in call.contexts:
            span = Span(f"run {call.name}", SpanKind.INTERNAL, began, ended, marks=marks)
            self.telemetry.finish(self.telemetry.begin(context), span)
            marks = []

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Close the socket, then drain."""
        await self.server.close()
        await self.fleet.close()
        self.telemetry.close()

    @bentoml.api
    async def status(self) -> list[dict[str, str]]:
        """Every version of this kind with its state, device and runtime."""
        return [self._line(status) for status in self.fleet.index()]

    @bentoml.api
    async def load(self, name: str, version: str) -> dict[str, str]:
        """Load and warm one registered version; its line of `status`, ready or not."""
        await self.fleet.load(name, version, strict=False)
        found = [s for s in self.fleet.index() if (s.name, s.version) == (name, version)]
        return self._line(*found) if found else {"state": "UNAVAILABLE", "reason": "not loaded"}

    def _line(self, status: Status) -> dict[str, str]:
        slot = self.fleet.slot(status.name, status.version)
        return {**status._asdict(), "device": slot.device, "runtime": slot.runtime}


@bentoml.service(name="CnnRunner", **_PLACE)
class CnnRunner(_Runner):
    """The convolutional networks."""

    kind = "cnn"


@bentoml.service(name="LstmRunner", **_PLACE)
class LstmRunner(_Runner):
    """The recurrent networks."""

    kind = "lstm"


@bentoml.service(name="DnnRunner", **_PLACE)
class DnnRunner(_Runner):
    """The dense networks."""

    kind = "dnn"


async def attach_runners(fleet: Fleet, proxies: Sequence[Any], chosen: Settings) -> Place:
    """Fill `fleet` with the versions that the runner services hold, once they are warm.

    Returns:
        What loads a version that was registered later: in the runner service of its kind.

    Raises:
        ModelNotReady: a runner service did not become ready in a minute.
    """
    links = {kind: Link(chosen.run_dir / f"runner-{kind}.sock") for kind in KINDS}
    by_kind = dict(zip(KINDS, proxies, strict=True))

    async def attach(kind: str, line: dict[str, str]) -> None:
        name, version = line["name"], line["version"]
        manifest = await asyncio.to_thread(fleet.registry.manifest, name, version)
        remote = Remote(
            links[kind],
            name,
            version,
            manifest.signature,
            context=_sampled_traceparent,
            max_rows=chosen.max_batch_rows,
            max_queued_rows=chosen.max_queued_rows,
        )
        await fleet.attach(
            name,
            version,
            remote,
            device=line["device"],
            runtime=line["runtime"],
        )

    async def place(name: str, version: str) -> bool:
        kind = (await asyncio.to_thread(fleet.registry.manifest, name, version)).kind
        if kind not in by_kind:
            return False
        try:
            line = await by_kind[kind].to_async.load(name, version)
        except (bentoml.exceptions.BentoMLException, OSError) as exc:
            raise ModelNotReady(f"the {kind} runner is away: {exc}") from exc
        if line["state"] != "READY":
            raise ModelNotReady(f"the {kind} runner has no {name}:{version}: {line['reason']}")
        await attach(kind, line)
        return True

    for kind, proxy in by_kind.items():
        for line in await _status(kind, proxy):
            if line["state"] == "READY":
                await attach(kind, line)
    return place


def _sampled_traceparent() -> str:
    """The running request's trace context if it is sampled; a runner makes no span otherwise."""
    context = current_traceparent.get()
    return context if context.endswith("1") else ""


async def _status(kind: str, proxy: Any) -> list[dict[str, str]]:
    """Ask until the service answers; BentoML starts it beside us."""
    deadline = asyncio.get_running_loop().time() + _START_S
    while True:
        try:
            found: list[dict[str, str]] = await proxy.to_async.call("status")
        except (bentoml.exceptions.BentoMLException, OSError, RunnerError) as exc:
            if asyncio.get_running_loop().time() > deadline:
                raise ModelNotReady(f"the {kind} runner did not become ready: {exc}") from exc
            await asyncio.sleep(0.25)
        else:
            return found
