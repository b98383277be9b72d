"""What is noted of a sampled request, and where it goes when the request has ended.

Rule: no attribute holds an input, an output, a unit or a protected attribute in clear.
Boundary: values, and the seam between telemetry.py and what sends traces.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

__all__ = ["Attributes", "Mark", "Span", "SpanKind", "TraceIds", "Traces"]

Attributes = Mapping[str, AttributeValue]


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


class Traces(Protocol):
    """Where finished traces go."""

    def add(self, ids: TraceIds, span: Span) -> None:
        """Queue the finished trace of a sampled request."""

    def flush(self, timeout_ms: int) -> None:
        """Send what is queued; may take longer."""

    def close(self) -> None:
        """Stop, without waiting for a collector."""
