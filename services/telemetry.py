"""Traces: an id for every request, spans only for the sampled ones.

Rule 1: an SDK span costs more than a small model, so a request gets W3C ids made or parsed here
(they go into its record), and the SDK's read-only spans are built after the reply, for sampled
requests only, from the times that the data plane noted, and handed to its processor as they are.
Rule 2: exporting happens in the SDK's batch threads; a collector that is away costs a request
nothing, and shutdown waits a bounded time.
Rule 3: no attribute holds an input, an output, a unit or a protected attribute in clear.
Source: W3C Trace Context level 1; OpenTelemetry semantic conventions (HTTP, RPC, feature flags);
configured by the standard `OTEL_*` variables alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

__all__ = ["Mark", "Span", "SpanKind", "Telemetry", "TraceIds", "current_traceparent"]

log = logging.getLogger("weighbridge")
# Version 00 ends after the flags, at 55 characters; a later one may go on.
_TRACEPARENT = re.compile(
    r"\A(?!ff|00.{54})[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z"
)
_TRACESTATE = re.compile(
    r"[ \t]*[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}"
)
_MAX_STATE = 512
_MAX_MEMBERS = 32
_SHUTDOWN_MS = 3000
_TOGETHER_S = 0.02
_ENCODED_AT_ONCE = 128
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("weighbridge")
Attributes = Mapping[str, AttributeValue]

current_traceparent: ContextVar[str] = ContextVar("current_traceparent", default="")
"""The running request's trace context, for calls to other processes."""


class TraceIds(NamedTuple):
    """One request's place in a trace; `parent` is 0 at the root."""

    trace_id: int
    span_id: int
    parent: int
    sampled: bool
    state: str

    @property
    def traceparent(self) -> str:
        """The header that names our span as the parent."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    def child(self, span_id: int) -> str:
        """The header that names one of our child spans as the parent."""
        return f"00-{self.trace_id:032x}-{span_id or self.span_id:016x}-{int(self.sampled):02x}"


class Mark(NamedTuple):
    """A piece of the request's work: a child span, in Unix nanoseconds."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    span_id: int = 0


@dataclass(slots=True)
class Span:
    """What the server span will say; filled while the request runs."""

    name: str
    kind: SpanKind
    start_ns: int = field(default_factory=time.time_ns)
    end_ns: int = 0
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    flag: Attributes | None = None
    error: str = ""

    def end(self) -> None:
        """Note the time."""
        self.end_ns = time.time_ns()


