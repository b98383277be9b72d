"""Traces: an id for every request, spans only for the sampled ones.

Rule 1: an SDK span costs more than a small model, so a request gets W3C ids made or parsed here
(they go into its record), and spans are made after the reply, for sampled requests only, from the
times that the data plane noted.
Rule 2: exporting happens in the SDK's batch threads; a collector that is away costs a request
nothing, and shutdown waits a bounded time.
Source: W3C Trace Context level 1; OpenTelemetry semantic conventions (HTTP, RPC, feature flags);
configured by the standard `OTEL_*` variables alone.
Read next: spans.py (what is noted), otlptraces.py and sdktraces.py (how it is sent).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import secrets
import threading
from collections.abc import Callable
from contextvars import ContextVar

from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind

from .otlptraces import open_otlp
from .sdktraces import SdkTraces
from .spans import Mark, Span, TraceIds, Traces

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

current_traceparent: ContextVar[str] = ContextVar("current_traceparent", default="")
"""The running request's trace context, for calls to other processes."""


class Telemetry:
    """The tracer and the event logger of one process."""

    def __init__(self, service: str, *, enabled: bool | None = None) -> None:
        """Read `OTEL_*`; without an endpoint or exporter nothing is exported and no span built."""
        self.enabled = _exporting() if enabled is None else enabled
        name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        self._draw = random.Random(secrets.randbits(256)).getrandbits  # noqa: S311  names, not secrets
        self._traces = _open_traces(Resource.create(name), self._draw) if self.enabled else None
        self.traced = 0  # answers that have a span
        self._finished: list[tuple[TraceIds, Span]] = []
        self._later: asyncio.TimerHandle | None = None
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler  # as `OTEL_*` says
        self._bound = _ratio_bound(self._sampler)

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
        result = self._sampler.should_sample(None, trace_id, "request")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def finish(self, ids: TraceIds, span: Span) -> None:
        """Have the spans of one sampled request built, soon; does nothing for the others."""
        if not ids.sampled or self._traces is None:
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
        if self._traces is not None:
            for ids, span in finished:
                self.traced += "weighbridge.decision" in span.attributes
                self._traces.add(ids, span)

    def close(self) -> None:
        """Send what is queued, for at most three seconds, then stop."""
        if self._later is not None:
            self._later.cancel()
        self._build_all()
        if self._traces is None:
            return
        flushing = threading.Thread(target=self._traces.flush, args=(_SHUTDOWN_MS,), daemon=True)
        flushing.start()
        flushing.join(_SHUTDOWN_MS / 1000)
        self._traces.close()


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


def _open_traces(resource: Resource, draw: Callable[[int], int]) -> Traces:
    """What sends traces by the protocol that `OTEL_EXPORTER_OTLP_PROTOCOL` names."""
    exporters = _exporters()
    return open_otlp(resource, exporters, draw) or SdkTraces(resource, exporters, draw)


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
