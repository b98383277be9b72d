"""The bytes of an event: canonical JSON, at most 65,535 bytes; and the ids and commitments in it.

Rule: pure functions; `decode(encode(event)) == event` for every event type and every old schema.
An entry of the log is exactly `encode(event)`; its leaf hash is RFC 6962's.
Cost: about 7 µs for a decision of 1 kB, either way.
Read next: frames.py (how entries are framed on disk).
"""

import hmac
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from .canonical import check, decimal, dumps_checked, loads
from .entropy import random_bytes
from .errors import DecodeError, EntryTooLarge, EventInvalid
from .events import (
    ALL,
    Access,
    Alert,
    AssignmentConfig,
    Carried,
    Counters,
    Decision,
    DecisionV1,
    Epoch,
    Erasure,
    Event,
    ExplanationRecord,
    ExplanationSkipped,
    FairnessWindow,
    Gap,
    KeyRotation,
    LegalHold,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    Outcome,
    Override,
    Pruned,
    UnknownEvent,
)

MAX_ENTRY_BYTES = 65_535
DECISION_BEGINS = b'{"arm_assigned":'  # so begin the bytes of every decision, and of nothing else

_SCALARS = frozenset({str, int, bool, type(None)})


class _Shape(NamedTuple):
    """What an event's bytes hold: its keys in order, how to get their values, how to set fields."""

    names: tuple[str, ...]
    keys: frozenset[str]
    values: Callable[[Any], tuple[Any, ...]]
    given: Callable[[dict[str, Any]], tuple[Any, ...]]
    setters: tuple[Callable[[Event, Any], None], ...]


def _shape(kind: type[Event]) -> _Shape:
    own = [field.name for field in fields(kind)]
    names = tuple(sorted(["type", "schema", *own]))
    setters = tuple(getattr(kind, name).__set__ for name in own)
    return _Shape(names, frozenset(names), attrgetter(*names), itemgetter(*own), setters)


_SHAPES: dict[type[Event], _Shape] = {kind: _shape(kind) for kind in ALL}
_KINDS: dict[tuple[str, int], type[Event]] = {(kind.type, kind.schema): kind for kind in ALL}
EVENT_TYPES = tuple(sorted({kind.type for kind in ALL}))


def field_names(kind: type[Event]) -> frozenset[str]:
    """The keys in an event's bytes, `type` and `schema` included."""
    return _SHAPES[kind].keys


def encode(event: Event) -> bytes:
    """The canonical bytes of `event`; the inverse of `decode`.

    Raises:
        EventInvalid: a field holds a value without a canonical form.
        EntryTooLarge: the bytes would exceed 65,535.
    """
    shape = _SHAPES.get(type(event))
    if shape is None:
        raise EventInvalid(f"could not encode a {type(event).__name__}: not a recordable event")
    values = shape.values(event)
    for value in values:
        if type(value) not in _SCALARS:
            check(value)
    data = dumps_checked(dict(zip(shape.names, values, strict=True)))
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(
            f"could not encode {event.type} {event.id}: {len(data)} bytes, at most "
            f"{MAX_ENTRY_BYTES} fit in an entry; put bodies in payloads"
        )
    return data


def decode(data: bytes) -> Event:
    """The event in an entry's bytes; the inverse of `encode`.

    A type or schema that this version does not know becomes an `UnknownEvent`, so that an old
    reader can follow a newer writer.

    Raises:
        DecodeError: not a JSON object, no type/schema/id/time_us, or wrong fields for its type.
    """
    body = loads(data)
    if not isinstance(body, dict):
        raise DecodeError("could not decode an entry: it is not a JSON object")
    return _from_body(body)


