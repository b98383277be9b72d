"""Trace contexts: what is believed of a caller's header, and what is not."""

import time

import pytest
from opentelemetry.trace import SpanKind

from services.telemetry import Mark, Span, Telemetry

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    return Telemetry("test", enabled=False)


def test_a_valid_header_is_continued_with_a_span_of_our_own(telemetry) -> None:
    ids = telemetry.begin(VALID)
    assert f"{ids.trace_id:032x}" == VALID.split("-")[1]
    assert f"{ids.parent:016x}" == VALID.split("-")[2]
    assert ids.span_id not in (0, ids.parent)
    assert ids.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        VALID.upper(),
        "ff" + VALID[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        VALID[:-3],
        VALID + "\n",
        VALID + "-more",
        f"{VALID}, {VALID}",
        "00-" + "1" * 33 + "-b7ad6b7169203331-01",
    ],
)
def test_anything_else_starts_a_new_trace(telemetry, header) -> None:
    ids = telemetry.begin(header)
    assert ids.parent == 0
    assert ids.trace_id != 0
    assert not ids.sampled


def test_a_later_version_with_more_fields_is_understood(telemetry) -> None:
    assert telemetry.begin("01" + VALID[2:] + "-more").parent != 0


def test_without_an_exporter_nothing_is_sampled_and_finishing_costs_no_span(telemetry) -> None:
    ids = telemetry.begin(VALID)
    assert not ids.sampled
    assert ids.traceparent.endswith("-00")
    span = Span("x", SpanKind.SERVER, time.time_ns(), marks=[Mark("m", 1, 2, {})])
    telemetry.finish(ids, span)
    telemetry.close()


def test_the_standard_sampler_variable_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    telemetry = Telemetry("test", enabled=False)
    telemetry.enabled = True
    count = sum(telemetry.begin(None).sampled for _ in range(4000))
    assert 800 < count < 1200, "a quarter, within eleven standard deviations"
    assert telemetry.begin(VALID).sampled, "the caller's decision holds"
    telemetry.enabled = False
    telemetry.close()


@pytest.mark.parametrize("state", ["a=1", "a=1,b@c=x y", "vendor/x*y-z_=%"])
def test_a_well_formed_state_is_kept(telemetry, state) -> None:
    assert telemetry.begin(VALID, state).state == state


@pytest.mark.parametrize(
    "state", ["", "canary", "=,=", "A=1", "a=1,,", "a=é", "a=1," * 40, "a=" + "x" * 600]
)
def test_any_other_state_is_dropped_before_a_library_logs_it(telemetry, state, caplog) -> None:
    assert telemetry.begin(VALID, state).state == ""
    assert not caplog.records
