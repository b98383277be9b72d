"""Traces as a collector receives them over OTLP: from HTTP, gRPC and a runner process."""

import time

import collector as collectors
import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as tgrpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BLRP_SCHEDULE_DELAY": "100"}
ONLY_DIGITS = {"WEIGHBRIDGE_MODELS": "digits", "WEIGHBRIDGE_EXPLAINER": "false"}


def tree(spans: list[tuple[str, Span]]) -> dict[str, str]:
    """Span name -> name of its parent, '' for a parent outside."""
    names = {span.span_id: span.name for _, span in spans}
    return {span.name: names.get(span.parent_span_id, "") for _, span in spans}


@pytest.mark.parametrize("runner", ["inprocess", "service"])
def test_one_server_span_with_its_children_arrives_over_otlp(home, image, runner) -> None:
    with (
        collectors.collecting() as collector,
        servers.running(
            home,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            WEIGHBRIDGE_RUNNER=runner,
            **ONLY_DIGITS,
            **FAST,
        ) as gateway,
    ):
        expected = {
            "infer digits": "",
            "route": "infer digits",
            "infer": "infer digits",
            "append": "infer digits",
        }
        if runner == "service":
            expected |= {"run digits": "infer", "batch": "run digits"}
        for trace_id, send in ((TRACE, over_http), (TRACE[::-1], over_grpc)):
            send(gateway, image, f"00-{trace_id}-{PARENT}-01")
            spans = collector.wait(trace_id, len(expected))
            assert tree(spans) == expected
            server = next(span for _, span in spans if span.name == "infer digits")
            assert server.parent_span_id.hex() == PARENT
            assert server.kind == Span.SPAN_KIND_SERVER
            for _, span in spans:
                assert span.start_time_unix_nano <= span.end_time_unix_nano
                assert server.start_time_unix_nano <= span.start_time_unix_nano
                assert span.end_time_unix_nano <= server.end_time_unix_nano
            services = {service for service, _ in spans}
            assert "weighbridge-gateway" in services
            assert ("weighbridge-runner-cnn" in services) == (runner == "service")

        deadline = time.monotonic() + 10
        while not collector.logs and time.monotonic() < deadline:
            time.sleep(0.05)
        event = collector.logs[0]
        assert event.event_name == "feature_flag.evaluation"
        said = {a.key: a.value.string_value for a in event.attributes}
        assert said["feature_flag.key"] == "digits-ab"
        assert said["feature_flag.result.variant"] in ("control", "treatment")
        assert event.trace_id.hex() in (TRACE, TRACE[::-1])
        whole = b"".join(s.SerializeToString() for _, s in collector.spans)
        whole += b"".join(r.SerializeToString() for r in collector.logs)
        assert b"secret-person" not in whole


def over_http(gateway, image: np.ndarray, traceparent: str) -> None:
    reply = httpx.post(
        f"{gateway.http}/v1/models/digits:predict",
        json={"instances": image.tolist()},
        headers={"traceparent": traceparent, "x-weighbridge-unit": "secret-person"},
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["traceparent"].split("-")[1] == traceparent.split("-")[1]


def over_grpc(gateway, image: np.ndarray, traceparent: str) -> None:
    tensor = tgrpc.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        client.infer(
            "digits",
            [tensor],
            headers={"traceparent": traceparent, "x-weighbridge-unit": "secret-person"},
        )


def test_spans_are_flushed_at_shutdown(home, image) -> None:
    with collectors.collecting() as collector:
        with servers.running(
            home,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",
            **ONLY_DIGITS,
        ) as gateway:
            over_http(gateway, image, f"00-{TRACE}-{PARENT}-01")
            assert not collector.of_trace(TRACE)
        assert len(collector.of_trace(TRACE)) == 4


def test_nothing_is_lost_or_slow_when_no_collector_answers(home, image) -> None:
    with servers.running(
        home,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{servers.free_port()}",
        **ONLY_DIGITS,
        **FAST,
    ) as gateway:
        for _ in range(50):
            over_http(gateway, image, f"00-{TRACE}-{PARENT}-01")
        began = time.monotonic()
    assert time.monotonic() - began < 30, "shutdown waits a bounded time"
    shown = gateway.cli("audit", "verify")
    assert shown.returncode == 0, shown.stdout
    assert "50 decision" in shown.stdout


def test_an_unsampled_request_makes_no_span_but_its_ids_are_on_record(home, image) -> None:
    with collectors.collecting() as collector:
        with servers.running(
            home, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **ONLY_DIGITS
        ) as gateway:
            over_http(gateway, image, f"00-{TRACE}-{PARENT}-00")
        assert not collector.of_trace(TRACE)