def _from_body(body: dict[str, Any]) -> Event:
    if type(body.get("id")) is not str or type(body.get("time_us")) is not int:
        raise DecodeError("could not decode an entry: it has no id or no time_us")
    try:
        kind = _KINDS.get((body["type"], body["schema"]))
        if kind is None:
            return _unknown(body)
        shape = _SHAPES[kind]
        if body.keys() == shape.keys:
            return _made(kind, shape, body)
    except (TypeError, KeyError) as exc:
        raise DecodeError(f"could not decode an entry: {exc}") from exc
    odd = ", ".join(sorted(body.keys() ^ shape.keys))
    del body["type"], body["schema"]
    try:
        return kind(**body)  # a field that has a default may be missing
    except TypeError as exc:
        raise DecodeError(
            f"could not decode an entry: a {kind.type} with wrong fields ({odd}); "
            "`weighbridge audit verify` names its leaf"
        ) from exc


def _made(kind: type[Event], shape: _Shape, body: dict[str, Any]) -> Event:
    """An event of these fields: a third of what the constructor of a frozen class takes."""
    event = object.__new__(kind)
    for put, value in zip(shape.setters, shape.given(body), strict=True):
        put(event, value)
    return event


def _unknown(body: dict[str, Any]) -> UnknownEvent:
    if not isinstance(body["type"], str) or not isinstance(body["schema"], int):
        raise TypeError("its type or schema has the wrong form")
    return UnknownEvent(id=body["id"], time_us=body["time_us"], body=body)


def original(event: Event) -> Event:
    """The event that a `carried` one repeats; any other one is itself.

    Raises:
        DecodeError: what it repeats is not an event.
    """
    return _from_body(dict(event.record)) if isinstance(event, Carried) else event


def subject_of(event: Event) -> str:
    """The id under which an event's payloads are found: its decision's, else its own."""
    decision = getattr(event, "decision", None)
    return decision if isinstance(decision, str) else event.id


def now_us() -> int:
    """The wall clock in Unix microseconds: the default clock at the edge."""
    return time.time_ns() // 1000


def new_id(
    *, clock: Callable[[], int] = now_us, random: Callable[[int], bytes] = random_bytes
) -> str:
    """A UUIDv7 (RFC 9562, section 5.7), with microseconds in rand_a (method 3).

    Args:
        clock: Unix microseconds.
        random: gives that many random bytes.
    """
    milliseconds, microseconds = divmod(clock(), 1000)
    tail = int.from_bytes(random(8), "big") & ((1 << 62) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (microseconds * 4096 // 1000) << 64 | 0b10 << 62 | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_time_us(event_id: str) -> int | None:
    """The time in a UUIDv7, in Unix microseconds to the millisecond; None for another id."""
    try:
        value = uuid.UUID(event_id)
    except ValueError:
        return None
    return (value.int >> 80) * 1000 if value.version == 7 else None


def commitment(nonce: bytes, data: bytes) -> str:
    """Hex HMAC-SHA256 of `data` under a random `nonce`: hides the data until the nonce is shown."""
    return hmac.digest(nonce, data, "sha256").hex()


def as_mapping(event: Event) -> Mapping[str, Any]:
    """The event's fields by name, `type` and `schema` included, for showing it."""
    if isinstance(event, UnknownEvent):
        return event.body
    shape = _SHAPES[type(event)]
    return dict(zip(shape.names, shape.values(event), strict=True))


__all__ = [
    "ALL",
    "MAX_ENTRY_BYTES",
    "Access",
    "Alert",
    "AssignmentConfig",
    "Carried",
    "Counters",
    "Decision",
    "DecisionV1",
    "Epoch",
    "Erasure",
    "Event",
    "ExplanationRecord",
    "ExplanationSkipped",
    "FairnessWindow",
    "Gap",
    "KeyRotation",
    "LegalHold",
    "ModelPromoted",
    "ModelRegistered",
    "ModelRolledBack",
    "Outcome",
    "Override",
    "Pruned",
    "UnknownEvent",
    "as_mapping",
    "commitment",
    "decimal",
    "decode",
    "encode",
    "field_names",
    "id_time_us",
    "new_id",
    "now_us",
    "original",
    "subject_of",
]
