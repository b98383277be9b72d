"""Moments are read as people write them, and written back."""

import pytest

from services.moments import moment_text, moment_us


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 7),
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2255-06-05T23:47:34.740990", (1 << 53) - 2),
        ("2255-06-05T23:47:34.740992", (1 << 53) - 1),  # no record can be later
        ("9999-12-31", (1 << 53) - 1),
        ("0001-01-01T00:00:00+14:00", 1 - (1 << 53)),
    ],
)
def test_a_moment_without_a_zone_is_utc(text: str, found: int) -> None:
    assert moment_us(text, default=7) == found


def test_what_is_no_moment_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="2026-11-21T14:30:00"):
        moment_us("yesterday", default=0)


def test_a_moment_beyond_every_calendar_is_shown_as_its_number() -> None:
    assert moment_text(1_500) == "1970-01-01 00:00:00.001"
    assert moment_text(2**62) == str(2**62)
