"""Settings to objects: the one place where the rooms are put together.

Rule: nothing is built twice and nothing hides in a module; what is opened here is closed here, in
the reverse order. If opening fails half-way, what was opened is closed before the error leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from audit.canonical import JSON
from audit.record import AssignmentConfig, Epoch, ModelRegistered, new_id, now_us
from audit.sample import Rules, Sampler
from experiments.definition import Definition
from experiments.errors import DefinitionError
from runners.fleet import Fleet, Slot

from .access.checks import gated, open_guard, tls_of
from .access.guard import Guard
from .access.limits import Concurrency, parse_concurrency
from .access.rpcgate import RpcGate
from .access.tls import grpc_credentials
from .admin import Admin
from .awake import Awake
from .dataplane import DataPlane
from .erasures import Erasures
from .explaining import Explaining, RemoteExplain
from .grpcserver import GrpcServer, status_of
from .http import HttpDoor
from .ledger import LocalLedger
from .metrics import Metrics
from .models import open_fleet
from .overrides import Overrides
from .payloadpolicy import parse_policy
from .promotions import Promotions
from .recorder import Recorder
from .remote_ledger import RemoteLedger
from .router import Router
from .rpc import Servicer
from .settings import Settings
from .settling import settle_memory
from .tally import Tally
from .telemetry import Telemetry

__all__ = ["House"]

log = logging.getLogger("weighbridge")
AttachRunners = Callable[[Fleet], Awaitable[None]]


class House:
    """Everything one gateway process is made of."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self.settings = settings
        self.ready = False
        self.guard: Guard | None = None
        self._stack = contextlib.AsyncExitStack()

    async def open(
        self,
        *,
        attach: AttachRunners | None = None,
        explain: RemoteExplain | None = None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the log, the models, the experiments and the doors.

        Models of this process are loaded before this returns. Runner services start beside us, so
        their models are attached by a task, and `/v2/health/ready` says 503 until they are warm.

        Args:
            attach: fills the fleet from runner services; None loads the models in this process.
            explain: the explainer service's call, or None when it is off.
            announce: called once, when traffic is taken.
        """
        try:
            await self._open_log()
            self._open_fleet()
            self.router = Router(
                self.settings.definitions, held=self._held, record=self._configured
            )
            await self._open_doors(explain)
            if attach is None:
                await self.fleet.load_all(self.settings.model_names())
                await self._take_traffic(announce)
            else:
                attaching = asyncio.create_task(self._attach(attach, announce))
                self._stack.callback(attaching.cancel)
        except BaseException:
            await self._stack.aclose()
            raise

    def _open_fleet(self) -> None:
        self.telemetry = Telemetry("weighbridge-gateway")
        self._stack.callback(self.telemetry.close)
        self.fleet = open_fleet(self.settings)
        self.fleet.on_ready = self._registered
        self._stack.push_async_callback(self.fleet.close)

    async def _attach(self, attach: AttachRunners, announce: Callable[[], None]) -> None:
        try:
            await attach(self.fleet)
            await self._take_traffic(announce)
        except Exception:  # the edge of a task: nobody awaits it, so the operator is told here
            log.exception("the runner services could not be attached; this gateway is not ready")

    async def _take_traffic(self, announce: Callable[[], None]) -> None:
        self._report_models()
        try:
            await self.router.reload("start")
        except DefinitionError as exc:
            log.error("no experiment is in force until this is mended:\n%s", exc)
        states = [status.state for status in self.fleet.index()]
        if states and "READY" not in states:
            log.error("not ready: no model could be loaded")
            return
        settle_memory()
        await self.grpc.serving(ready=True)
        self.ready = True
        announce()

    async def _open_log(self) -> None:
        settings = self.settings
        ledger: LocalLedger | RemoteLedger
        ledger = self.ledger = RemoteLedger(settings) if settings.notary else LocalLedger(settings)
        await ledger.open()
        self._stack.push_async_callback(ledger.close)
        sampler = Sampler(
            ledger.sampling_key,
            Rules(
                base=settings.sample_base,
                near_threshold=settings.sample_near,
                low_confidence=settings.sample_near,
            ),
        )
        self.recorder = Recorder(
            ledger.appender,
            ledger.keyring,
            ledger.seals,
            sampler,
            durability=settings.durabilities(),
            policy=parse_policy(settings.payloads, settings.payload_bytes),
        )
        ledger.own(self.recorder.made)
        self.tally = Tally(ledger.appender, self.recorder)
        self._stack.push_async_callback(self.tally.close)
        self._stack.push_async_callback(self.recorder.close)
        await ledger.appender.append(
            Epoch(
                id=new_id(),
                time_us=now_us(),
                instance=self.recorder.instance,
                epoch=1,
                sampling_commitment=sampler.commitment,
            ),
            durability="strict",
        )

    async def _open_doors(self, explain: RemoteExplain | None) -> None:
        settings = self.settings
        metrics = self.metrics = Metrics()
        self._stack.callback(metrics.flush)
        metrics.recorded = lambda: (self.recorder.instance, self.recorder.recorded)
        self.tally.start(answered=lambda: metrics.answered, traced=lambda: self.telemetry.traced)
        self.guard = guard = await open_guard(settings, metrics.refused)
        self._stack.push_async_callback(guard.close)
        gate = RpcGate(guard, status_of) if gated(settings) else None
        self.plane = DataPlane(
            fleet=self.fleet,
            router=self.router,
            recorder=self.recorder,
            telemetry=self.telemetry,
            metrics=metrics,
            timeout_s=settings.timeout_ms / 1000,
            # With authentication on, the gate asks whoever forces an arm for the role.
            allow_force=settings.allow_force or not guard.open,
            concurrency=Concurrency(parse_concurrency(settings.concurrency)),
            awake=Awake(settings.awake_us / 1e6),
        )
        self._stack.callback(self.plane.books.settle)
        self.ledger.expect(lambda: self.plane.running)
        self.admin = Admin(
            self.fleet,
            self.router,
            self.ledger.outcomes,
            ready=lambda: self.ready,
            statistics=self.plane.books.statistics,
            witnesses=self.log_state,
        )
        self.admin.erasures = Erasures(self.ledger.subjects, self.ledger.keyring)
        self.admin.overrides = Overrides(self.ledger.reviews)
        self.admin.promotions = Promotions(
            self.fleet, leading=self.ledger.leading_now, record=self.ledger.append
        )
        self.router.moving = self.admin.promotions.moving
        self.http = HttpDoor(
            self.plane,
            self.admin,
            Explaining(self.plane, explain),
            max_body_bytes=settings.max_body_bytes,
        )
        self.grpc = GrpcServer(
            Servicer(
                self.plane,
                self.admin,
                status_of,
                again=gate.again if gate else None,
                always_raw=settings.grpc_always_raw,
            ),
            address=settings.host,
            port=settings.grpc_port,
            max_bytes=settings.max_body_bytes,
            engine=settings.grpc_engine,
            connection_age_s=settings.grpc_connection_age_s,
            credentials=grpc_credentials(tls_of(settings)),
            interceptors=[gate] if gate else [],
        )
        self._stack.push_async_callback(self._drain)
        await self.grpc.start()

    def log_state(self) -> dict[str, Any]:
        """What readiness says of the log: its witnesses, and whether it takes no records.

        `ready` is not turned by it: a refusal ends with the next record that is stored, and a
        gateway that nobody asks records nothing. What the disk said is for our log alone.
        """
        found, ledger = self.ledger.summary(), self.ledger
        if isinstance(ledger, LocalLedger) and ledger.notary.failure is not None:
            found["log"] = "unavailable"
        return found

    async def give_notice(self) -> None:
        """Say that this gateway is leaving, and go on answering for `notice_s`."""
        if not self.ready:
            return
        self.ready, self.http.leaving = False, True
        await self.grpc.serving(ready=False)
        await asyncio.sleep(self.settings.notice_s)

    async def _drain(self) -> None:
        """Stop gRPC after what it runs, refuse new work, wait for the rest."""
        self.ready = False
        await self.grpc.serving(ready=False)
        await self.grpc.stop(self.settings.drain_s)
        self.plane.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                while self.plane.running:  # noqa: ASYNC110  at most a few turns, at shutdown
                    await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Drain, then close everything in the reverse order of opening."""
        await self._stack.aclose()

    def _held(self) -> dict[str, list[str]]:
        return {name: self.fleet.versions(name) for name in self.fleet.names()}

    def _report_models(self) -> None:
        for status in self.fleet.index():
            if status.state != "READY":
                log.error("%s:%s is %s: %s", *status)
        for name in set(parse_concurrency(self.settings.concurrency)) - set(self.fleet.names()):
            log.warning("WEIGHBRIDGE_CONCURRENCY limits '%s', which is not served", name)
        held, home = set(self.fleet.registry.names()), self.fleet.registry.home
        for name in sorted(set(self.settings.model_names() or ()) - held):
            log.error("WEIGHBRIDGE_MODELS names '%s', which the registry in %s lacks", name, home)
        if not held:
            log.error(
                "no model is served: the registry under %s is empty; `weighbridge train` fills it",
                home,
            )

    async def _registered(self, slot: Slot) -> None:
        """Put an artefact on record before it answers; once per digest and device."""
        manifest = slot.manifest
        fact = f"{manifest.digest} {slot.device}"
        if self.ledger.known.get((manifest.name, manifest.version)) == fact:
            return
        await self.ledger.appender.append(
            ModelRegistered(
                id=new_id(),
                time_us=now_us(),
                model=manifest.name,
                version=manifest.version,
                digest=manifest.digest,
                device=slot.device,
                runtime=slot.runtime,
                manifest_evaluation=dict(manifest.evaluation),
            ),
            durability="strict",
        )
        self.ledger.known[manifest.name, manifest.version] = fact

    async def _configured(self, definition: Definition, reason: str) -> None:
        """Record a definition before it takes effect."""
        await self.ledger.appender.append(
            AssignmentConfig(
                id=new_id(),
                time_us=now_us(),
                experiment=definition.name,
                experiment_version=definition.version,
                epoch=definition.epoch,
                model=definition.model,
                definition=cast("dict[str, JSON]", definition.canonical()),
                reason=reason,
            ),
            durability="strict",
        )
