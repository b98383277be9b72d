"""What a connection may have stored: what it asks for, looked at before anything is done.

Rule 1: a decision is told by its form (grammar.py); all else is parsed, must have its fields' types
and ranges (shapes.py), and be its own canonical bytes.
Rule 2: records that a deed stands behind (erasures, holds, rotations, prunings) come from the
notary and are refused. So is a known type of an unknown schema: nobody here could count such a
decision. An unknown type is stored, and left to newer readers.
Rule 3: a record has at most `MOST_PAYLOADS` payloads, whose names are short words: they are kept in
clear beside the log, and each is looked for by its name.
Boundary: pure. A refusal names what is wrong, and repeats nothing that a client might hide there.
Read next: link_server.py (who asks), blobs.py (what becomes of payloads).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from .blobfile import Payload, as_payloads
from .canonical import is_canonical
from .errors import AuditError, EntryTooLarge, EventInvalid
from .events import Carried, Erasure, Event, KeyRotation, LegalHold, Pruned, UnknownEvent
from .grammar import decision_id
from .receipts import Durability
from .record import EVENT_TYPES, MAX_ENTRY_BYTES, decode, encode, subject_of
from .shapes import check_values
from .wire import AppendRequest, parse_append

__all__ = ["MOST_PAYLOADS", "Admitted", "admit"]

MOST_PAYLOADS = 16
_MOST_SUBJECT = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_OWN = (Carried, Erasure, KeyRotation, LegalHold, Pruned)
_DURABILITIES: Mapping[str | None, Durability] = {
    "strict": "strict",
    "bounded": "bounded",
    "async": "async",
}


class Admitted(NamedTuple):
    """What is to be stored; `event` is None where its form alone was looked at."""

    event_id: str
    data: bytes
    payloads: tuple[Payload, ...]
    durability: Durability | None
    event: Event | None


def admit(body: bytes) -> Admitted:
    """What the body of an append asks for.

    Raises:
        ValueError: it is no append.
        EventInvalid, EntryTooLarge: it cannot be stored; says why.
    """
    asked = parse_append(body)
    event = None
    event_id = decision = decision_id(asked.data) or ""
    if not event_id or len(asked.data) > MAX_ENTRY_BYTES:
        event = _checked_event(asked.data)
        event_id, decision = event.id, subject_of(event)
    if asked.payloads or asked.subject:
        _check_payloads(asked)
    payloads = as_payloads(decision, asked.payloads, asked.subject or decision)
    return Admitted(event_id, asked.data, payloads, _DURABILITIES.get(asked.durability), event)


def _check_payloads(asked: AppendRequest) -> None:
    if len(asked.payloads) > MOST_PAYLOADS:
        raise EventInvalid(
            f"could not store a record with {len(asked.payloads)} payloads: at most "
            f"{MOST_PAYLOADS}; put them together"
        )
    if not all(map(_NAME.fullmatch, asked.payloads)):
        raise EventInvalid(
            "could not store a payload: its name must be 1 to 64 ASCII letters, digits and ._-"
        )
    if len(asked.subject) > _MOST_SUBJECT:
        raise EventInvalid(
            f"could not store payloads: the subject's name must have at most {_MOST_SUBJECT} "
            "characters"
        )


def _checked_event(data: bytes) -> Event:
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(f"could not store an event of {len(data)} bytes")
    try:
        event = decode(data)
    except AuditError as exc:
        raise EventInvalid(str(exc)) from exc
    check_values(event)
    known = not isinstance(event, UnknownEvent)  # then all of its fields are in what it encodes to
    if not (encode(event) == data if known else is_canonical(data)):
        kind = event.type or "record"
        raise EventInvalid(f"could not store {event.id}: not the canonical bytes of a {kind}")
    if isinstance(event, UnknownEvent) and event.body["type"] in EVENT_TYPES:
        raise EventInvalid(
            f"could not store {event.id}: its schema of a {event.body['type']} is unknown here; "
            "update the notary first"
        )
    if isinstance(event, _OWN):
        raise EventInvalid(f"could not store {event.id}: only the notary writes a {event.type}")
    return event
