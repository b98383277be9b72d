"""What a caller says beside the tensors: unit, attributes, forced arm, deadline.

Source: docs/protocol.md, "Headers and metadata of our own": the same keys are HTTP headers and gRPC
metadata, and OIP request parameters of the same meaning serve clients that cannot set headers.
Rule 1: a header wins over a parameter; an empty one counts as not sent.
Blanks around a header are no part of it (RFC 9110 section 5.5; gRPC's metadata likewise), or one
person would have two references.
Rule 2: what decides a request is bounded and said once: a key that stands twice is refused, since
two readers would not agree on which one counts.
Boundary: knows no protocol; doors hand in a way to look up a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from .dataplane import Request
from .faults import BadRequest
from .protected import parse_attributes

__all__ = ["checked_unit", "parse_timeout", "refuse_repeated", "take_claims"]

Said = Callable[[str], str | None]
Parameters = Mapping[str, str | int | float | bool]

_MAX_UNIT_BYTES = 1024
_MAX_TIMEOUT_MS = 3_600_000


def take_claims(request: Request, said: Said, parameters: Parameters) -> None:
    """Put what the caller said into `request`.

    Raises:
        BadRequest: a value that is not what its key takes; the text never repeats it.
    """
    if header := (said("x-weighbridge-unit") or "").strip(" \t"):
        request.unit, request.unit_source = checked_unit(header), "header"
    elif unit := _parameter(parameters, "weighbridge_unit"):
        request.unit, request.unit_source = checked_unit(unit), "parameter"
    request.attributes = parse_attributes(
        said("x-weighbridge-attributes") or _parameter(parameters, "weighbridge_attributes")
    )
    request.forced_arm = said("x-weighbridge-arm") or None
    request.deadline = parse_timeout(
        said("x-weighbridge-timeout-ms") or _parameter(parameters, "weighbridge_timeout_ms")
    )


def _parameter(parameters: Parameters, name: str) -> str | None:
    found = parameters.get(name)
    return None if found is None else str(found)


def checked_unit(unit: str) -> str:
    """A randomisation unit of a length that a person's or a device's id may have.

    Raises:
        BadRequest: longer than 1,024 bytes.
    """
    if len(unit.encode()) > _MAX_UNIT_BYTES:
        raise BadRequest(f"the randomisation unit is longer than {_MAX_UNIT_BYTES} bytes")
    return unit


def parse_timeout(text: str | None) -> float | None:
    """A deadline in `time.monotonic()` seconds from `x-weighbridge-timeout-ms`.

    Raises:
        BadRequest: not a whole number of 1 to 3,600,000 milliseconds.
    """
    if not text:
        return None
    plain = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_TIMEOUT_MS))
    if not plain or not 1 <= int(text) <= _MAX_TIMEOUT_MS:
        raise BadRequest(
            f"x-weighbridge-timeout-ms must be a whole number from 1 to {_MAX_TIMEOUT_MS}"
        )
    return time.monotonic() + int(text) / 1000


def refuse_repeated(name: str) -> None:
    """Refuse a key of ours that stands twice in one request; others may.

    Raises:
        BadRequest: it is one that decides something.
    """
    if name.startswith("x-weighbridge-") or name == "inference-header-content-length":
        raise BadRequest(f"'{name[:64]}' stands twice; send it once")
