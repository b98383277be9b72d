"""What a caller says beside the tensors: precedence, bounds, and nothing repeated back."""

import time

import pytest

from services.claims import checked_unit, parse_timeout, refuse_repeated, take_claims
from services.dataplane import Request
from services.faults import BadRequest
from services.telemetry import TraceIds


def claimed(headers: dict[str, str], **parameters: object) -> Request:
    trace = TraceIds(1, 2, 0, sampled=False, state="")
    request = Request(model="m", version=None, inputs={}, origin="http", trace=trace)
    take_claims(request, headers.get, {f"weighbridge_{k}": v for k, v in parameters.items()})
    return request


def test_a_header_wins_over_a_parameter_and_the_record_says_which_it_was() -> None:
    both = claimed({"x-weighbridge-unit": "a"}, unit="b")
    assert (both.unit, both.unit_source) == ("a", "header")
    one = claimed({}, unit=5)
    assert (one.unit, one.unit_source) == ("5", "parameter")


def test_an_empty_unit_was_not_sent() -> None:
    for request in (claimed({}), claimed({"x-weighbridge-unit": ""}), claimed({}, unit="")):
        assert (request.unit, request.unit_source) == (None, "request_id")


@pytest.mark.parametrize("sent", ["a b ", "\ta b", " a b \t "])
def test_blanks_around_a_header_are_no_part_of_the_unit(sent) -> None:
    assert claimed({"x-weighbridge-unit": sent}).unit == "a b"


def test_a_unit_is_bounded_in_bytes() -> None:
    assert checked_unit("é" * 512)
    with pytest.raises(BadRequest) as refused:
        checked_unit("é" * 513)
    assert "é" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["0", "-1", "1e3", "1.5", "3600001", "9" * 5000, "00000000001", "٣", "²", " 5", "x"]
)
def test_a_timeout_that_is_no_number_of_milliseconds_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_timeout(text)


def test_a_timeout_becomes_a_deadline() -> None:
    before = time.monotonic()
    deadline = parse_timeout("3600000")
    assert deadline is not None
    assert before + 3600 <= deadline <= time.monotonic() + 3600
    assert parse_timeout(None) is None
    assert parse_timeout("") is None
    assert claimed({}, timeout_ms=250).deadline is not None


def test_only_what_decides_may_not_stand_twice() -> None:
    refuse_repeated("accept-encoding")
    for name in ("x-weighbridge-unit", "inference-header-content-length"):
        with pytest.raises(BadRequest, match="twice"):
            refuse_repeated(name)
