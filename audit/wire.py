r"""The bytes between the notary and those who append from other processes.

The notary greets with "WBNOTARY1\n", uint16 length, its origin. Then both sides send frames:
    uint32 length of the rest, uint32 request number, uint8 kind, body

    kind 1, append:   uint8 durability (0 the notary's, 1 strict, 2 bounded, 3 async), uint32 length
                      and the event's canonical bytes, uint32 length and the subject (empty: none),
                      uint16 number of payloads, each uint32 length and name, uint32 length and body
    kind 2, stored:   int64 leaf index (-1: promised, no place yet), 32 bytes leaf hash
    kind 3, refused:  the error's name, a newline, its message
    kind 4, manage:   JSON {"do": what, …}, such as {"do": "erase", "unit_ref", "actor", "reason"}
    kind 5, done:     JSON: what it did
    kind 6, notice:   JSON {"notice": what, …}, from the notary to everybody; number 0
Numbers are big-endian. Replies may come in any order.
Rule: no IO. Each format_x has its parse_x; malformed bytes raise ValueError.
Read next: link_stream.py (frames out of a connection).
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from .canonical import JSON, dumps, loads
from .errors import (
    AuditError,
    DecodeError,
    EntryTooLarge,
    EventConflict,
    EventInvalid,
    HoldStands,
    LogOverloaded,
    LogUnavailable,
    NotFound,
    NotPrunable,
)

GREETING = b"WBNOTARY1\n"
APPEND, STORED, REFUSED, MANAGE, DONE, NOTICE = 1, 2, 3, 4, 5, 6
DURABILITIES = (None, "strict", "bounded", "async")
MAX_FRAME_BYTES = 96 << 20
HEAD = struct.Struct(">IIB")
_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">H")
_STORED = struct.Struct(">q32s")
_ERRORS = {
    kind.__name__: kind
    for kind in (
        EventInvalid,
        EntryTooLarge,
        EventConflict,
        HoldStands,
        LogOverloaded,
        LogUnavailable,
        NotFound,
        NotPrunable,
    )
}


class AppendRequest(NamedTuple):
    """What a client asks for."""

    durability: str | None
    data: bytes
    subject: str
    payloads: Mapping[str, bytes]


def format_frame(number: int, kind: int, body: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(len(body) + 5, number, kind) + body


def format_greeting(origin: str) -> bytes:
    """What the notary says first."""
    name = origin.encode()
    return GREETING + _COUNT.pack(len(name)) + name


def format_append(request: AppendRequest) -> bytes:
    """The body of an append; the inverse of `parse_append`."""
    parts = [bytes([DURABILITIES.index(request.durability)])]
    parts += [_sized(request.data), _sized(request.subject.encode())]
    parts.append(_COUNT.pack(len(request.payloads)))
    for name, body in request.payloads.items():
        parts += [_sized(name.encode()), _sized(body)]
    return b"".join(parts)


def parse_append(body: bytes) -> AppendRequest:
    """Read an append; the inverse of `format_append`."""
    try:
        durability = DURABILITIES[body[0]]
        data, position = _take(body, 1)
        subject, position = _take(body, position)
        (count,) = _COUNT.unpack_from(body, position)
        position += _COUNT.size
        payloads = {}
        for _ in range(count):
            name, position = _take(body, position)
            payloads[name.decode()], position = _take(body, position)
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise ValueError(f"a malformed append: {exc}") from exc
    if position != len(body):
        raise ValueError("a malformed append: bytes are left over")
    return AppendRequest(durability, data, subject.decode(), payloads)


def format_json(body: Mapping[str, JSON]) -> bytes:
    """The body of a manage request or its answer; the inverse of `parse_json`."""
    return dumps(dict(body))


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a body."""
    try:
        found = loads(body)
    except DecodeError as exc:
        raise ValueError(f"a malformed message: {exc}") from exc
    if not isinstance(found, dict):
        raise ValueError("a malformed message: not an object")  # noqa: TRY004  as all others here
    return found


def format_stored(index: int, leaf: bytes) -> bytes:
    """The body of a stored reply; the inverse of `parse_stored`."""
    return _STORED.pack(index, leaf)


def parse_stored(body: bytes) -> tuple[int, bytes]:
    """Index and leaf hash."""
    try:
        index, leaf = _STORED.unpack(body)
    except struct.error as exc:
        raise ValueError(f"a malformed reply: {exc}") from exc
    return index, leaf


def format_refusal(error: AuditError) -> bytes:
    """The body of a refused reply."""
    return f"{type(error).__name__}\n{error}".encode()


def parse_refusal(body: bytes) -> AuditError:
    """The error that the notary raised, of the same type."""
    name, _, message = body.decode("utf-8", "replace").partition("\n")
    return _ERRORS.get(name, LogUnavailable)(message)


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _take(body: bytes, position: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(body, position)
    start = position + _LENGTH.size
    if start + length > len(body):
        raise ValueError("a malformed append: it ends early")
    return body[start : start + length], start + length
