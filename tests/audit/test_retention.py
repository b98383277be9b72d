"""Floors and ceilings: what is read from the setting, and what it says of each kind of record."""

import pytest

from audit.retention import FOREVER, KEEP, Span, parse_retention
from services.settings import Settings

DAY = 86_400 * 1_000_000


def test_models_differ_from_the_default() -> None:
    found = parse_retention(" 180d..400d , income = 10y.. ,digits=0s..30d")
    assert found.default == Span(180 * DAY, 400 * DAY)
    assert found.of({"model": "income"}) == ("income", Span(3650 * DAY, FOREVER))
    assert found.of({"model": "digits"})[1] == Span(0, 30 * DAY)
    assert found.of({"model": "other"})[1] == found.default
    assert found.of({"type": "access"}) == ("records of no model", found.default)
    # An outcome's model is known to the index only: it outlasts the longest floor.
    assert found.of({"decision": "x"})[1] == Span(3650 * DAY, 400 * DAY)
    assert (found.longest_us, found.shortest_ceiling_us) == (3650 * DAY, 30 * DAY)


def test_what_is_not_said_is_kept_for_ever() -> None:
    assert parse_retention("").default == KEEP
    assert not parse_retention("").any
    only = parse_retention("income=1d..2d")
    assert only.of({"model": "digits"})[1] == KEEP
    assert only.any


@pytest.mark.parametrize(
    "text",
    ["180", "180d", "..", "1x..", "income=", "=1d..2d", "1d..2d,3d..4d", "a=1d..,a=2d..", "2d..1d"],
)
def test_another_form_stops_the_start(text) -> None:
    with pytest.raises(ValueError, match=r"FLOOR\.\.CEILING"):
        Settings(retention=text)
