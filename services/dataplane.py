"""One decision, from parsed request to recorded answer; it knows no protocol.

The order: route (router.py) -> check and infer (runners) -> record (audit) -> reply.
Rule 1: an answer leaves only after its record was acknowledged; a record that cannot be written
means an error, never an unrecorded answer.
Rule 2: nothing of one request is reachable from another: every value lives in its own `Request`.
Rule 3: sequence numbers of records have no silent holes; those of refused appends become a `gap`.
Rule 4: what is measured is measured by the monotonic clock; the wall clock, which an operator may
set back, only says when a request came.
Read next: decision.py (what is recorded), http.py and rpc.py (who calls this).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from opentelemetry.trace import SpanKind

from audit.notary import Receipt
from runners.batch import Batcher
from runners.errors import ModelNotFound, ModelNotReady
from runners.fleet import Fleet, Slot
from runners.tensor import Array, Tensor, TensorSpec

from .access.limits import Concurrency
from .awake import Awake
from .bookkeeping import Answered, Books
from .decision import Taken, prepare
from .faults import BadRequest, Forbidden, fault_of
from .large import LARGE_ROWS, aside
from .metrics import Metrics
from .recorder import Recorder
from .router import Choice, Router, newest_ready
from .telemetry import Mark, Span, Telemetry, TraceIds, current_traceparent

__all__ = ["DataPlane", "Origin", "Reply", "Request"]

Origin = Literal["http", "grpc", "native", "v1"]


@dataclass(slots=True)
class Request:
    """One inference call in protocol-free terms.

    Attributes:
        started_ns: when it came, by the monotonic clock, which all its durations are taken from.
        unix_ns: the same moment by the wall clock.
    """

    model: str
    version: str | None
    inputs: dict[str, Tensor]
    origin: Origin
    trace: TraceIds
    outputs: tuple[str, ...] | None = None
    request_id: str = ""
    unit: str | None = None
    unit_source: Literal["header", "parameter", "request_id"] = "request_id"
    attributes: Mapping[str, str] = field(default_factory=dict)
    forced_arm: str | None = None
    deadline: float | None = None
    on_demand: bool = False
    chosen: str = ""
    started_ns: int = field(default_factory=time.monotonic_ns)
    unix_ns: int = field(default_factory=time.time_ns)

    def unix(self, moment_ns: int) -> int:
        """A moment of the monotonic clock in Unix nanoseconds; never before the request came."""
        return self.unix_ns + moment_ns - self.started_ns


class Reply(NamedTuple):
    """The answer, and what the caller may check it by."""

    model: str
    version: str
    specs: tuple[TensorSpec, ...]
    outputs: dict[str, Array]
    request_id: str
    decision: str
    unit_ref: str
    experiment: str | None
    arm: str | None
    receipt: Receipt
    traceparent: str
    tracestate: str = ""

    def headers(self) -> list[tuple[str, str]]:
        """Our own headers (HTTP) or metadata (gRPC), as docs/protocol.md names them."""
        found = [
            ("x-weighbridge-decision", self.decision),
            ("x-weighbridge-model-version", self.version),
            ("x-weighbridge-receipt", str(self.receipt)),
            ("traceparent", self.traceparent),
        ]
        if self.experiment is not None:
            found.append(("x-weighbridge-experiment", self.experiment))
        if self.arm is not None:
            found.append(("x-weighbridge-arm", self.arm))
        if self.tracestate:
            found.append(("tracestate", self.tracestate))
        return found


class DataPlane:
    """The path of every decision through the rooms."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        router: Router,
        recorder: Recorder,
        telemetry: Telemetry,
        metrics: Metrics,
        timeout_s: float,
        allow_force: bool = False,
        concurrency: Concurrency | None = None,
        awake: Awake | None = None,
    ) -> None:
        """`timeout_s`: of a request that names no deadline; `awake`: never, if None."""
        self.fleet = fleet
        self.router = router
        self.recorder = recorder
        self.telemetry = telemetry
        self.books = Books(metrics, telemetry)
        self._awake = awake or Awake(0)
        self._timeout_s = timeout_s
        self._allow_force = allow_force
        self._concurrency = concurrency or Concurrency()
        self.running = 0
        self.draining = False

    async def infer(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            BadRequest, Forbidden: the caller's mistake.
            RateLimited: the model answers as many calls as it may.
            RunnerError: the model's refusal.
            LogUnavailable, EntryTooLarge: the decision could not be recorded.
        """
        span = None
        if request.trace.sampled:
            span = Span(f"infer {request.model[:64]}", SpanKind.SERVER, request.unix_ns)
        if not self.running:
            self._awake.asked()
        self.running += 1
        try:
            with self._concurrency.place(request.model):
                reply = await self._infer(request, span)
        except Exception as exc:  # re-raised for the door; span and metrics learn of it here
            self.books.refused(request, span, exc, fault_of(exc).status)
            raise
        except BaseException:  # its caller went away, which is nobody's fault
            if span is not None:
                self.books.left(request, span)
            raise
        else:
            return reply
        finally:
            self.running -= 1
            if not self.running:
                self._awake.rest()

    async def _infer(self, request: Request, span: Span | None) -> Reply:
        if self.draining:
            raise ModelNotReady("the server is stopping")
        choice = self._route(request, span)
        request.chosen = choice.version
        slot = self.fleet.ready(request.model, choice.version)
        rows = slot.manifest.signature.check(request.inputs)
        specs = _selected(slot, request.outputs)
        batch = {name: tensor.data for name, tensor in request.inputs.items()}
        deadline = request.deadline or time.monotonic() + self._timeout_s
        began = time.monotonic_ns()
        if slot.served is None:
            raise ModelNotReady(f"model '{request.model}' is not ready")
        infer_id = secrets.randbits(64) if span is not None else 0
        if not isinstance(slot.served, Batcher):  # elsewhere, where the trace goes on
            current_traceparent.set(request.trace.child(infer_id))
        answer = await slot.served.infer(batch, rows, deadline=deadline)
        inferred = time.monotonic_ns()
        taken = Taken(request, choice, slot, batch, answer, rows, inferred)
        if rows >= LARGE_ROWS:
            taken = replace(taken, prepared=await aside(prepare, taken))
        event, receipt = await self.recorder.record(taken)
        recorded = time.monotonic_ns()
        self.books.answered(Answered(taken, event, receipt, began, recorded, span, infer_id))
        return Reply(
            model=request.model,
            version=choice.version,
            specs=specs,
            outputs=answer.outputs,
            request_id=request.request_id,
            decision=event.id,
            unit_ref=event.unit_ref,
            experiment=choice.assignment.experiment if choice.assignment else None,
            arm=choice.arm,
            receipt=receipt,
            traceparent=request.trace.traceparent,
            tracestate=request.trace.state,
        )

    def _route(self, request: Request, span: Span | None) -> Choice:
        """Choose the version; the unit of a caller who names none is the request id."""
        held = self.fleet.versions(request.model)
        if not held:
            known = ", ".join(self.fleet.names()) or "none"
            raise ModelNotFound(f"model '{request.model[:64]}' is unknown; models: {known}")
        if request.forced_arm is not None and not self._allow_force:
            raise Forbidden("x-weighbridge-arm is not allowed here; the operator can allow it")
        if request.version is not None:
            self.fleet.slot(request.model, request.version)
        began = 0 if span is None else time.monotonic_ns()
        choice = self.router.choose(
            request.model,
            version=request.version,
            unit=request.unit or request.request_id,
            forced_arm=request.forced_arm,
            newest=newest_ready(self.fleet, request.model, held),
        )
        if span is not None:
            routed = request.unix(time.monotonic_ns())
            reason = {"weighbridge.reason": choice.reason}
            span.marks.append(Mark("route", request.unix(began), routed, reason))
            span.attributes |= {
                "weighbridge.model": request.model,
                "weighbridge.model.version": choice.version,
                "weighbridge.origin": request.origin,
            }
            if choice.arm:
                span.attributes["weighbridge.arm"] = choice.arm
        return choice


def _selected(slot: Slot, wanted: tuple[str, ...] | None) -> tuple[TensorSpec, ...]:
    """The output specs that were asked for, in the order asked; all when none were named."""
    outputs = slot.manifest.signature.outputs
    if not wanted:
        return outputs
    by_name = {spec.name: spec for spec in outputs}
    if len(set(wanted)) != len(wanted):
        raise BadRequest("an output is asked for twice")
    for name in wanted:
        if name not in by_name:
            known = ", ".join(f"'{name}'" for name in by_name)
            raise BadRequest(f"unknown output '{name}'; this model gives {known}")
    return tuple(by_name[name] for name in wanted)
