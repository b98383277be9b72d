"""Refusals on the wire: the one place where an error becomes a status and a text.

Rule: the caller's own mistakes keep their message; our faults keep a stable sentence and lose the
exception's text, which goes to the process log. Unknown exceptions are 500 / INTERNAL.
Source: the table of error codes in docs/protocol.md; gRPC codes by number, so that this module
imports no gRPC.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from audit.errors import AuditError, EntryTooLarge, LogUnavailable
from audit.errors import RequestError as AuditRequestError
from experiments.errors import ExperimentError
from runners.errors import RunnerError

__all__ = [
    "BadRequest",
    "Conflict",
    "Fault",
    "Forbidden",
    "NotFound",
    "RateLimited",
    "TooLarge",
    "TryLater",
    "Unauthenticated",
    "Unsupported",
    "fault_of",
    "report",
]

log = logging.getLogger("weighbridge")

_GRPC = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    409: 6,  # ALREADY_EXISTS
    413: 3,  # INVALID_ARGUMENT
    429: 8,  # RESOURCE_EXHAUSTED
    500: 13,  # INTERNAL
    501: 12,  # UNIMPLEMENTED
    503: 14,  # UNAVAILABLE
    504: 4,  # DEADLINE_EXCEEDED
}
# A name that the caller sent may be in the text, and gRPC puts the text into a trailer of 8 KiB.
_MAX_TEXT = 480
_SAY_AGAIN_S = 1.0
_OURS = {
    500: "the server could not answer; the operator finds the reason in the server's log",
    503: "the model is not ready; try again shortly",
}


class BadRequest(Exception):
    """The message does not follow the protocol; its text is for the caller."""

    status_hint = 400
    retry_after_s: int | None = None


class TooLarge(BadRequest):
    """The message is larger than the server accepts."""

    status_hint = 413


class NotFound(BadRequest):
    """No such path or thing."""

    status_hint = 404


class Conflict(BadRequest):
    """It contradicts what was accepted before."""

    status_hint = 409


class Unauthenticated(BadRequest):
    """No credential came with the call, or one that does not hold."""

    status_hint = 401


class Forbidden(BadRequest):
    """The caller may not do this."""

    status_hint = 403


class RateLimited(BadRequest):
    """The caller, or the model, has had its share; it may come back."""

    status_hint = 429

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        """`retry_after_s` is when to come back, in whole seconds."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TryLater(BadRequest):
    """Somebody else whom the answer needs is away."""

    status_hint = 503
    retry_after_s = 1


class Unsupported(BadRequest):
    """The protocol knows this, the server does not."""

    status_hint = 501


class Fault(NamedTuple):
    """What the caller is told."""

    status: int
    message: str
    retry_after_s: int | None

    @property
    def grpc_code(self) -> int:
        """The gRPC status code of the same meaning."""
        return _GRPC.get(self.status, 13)

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Trailing metadata over gRPC: when to come back, as HTTP's header says it."""
        return () if self.retry_after_s is None else (("retry-after", str(self.retry_after_s)),)


def fault_of(error: BaseException) -> Fault:
    """Turn any error into what the caller may know; pure."""
    fault = _fault_of(error)
    if len(fault.message) <= _MAX_TEXT:
        return fault
    return fault._replace(message=f"{fault.message[:_MAX_TEXT]}…")


def _fault_of(error: BaseException) -> Fault:
    if isinstance(error, BadRequest):
        return Fault(error.status_hint, str(error), error.retry_after_s)
    if isinstance(error, LogUnavailable):
        return Fault(503, "the answer could not be recorded, so it is not given; try again", 1)
    if isinstance(error, EntryTooLarge):
        return Fault(413, "the request does not fit into one record; send fewer rows", None)
    if isinstance(error, ExperimentError | AuditRequestError) and error.status_hint < 500:
        return Fault(400 if error.status_hint == 422 else error.status_hint, str(error), None)
    if isinstance(error, RunnerError):
        status = error.status_hint
        if status in (400, 404, 429, 504):
            return Fault(status, str(error), 1 if status == 429 else None)
        return Fault(status, _OURS.get(status, _OURS[500]), 1 if status == 503 else None)
    return Fault(500, _OURS[500], None)


class _Held(NamedTuple):
    """Errors of one kind that were not said one by one: until when, and how many."""

    until: float
    held: int


_held: dict[type[BaseException], _Held] = {}


def report(error: BaseException, *, clock: Callable[[], float] = time.monotonic) -> Fault:
    """`fault_of`, and what the caller may not know goes to the process log.

    Of each kind of error once a second: while a disk is full, every request meets it.
    """
    fault = fault_of(error)
    if fault.status in (500, 503) and isinstance(error, AuditError | RunnerError):
        kind, now = type(error), clock()
        last = _held.get(kind, _Held(now, 0))
        if now < last.until:
            _held[kind] = last._replace(held=last.held + 1)
        else:
            more = f" ({last.held} more like it before)" if last.held else ""
            log.error("refused with %d: %s%s", fault.status, error, more)
            _held[kind] = _Held(now + _SAY_AGAIN_S, 0)
    elif fault.status == 500:
        log.error("unexpected error", exc_info=error)
    return fault
