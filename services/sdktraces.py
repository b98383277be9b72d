"""Sends finished traces with the SDK's own spans, log records and exporters.

The long way of traces: for OTLP over gRPC, and for exporters that otlptraces.py does not know.
Rule: the SDK's read-only spans are made from the times that were noted, and handed to its processor
as they are, which costs a third of starting and ending its live ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from .spans import Attributes, Mark, Span, TraceIds

__all__ = ["SdkTraces"]

_ENCODED_AT_ONCE = 128
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("weighbridge")


class SdkTraces:
    """Builds the SDK's spans, and has them exported in its threads."""

    def __init__(
        self,
        resource: Resource,
        exporters: tuple[SpanExporter, LogRecordExporter],
        draw: Callable[[int], int],
    ) -> None:
        """`draw` gives random bits, for the ids of spans."""
        self._draw = draw
        self._resource = _Hashed(resource)
        self._exporters = exporters
        self._tracers = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._loggers = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
        spans, logs = exporters
        self._spans = BatchSpanProcessor(spans, max_export_batch_size=_batch_size("BSP"))
        self._tracers.add_span_processor(self._spans)
        self._loggers.add_log_record_processor(
            BatchLogRecordProcessor(logs, max_export_batch_size=_batch_size("BLRP"))
        )
        self._logger = self._loggers.get_logger("weighbridge")

    def add(self, ids: TraceIds, span: Span) -> None:
        """Queue a finished trace."""
        state = TraceState.from_header([ids.state]) if ids.state else None
        own = _context(ids.trace_id, ids.span_id, state)
        above = _context(ids.trace_id, ids.parent, state, remote=True) if ids.parent else None
        for mark in span.marks:
            self._add_child(mark, own, state)
        if span.flag is not None:
            self._logger.emit(
                timestamp=span.start_ns,
                context=trace.set_span_in_context(trace.NonRecordingSpan(own)),
                severity_number=SeverityNumber.INFO,
                attributes=span.flag,
                event_name="feature_flag.evaluation",
            )
        self._end(span.name, own, above, span.attributes, span.start_ns, span.end_ns, span)

    def _add_child(self, mark: Mark, own: SpanContext, state: TraceState | None) -> None:
        context = _context(own.trace_id, mark.span_id or self._draw(64) or 1, state)
        self._end(mark.name, context, own, mark.attributes, mark.start_ns, mark.end_ns)

    def _end(  # noqa: PLR0917  a span's fields, in their order
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        start_ns: int,
        end_ns: int,
        span: Span | None = None,
    ) -> None:
        self._spans.on_end(
            ReadableSpan(
                name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                kind=span.kind if span else SpanKind.INTERNAL,
                start_time=start_ns,
                end_time=end_ns,
                status=Status(StatusCode.ERROR, span.error) if span and span.error else _UNSET,
                instrumentation_scope=_SCOPE,
            )
        )

    def flush(self, timeout_ms: int) -> None:
        """Send what is queued; may take longer than `timeout_ms`."""
        self._tracers.force_flush(timeout_ms)
        self._loggers.force_flush(timeout_ms)

    def close(self) -> None:
        """Stop: first the exporters, which ends their retries, then the providers."""
        for exporter in self._exporters:
            exporter.shutdown()
        self._tracers.shutdown()
        self._loggers.shutdown()


class _Hashed(Resource):
    """A resource that knows its hash, which the encoder asks for with every span."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._known = super().__hash__()

    def __hash__(self) -> int:
        return self._known

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


def _context(
    trace_id: int, span_id: int, state: TraceState | None, *, remote: bool = False
) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=_SAMPLED, trace_state=state)


def _batch_size(processor: str) -> int | None:
    """None, which leaves it to the SDK, where `OTEL_*` says it; else a size that is soon encoded.

    Encoding keeps the interpreter to itself: 512 spans, the SDK's own, for as long as a request.
    """
    said = os.environ.get(f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE")
    return None if said else _ENCODED_AT_ONCE
