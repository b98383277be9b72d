"""How large a body may be, by what is asked, and how many values a report of outcomes may hold.

JSON is parsed on the event loop, where every other call waits for it: 64 MiB of empty objects take
it several seconds. So what needs no such size is refused before it is read to its end.
Rule 1: a call that predicts may be as large as the operator allows; 10,000 outcomes with texts of
256 characters of four bytes each fit into `OUTCOMES_BYTES` (32.4 MB of them as UTF-8); everything
else fits into `OTHER_BYTES`. The operator's own limit holds for all.
Rule 2: a large report is counted before it is parsed: no more quotes, and no more commas outside
texts, than the outcomes of one call have. Counting takes a few hundredths of a second.
Boundary: sizes and bytes; connection.py reads, admin.py parses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .faults import BadRequest
from .large import LARGE_BYTES

__all__ = ["OTHER_BYTES", "OUTCOMES_BYTES", "check_values", "limit_of"]

OUTCOMES_BYTES: Final = 32 << 20
OTHER_BYTES: Final = 64 << 10
_OUTCOMES: Final = 10_000
_COMMAS: Final = 6 * _OUTCOMES  # between the six members of each, and behind it
_QUOTES: Final = 20 * _OUTCOMES + 2  # around six names and four texts of each, and "outcomes"


def limit_of(parts: Sequence[str], largest: int) -> int:
    """How many bytes the body of a POST to this path may have, compressed or not.

    Args:
        parts: the path, without empty parts.
        largest: what the operator allows.
    """
    match parts:
        case ["v2", "models", *_, "infer"]:
            return largest
        case ["v1", "models", *_, name] if ":" in name:
            return largest
        case ["v1", "outcomes"]:
            return min(largest, OUTCOMES_BYTES)
        case _:
            return min(largest, OTHER_BYTES)


def check_values(body: bytes) -> bytes:
    """A report of outcomes, if it holds no more values than the outcomes of one call do.

    Raises:
        BadRequest: it does; nothing was parsed.
    """
    if len(body) < LARGE_BYTES:
        return body
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")  # a quote that is left ends a text
    if plain.count(b'"') > _QUOTES or _commas(plain) > _COMMAS:
        raise BadRequest(f"the report holds more values than {_OUTCOMES} outcomes do")
    return body


def _commas(plain: bytes) -> int:
    """How many commas stand outside texts."""
    found = plain.count(b",")
    if found <= _COMMAS:
        return found
    return sum(outside.count(b",") for outside in plain.split(b'"')[::2])
