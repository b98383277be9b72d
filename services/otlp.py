"""Finished traces as OTLP: the protobuf bytes of their spans and of their events.

The SDK's encoder builds an object for every message and every attribute; a sampled request has
some forty of them, which cost more than its place in a batch. Here each field is written in place.
Rule: a collector reads the same as from the SDK's encoder (a test compares them, parsed), but for a
trace state, which goes out as it came.
Source: opentelemetry-proto 1.x (trace.proto, logs.proto, common.proto); Protocol Buffers encoding.
Boundary: pure. What carries the bytes is otlptraces.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from .spans import Attributes, Mark, Span, TraceIds

__all__ = ["Envelope", "event_of", "spans_of"]

_CACHED_TEXT = 32
_KINDS = {
    SpanKind.INTERNAL: b"\x30\x01",
    SpanKind.SERVER: b"\x30\x02",
    SpanKind.CLIENT: b"\x30\x03",
    SpanKind.PRODUCER: b"\x30\x04",
    SpanKind.CONSUMER: b"\x30\x05",
}
_INTERNAL = _KINDS[SpanKind.INTERNAL]
_EVENT_NAME = b"feature_flag.evaluation"
_INFO = b"\x10\x09"
_ERROR = b"\x18\x02"
# Tags of Span: start and end are fixed64, attributes and status are messages, flags are fixed32.
_TIMES = struct.Struct("<BQBQ")
_LINKED = struct.Struct("<BBI")
_LOCAL, _REMOTE = 0x100, 0x300  # SpanFlags: the parent's remoteness is known; it is remote
# Tags of LogRecord: time, observed time and trace flags.
_SEEN = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<BI")


def spans_of(ids: TraceIds, span: Span, span_ids: Iterable[int]) -> bytes:
    """One request's spans, each as a field of ScopeSpans.

    Args:
        ids: its place in its trace.
        span: what it says; its marks become children.
        span_ids: for marks that have none.
    """
    trace = b"\x0a\x10" + ids.trace_id.to_bytes(16, "big") + b"\x12\x08"
    state = _field(b"\x1a", ids.state.encode()) if ids.state else b""
    own = ids.span_id.to_bytes(8, "big")
    parts: list[bytes] = []
    for mark, drawn in zip(span.marks, span_ids, strict=False):
        parts += _child(mark, trace + (mark.span_id or drawn).to_bytes(8, "big") + state, own)
    above, flags = b"", _LOCAL
    if ids.parent:
        above, flags = b"\x22\x08" + ids.parent.to_bytes(8, "big"), _REMOTE
    body = b"".join(
        (
            trace,
            own,
            state,
            above,
            _text(b"\x2a", span.name),
            _KINDS[span.kind],
            _TIMES.pack(0x39, span.start_ns, 0x41, span.end_ns),
            *_attributes(b"\x4a", span.attributes),
            _field(b"\x7a", _text(b"\x12", span.error) + _ERROR) if span.error else b"",
            _LINKED.pack(0x85, 0x01, flags),
        )
    )
    parts += (b"\x12", _size(len(body)), body)
    return b"".join(parts)


def _child(mark: Mark, head: bytes, parent: bytes) -> tuple[bytes, ...]:
    body = b"".join(
        (
            head,
            b"\x22\x08",
            parent,
            _text(b"\x2a", mark.name),
            _INTERNAL,
            _TIMES.pack(0x39, mark.start_ns, 0x41, mark.end_ns),
            *_attributes(b"\x4a", mark.attributes),
            _LINKED.pack(0x85, 0x01, _LOCAL),
        )
    )
    return b"\x12", _size(len(body)), body


def event_of(ids: TraceIds, span: Span) -> bytes:
    """One request's `feature_flag.evaluation`, as a field of ScopeLogs; empty if it has none."""
    if span.flag is None:
        return b""
    body = b"".join(
        (
            _INFO,
            *_attributes(b"\x32", span.flag),
            _FLAGS.pack(0x45, 1),
            b"\x4a\x10" + ids.trace_id.to_bytes(16, "big"),
            b"\x52\x08" + ids.span_id.to_bytes(8, "big"),
            _SEEN.pack(0x09, span.start_ns, 0x59, span.end_ns),
            _field(b"\x62", _EVENT_NAME),
        )
    )
    return _field(b"\x12", body)


class Envelope:
    """What stands around the spans, or the events, of one process in every request."""

    def __init__(self, resource: Resource, scope: str) -> None:
        """Write it once."""
        said = [_attribute(b"\x0a", key, value) for key, value in resource.attributes.items()]
        self._resource = _field(b"\x0a", b"".join(said))
        self._scope = _field(b"\x0a", _text(b"\x0a", scope))
        self._schema = _text(b"\x1a", resource.schema_url) if resource.schema_url else b""

    def around(self, parts: Iterable[bytes]) -> bytes:
        """The whole request, ExportTraceServiceRequest or ExportLogsServiceRequest."""
        scoped = _field(b"\x12", self._scope + b"".join(parts))
        return _field(b"\x0a", self._resource + scoped + self._schema)


# --- the encoding ---------------------------------------------------------------------------------


def _size(length: int) -> bytes:
    return _SIZES[length] if length < len(_SIZES) else _varint(length)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SIZES = [_varint(length) for length in range(2048)]


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _size(len(data)) + data


def _text(tag: bytes, text: str) -> bytes:
    data = text.encode()
    return tag + _size(len(data)) + data


def _attributes(tag: bytes, attributes: Attributes) -> list[bytes]:
    """Each as a field: short texts repeat, so they are kept; numbers and ids are written anew."""
    return [
        _kept(tag, name, value)
        if type(value) is str and len(value) < _CACHED_TEXT
        else _attribute(tag, name, value)
        for name, value in attributes.items()
    ]


def _attribute(tag: bytes, name: str, value: AttributeValue) -> bytes:
    return _field(tag, _text(b"\x0a", name) + _field(b"\x12", _any_value(value)))


_kept = lru_cache(1024)(_attribute)


def _any_value(value: AttributeValue) -> bytes:
    """An AnyValue: text, a truth value, a number, or a list of these."""
    if isinstance(value, str):
        return _text(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return struct.pack("<Bd", 0x21, value)
    return _field(b"\x2a", b"".join(_field(b"\x0a", _any_value(one)) for one in value or ()))
