"""Sends finished traces over OTLP/HTTP: encoded on the loop, batched and sent by the SDK.

Rule 1: the SDK keeps the queue, the thread and all of `OTEL_BSP_*`, counted in traces; its
exporters keep endpoint, headers, TLS, compression, timeout and retry. What is in between, building
objects and encoding them in a thread that takes the interpreter from every request, is left out.
Rule 2: an event goes with its trace, so `OTEL_BLRP_*` is not asked.
Boundary: asks of the exporters that `_client.export(bytes)` sends; `open_otlp` looks, and where it
is not so, or OTLP goes over gRPC, sdktraces.py does the work.
Read next: otlp.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from .otlp import Envelope, event_of, spans_of
from .spans import Span, TraceIds, Traces

__all__ = ["OtlpTraces", "open_otlp"]

log = logging.getLogger("weighbridge")
_SAMPLED: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
_SCOPE: Final = "weighbridge"


class _Encoded:
    """One trace in the SDK's queue, which asks of a span only whether it was sampled."""

    __slots__ = ("event", "spans")
    context = _SAMPLED

    def __init__(self, spans: bytes, event: bytes) -> None:
        self.spans, self.event = spans, event


class _Sender(SpanExporter):
    """Sends batches of encoded traces through two of the SDK's exporters."""

    def __init__(self, exporters: tuple[Any, Any], envelope: Envelope) -> None:
        self._spans, self._events = exporters
        self._envelope = envelope
        self._stopped = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        batch = cast("Sequence[_Encoded]", spans)
        sent = self._send(self._spans, [trace.spans for trace in batch])
        events = [trace.event for trace in batch if trace.event]
        if events:
            sent &= self._send(self._events, events)
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    def _send(self, exporter: Any, parts: list[bytes]) -> bool:
        return bool(exporter._client.export(self._envelope.around(parts)).success)

    def shutdown(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._spans.shutdown()
            self._events.shutdown()


class OtlpTraces:
    """Encodes traces as they finish, and has them sent."""

    def __init__(
        self, resource: Resource, exporters: tuple[Any, Any], draw: Callable[[int], int]
    ) -> None:
        """`draw` gives random bits, for the ids of spans."""
        self._draw = draw
        self._sender = _Sender(exporters, Envelope(resource, _SCOPE))
        self._queue = BatchSpanProcessor(self._sender)

    def add(self, ids: TraceIds, span: Span) -> None:
        """Queue a finished trace; the oldest is dropped when the queue is full."""
        span_ids = [self._draw(64) or 1 for _ in span.marks]
        encoded = _Encoded(spans_of(ids, span, span_ids), event_of(ids, span))
        self._queue.on_end(cast("ReadableSpan", encoded))

    def flush(self, timeout_ms: int) -> None:
        """Send what is queued; may take longer than `timeout_ms`."""
        self._queue.force_flush(timeout_ms)

    def close(self) -> None:
        """Stop: first the exporters, which ends their retries, then the queue."""
        self._sender.shutdown()
        self._queue.shutdown()  # type: ignore[no-untyped-call]  # the SDK's


def open_otlp(
    resource: Resource, exporters: tuple[Any, Any], draw: Callable[[int], int]
) -> Traces | None:
    """The short way for these exporters; None where they are not as it needs them."""
    if all(callable(getattr(getattr(e, "_client", None), "export", None)) for e in exporters):
        return OtlpTraces(resource, exporters, draw)
    return None
