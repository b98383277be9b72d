"""Moments as people write them, in Unix microseconds.

Rule: a moment that names no zone is UTC; one beyond all that records can name, from the year 1684
to 2255, is the nearest of those: what is asked of records is the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["moment_text", "moment_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = (1 << 53) - 1  # of canonical JSON


def moment_us(text: str, *, default: int) -> int:
    """Unix microseconds of an ISO 8601 moment (UTC when it names no zone).

    Raises:
        ValueError: not such a moment; says what is.
    """
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(
            f"could not read the moment '{text}': write 2026-11-21 or 2026-11-21T14:30:00"
        ) from exc
    zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
    return max(-_LARGEST, min((zoned - _EPOCH) // timedelta(microseconds=1), _LARGEST))


def moment_text(time_us: int) -> str:
    """ISO 8601 in UTC, to the millisecond; the number itself when no calendar has it."""
    try:
        moment = _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return str(time_us)
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