class _Hashed(Resource):
    """A resource that knows its hash, which the encoder asks for with every span."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._known = super().__hash__()

    def __hash__(self) -> int:
        return self._known

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class Telemetry:
    """The tracer and the event logger of one process."""

    def __init__(self, service: str, *, enabled: bool | None = None) -> None:
        """Read `OTEL_*`; without an endpoint or exporter nothing is exported and no span built."""
        self.enabled = _exporting() if enabled is None else enabled
        name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        self._resource = _Hashed(Resource.create(name))
        self._draw = random.Random(secrets.randbits(256)).getrandbits  # noqa: S311  names, not secrets
        self._tracers = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._loggers = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
        self._exporters: tuple[SpanExporter | LogRecordExporter, ...] = ()
        self._spans: SpanProcessor | None = None
        if self.enabled:
            spans, logs = self._exporters = _exporters()
            self._spans = BatchSpanProcessor(spans, max_export_batch_size=_batch_size("BSP"))
            self._tracers.add_span_processor(self._spans)
            self._loggers.add_log_record_processor(
                BatchLogRecordProcessor(logs, max_export_batch_size=_batch_size("BLRP"))
            )
        self.traced = 0  # answers that have a span
        self._finished: list[tuple[TraceIds, Span]] = []
        self._later: asyncio.TimerHandle | None = None
        self._bound = _ratio_bound(self._tracers.sampler)
        self._logger = self._loggers.get_logger("weighbridge")

    def begin(self, traceparent: str | None, tracestate: str | None = None) -> TraceIds:
        """Place a request: the caller's trace when `traceparent` is valid, else a new one."""
        found = _TRACEPARENT.match(traceparent) if traceparent else None
        span_id = self._draw(64) or 1
        if found and (parent := int(found[2], 16)) and (trace_id := int(found[1], 16)):
            wanted = bool(int(found[3], 16) & 1)
            state = _state(tracestate) if tracestate else ""
            return TraceIds(trace_id, span_id, parent, wanted and self.enabled, state)
        trace_id = self._draw(128) or 1
        return TraceIds(trace_id, span_id, 0, self.enabled and self._samples(trace_id), "")

    def _samples(self, trace_id: int) -> bool:
        if self._bound is not None:
            return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
        result = self._tracers.sampler.should_sample(None, trace_id, "request")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def finish(self, ids: TraceIds, span: Span) -> None:
        """Have the spans of one sampled request built, soon; does nothing for the others."""
        if not ids.sampled or self._spans is None:
            return
        self._finished.append((ids, span))
        if self._later is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # no loop, nobody to keep waiting
                self._build_all()
            else:
                self._later = loop.call_later(_TOGETHER_S, self._build_all)

    def _build_all(self) -> None:
        """Build what has finished: together, for it is the first of such work that costs most."""
        self._later = None
        finished, self._finished = self._finished, []
        for ids, span in finished:
            self._build(ids, span)

    def _build(self, ids: TraceIds, span: Span) -> None:
        if self._spans is None:
            return
        self.traced += "weighbridge.decision" in span.attributes
        state = TraceState.from_header([ids.state]) if ids.state else None
        own = SpanContext(
            ids.trace_id, ids.span_id, is_remote=False, trace_flags=_SAMPLED, trace_state=state
        )
        above = None
        if ids.parent:
            above = SpanContext(
                ids.trace_id, ids.parent, is_remote=True, trace_flags=_SAMPLED, trace_state=state
            )
        for mark in span.marks:
            span_id = mark.span_id or self._draw(64) or 1
            self._spans.on_end(
                ReadableSpan(
                    mark.name,
                    context=SpanContext(
                        ids.trace_id,
                        span_id,
                        is_remote=False,
                        trace_flags=_SAMPLED,
                        trace_state=state,
                    ),
                    parent=own,
                    resource=self._resource,
                    attributes=mark.attributes,
                    start_time=mark.start_ns,
                    end_time=mark.end_ns,
                    status=_UNSET,
                    instrumentation_scope=_SCOPE,
                )
            )
        if span.flag is not None:
            self._logger.emit(
                timestamp=span.start_ns,
                context=trace.set_span_in_context(trace.NonRecordingSpan(own)),
                severity_number=SeverityNumber.INFO,
                attributes=span.flag,
                event_name="feature_flag.evaluation",
            )
        self._spans.on_end(
            ReadableSpan(
                span.name,
                context=own,
                parent=above,
                resource=self._resource,
                attributes=span.attributes,
                kind=span.kind,
                start_time=span.start_ns,
                end_time=span.end_ns,
                status=Status(StatusCode.ERROR, span.error) if span.error else _UNSET,
                instrumentation_scope=_SCOPE,
            )
        )

    def close(self) -> None:
        """Send what is queued, for at most three seconds, then stop the exporters.

        Stopping an exporter first ends its retries; otherwise the providers would wait for a
        collector that is away.
        """
        if self._later is not None:
            self._later.cancel()
        self._build_all()
        flushing = [
            threading.Thread(target=provider.force_flush, args=(_SHUTDOWN_MS,), daemon=True)
            for provider in (self._tracers, self._loggers)
        ]
        deadline = time.monotonic() + _SHUTDOWN_MS / 1000
        for thread in flushing:
            thread.start()
        for thread in flushing:
            thread.join(max(0.0, deadline - time.monotonic()))
        for exporter in self._exporters:
            exporter.shutdown()
        self._tracers.shutdown()
        self._loggers.shutdown()


def _batch_size(processor: str) -> int | None:
    """None, which leaves it to the SDK, where `OTEL_*` says it; else a size that is soon encoded.

    Encoding keeps the interpreter to itself: 512 spans, the SDK's own, for as long as a request.
    """
    said = os.environ.get(f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE")
    return None if said else _ENCODED_AT_ONCE


def _ratio_bound(sampler: Sampler) -> int | None:
    """The bound of a root trace's id where the sampler goes by it alone; None asks the sampler."""
    root = getattr(sampler, "_root", sampler)
    return root.bound if isinstance(root, TraceIdRatioBased) else None


def _state(tracestate: str) -> str:
    """A well-formed `tracestate`, or ""; the SDK would write another one's text to the log."""
    members = tracestate.split(",") if len(tracestate) <= _MAX_STATE else []
    fits = len(members) <= _MAX_MEMBERS and all(map(_TRACESTATE.fullmatch, members))
    return tracestate if fits and members else ""


def _exporting() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return chosen == "otlp" or (chosen != "none" and any(map(os.environ.get, endpoints)))


def _exporters() -> tuple[SpanExporter, LogRecordExporter]:
    """The OTLP exporters of the protocol that `OTEL_EXPORTER_OTLP_PROTOCOL` names."""
    # Imported here: gRPC or requests are loaded only in a process that exports.
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (  # noqa: PLC0415
            OTLPLogExporter as GrpcLogExporter,
        )
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcSpanExporter,
        )

        return GrpcSpanExporter(), GrpcLogExporter()
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # noqa: PLC0415
        OTLPLogExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter(), OTLPLogExporter()
