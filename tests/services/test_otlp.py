"""The bytes of traces, parsed by opentelemetry-proto, against the SDK's own encoder."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.otlp import Envelope, event_of, spans_of
from services.otlptraces import open_otlp
from services.sdktraces import SdkTraces
from services.spans import Mark, Span, SpanKind, TraceIds

RESOURCE = Resource({"service.name": "weighbridge-gateway", "n": 3, "on": True}, "https://x/1")
SPAN_ID = 0xABCDEF
ids64 = st.integers(1, (1 << 64) - 1)
times = st.integers(1, (1 << 63) - 1)
values = st.one_of(
    st.text(max_size=200),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=5), max_size=4),
)
attributes = st.dictionaries(st.text(min_size=1, max_size=40), values, max_size=5)
marks = st.builds(
    Mark, st.text(max_size=30), times, times, attributes, st.one_of(st.just(0), ids64)
)
traces = st.tuples(
    st.builds(
        TraceIds,
        st.integers(1, (1 << 128) - 1),
        ids64,
        st.one_of(st.just(0), ids64),
        st.just(True),
        st.sampled_from(["", "a=1", "a=1,b=2"]),
    ),
    st.builds(
        Span,
        name=st.text(max_size=300),
        kind=st.sampled_from(list(SpanKind)),
        start_ns=times,
        end_ns=times,
        attributes=attributes,
        marks=st.lists(marks, max_size=4),
        flag=st.one_of(
            st.none(), st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=4)
        ),
        error=st.sampled_from(["", "ValueError"]),
    ),
)


@settings(max_examples=60)
@given(st.lists(traces, min_size=1, max_size=3))
def test_a_collector_reads_what_the_sdk_would_have_sent(given_traces):
    spans, logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
    sdk = SdkTraces(RESOURCE, (spans, logs), lambda _: SPAN_ID)
    for ids, span in given_traces:
        sdk.add(ids, span)
    sdk.flush(1000)
    wanted = encode_spans(spans.get_finished_spans())
    wanted_logs = encode_logs(logs.get_finished_logs())
    sdk.close()

    envelope = Envelope(RESOURCE, "weighbridge")
    drawn = [SPAN_ID] * 4
    ours = ExportTraceServiceRequest.FromString(
        envelope.around(spans_of(ids, span, drawn) for ids, span in given_traces)
    )
    for message in (*wanted.resource_spans, *ours.resource_spans):
        for scoped in message.scope_spans:
            for one in scoped.spans:  # the SDK writes a status that says nothing
                if not one.status.code:
                    one.ClearField("status")
    assert ours == wanted

    events = [event for ids, span in given_traces if (event := event_of(ids, span))]
    if events:
        ours_logs = ExportLogsServiceRequest.FromString(envelope.around(events))
        for message in (*wanted_logs.resource_logs, *ours_logs.resource_logs):
            for record in message.scope_logs[0].log_records:
                record.ClearField("observed_time_unix_nano")  # the SDK asks its own clock
                record.ClearField("body")  # and writes one that says nothing
        assert ours_logs == wanted_logs


def test_exporters_of_another_making_are_left_to_the_sdk():
    assert open_otlp(RESOURCE, (InMemorySpanExporter(), InMemoryLogRecordExporter()), int) is None


def test_a_batch_is_sent_whole_and_a_refusal_is_told():
    sent = []

    class Exporter:
        def __init__(self, name, *, fails=False):
            self._client = SimpleNamespace(export=self._export)
            self.name, self.fails = name, fails

        def _export(self, data):
            sent.append((self.name, data))
            return SimpleNamespace(success=not self.fails)

        def shutdown(self):
            sent.append((self.name, b"shutdown"))

    found = open_otlp(RESOURCE, (Exporter("spans"), Exporter("events", fails=True)), lambda _: 7)
    for number in (1, 2, 3):
        span = Span("x", SpanKind.SERVER, 1, flag={"a": "b"} if number == 2 else None)
        found.add(TraceIds(number, number, 0, sampled=True, state=""), span)
    found.flush(1000)
    (name, data), (events, logs) = sent
    assert (name, events) == ("spans", "events")
    scoped = ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0]
    assert [int.from_bytes(span.span_id, "big") for span in scoped.spans] == [1, 2, 3]
    assert len(ExportLogsServiceRequest.FromString(logs).resource_logs[0].scope_logs) == 1
    found.close()
    found.close()
    assert sent[2:] == [("spans", b"shutdown"), ("events", b"shutdown")]
