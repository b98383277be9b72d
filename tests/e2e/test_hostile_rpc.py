"""Odd and hostile gRPC, V1, native and outcome calls: clear refusals, nothing leaks, no hole."""

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import wire
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

LOW, HIGH = -(2**63), 2**63 - 1
UNIT = ("x-weighbridge-unit", wire.CANARY)


def ask(
    shape: tuple[int, ...] = (1, 1),
    *,
    model: str = "sentiment",
    name: str = "text",
    datatype: str = "BYTES",
    raw: list[bytes] | None = None,
    **contents: list[Any],
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    request.raw_input_contents.extend(raw or [])
    return request


GOOD = ask(bytes_contents=[b"fine"])


@pytest.fixture
def channel(each_engine) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(
        each_engine.grpc, options=[("grpc.max_send_message_length", -1)]
    ) as c:
        yield c


@pytest.fixture
def stub(channel) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    found = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    yield found
    assert found.ModelInfer(GOOD, timeout=20).model_name == "sentiment"


def refused(call: Any, request: Any, *metadata: tuple[str, str]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as found:
        call(request, metadata=[UNIT, *metadata], timeout=20)
    details = found.value.details() or ""
    assert wire.CANARY not in details
    assert "class" not in details
    return found.value


def with_twice(request: pb.ModelInferRequest, field: str, name: str) -> pb.ModelInferRequest:
    for _ in range(2):
        getattr(request, field).add(name=name)
    return request


SHAPES = [
    (-1, 1),
    (2**62, 4),
    (2**32, 2**32),
    (0, 1),
    (0, 2**40, 2**40),
    (0, 2**62),
    (2**63 - 1, 1),
    (1,) * 40,
    (),
    (2, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_is_not_what_was_sent_is_refused(stub, shape) -> None:
    for request in (
        ask(shape),
        ask(shape, raw=[b""]),
        ask(shape, datatype="INT64"),
        ask(shape, datatype="FP32", raw=[b""]),
        ask(shape, bytes_contents=[wire.CANARY.encode()]),
    ):
        assert refused(stub.ModelInfer, request).code() is grpc.StatusCode.INVALID_ARGUMENT


TEXT = [wire.CANARY.encode()]


@pytest.mark.parametrize(
    "request_",
    [
        ask(raw=[b"\4\0\0\0fine"], bytes_contents=TEXT),
        ask(raw=[b"\4\0\0\0fine", b""]),
        ask(raw=[b"\4\0\0\0fin"]),
        ask(datatype="", bytes_contents=TEXT),
        ask(datatype="X" * 100_000, bytes_contents=TEXT),
        ask(datatype="INT64", int_contents=[1]),
        ask(bytes_contents=TEXT, int_contents=[1]),
        ask(datatype="INT8", int_contents=[300]),
        ask(datatype="FP16", fp32_contents=[1.0]),
        ask(bytes_contents=[b"\xff\xfe" + wire.CANARY.encode()]),
        ask(name="n" * 100_000, bytes_contents=TEXT),
        ask(name="é\n\0", bytes_contents=TEXT),
        with_twice(ask(bytes_contents=TEXT), "inputs", "x"),
        with_twice(ask(bytes_contents=TEXT), "outputs", "label"),
        with_twice(ask(bytes_contents=TEXT), "outputs", "o" * 100_000),
        pb.ModelInferRequest(model_name="sentiment"),
        pb.ModelInferRequest(model_name="sentiment", id="i" * 100_000),
    ],
)
def test_an_odd_message_is_an_invalid_argument(stub, request_) -> None:
    error = refused(stub.ModelInfer, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert 5 < len(error.details()) < 600


def test_unknown_names_are_not_found_however_long(stub) -> None:
    for model in ("", "nothing", "m" * 100_000, "../../etc", "a:b/c\0"):
        assert refused(stub.ModelInfer, ask(model=model)).code() is not grpc.StatusCode.INTERNAL
        for call, request in (
            (stub.ModelMetadata, pb.ModelMetadataRequest(name=model)),
            (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=model)),
            (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name=model)),
        ):
            assert refused(call, request).code() is grpc.StatusCode.NOT_FOUND
    long = ask(bytes_contents=[b"x"])
    long.model_version = "9" * 100_000
    assert refused(stub.ModelInfer, long).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "RepositoryModelLoad"])
def test_bytes_that_are_no_message_are_an_invalid_argument(channel, stub, method) -> None:
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"):
        assert refused(call, data).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_methods_that_are_not_served_say_so(stub) -> None:
    for call, request in (
        (stub.LogSettings, pb.LogSettingsRequest()),
        (stub.TraceSetting, pb.TraceSettingRequest()),
        (stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
    ):
        assert refused(call, request).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x-weighbridge-timeout-ms", "000000001" + "9" * 400),
        ("x-weighbridge-attributes", "[1]"),
        ("x-weighbridge-unit", "again"),
    ],
)
def test_odd_metadata_is_refused(stub, key, value) -> None:
    assert refused(stub.ModelInfer, GOOD, (key, value)).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_too_large_message_and_a_short_deadline_are_statuses(stub) -> None:
    huge = ask(raw=[b"\0" * (65 << 20)])
    assert refused(stub.ModelInfer, huge).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as late:
        stub.ModelInfer(ask((2000, 1), bytes_contents=[b"x"] * 2000), timeout=0.001)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_stream_survives_bytes_that_are_no_message(channel, stub) -> None:
    sent = [b"\xff\xff", GOOD.SerializeToString(), ask((2**32, 2**32)).SerializeToString()]
    method = "/inference.GRPCInferenceService/ModelStreamInfer"
    found = [
        pb.ModelStreamInferResponse.FromString(data)
        for data in channel.stream_stream(method)(iter(sent), timeout=20)
    ]
    assert [bool(message.error_message) for message in found] == [True, False, True]
    assert found[1].infer_response.model_name == "sentiment"


def predict(gateway, model: str, instances: Any, verb: str = "predict", **headers: str) -> Any:
    url = f"{gateway.http}/v1/models/{model}:{verb}"
    sent = {UNIT[0]: UNIT[1]} | headers
    return httpx.post(url, json={"instances": instances}, headers=sent, timeout=60)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"age": LOW, "capital_gain": HIGH}, 200),
        ({"workclass": wire.CANARY * 99, "sex": "", "race": "\u0000"}, 200),
        ({"age": 2**63}, 400),
        ({"age": 1.5}, 400),
        ({"age": None}, 400),
        ({"age": True}, 400),
        ({"age": wire.CANARY}, 400),
        ({"age": [1, 2]}, 400),
        ({"sex": 5}, 400),
        ({"unknown": 5}, 400),
    ],
)
def test_an_odd_row_is_served_as_unknown_or_refused(gateway, income, change, status) -> None:
    reply = predict(gateway, "income", [income | change])
    assert reply.status_code == status, reply.text
    assert wire.CANARY not in reply.text
    explained = predict(gateway, "income", [income | change], "explain")
    assert explained.status_code == status


def test_attributes_are_counted_and_stand_nowhere_in_clear(gateway, income) -> None:
    attributes = f'{{"sex": "{wire.CANARY}", "race": "{wire.CANARY}", "other": "{wire.CANARY}"}}'
    reply = predict(gateway, "income", [income], **{"x-weighbridge-attributes": attributes})
    assert reply.status_code == 200
    assert wire.CANARY not in reply.text + str(reply.headers)


def test_mixed_booleans_are_no_numbers(gateway, income) -> None:
    assert predict(gateway, "income", [income, income | {"age": True}]).status_code == 400


@pytest.mark.parametrize(
    "instances", [[], None, 5, {"a": 1}, [5], [None], [[]], [{}], [[[1]]], [True], [{"image": 5}]]
)
def test_instances_of_a_wrong_form_are_refused(gateway, instances) -> None:
    for verb in ("predict", "explain"):
        reply = predict(gateway, "digits", instances, verb)
        assert reply.status_code == 400
        assert set(reply.json()) == {"error"}


def test_the_column_form_and_two_rows_to_explain_are_refused_with_a_reason(gateway) -> None:
    url = f"{gateway.http}/v1/models/sentiment"
    columns = httpx.post(f"{url}:predict", json={"inputs": {"text": ["a"]}})
    assert (columns.status_code, "instances" in columns.json()["error"]) == (400, True)
    assert "one instance" in predict(gateway, "sentiment", ["a", "b"], "explain").json()["error"]


def test_ten_thousand_rows_are_answered_one_by_one(gateway, income) -> None:
    reply = predict(gateway, "income", [income, income | {"age": 60}] * 5000)
    found = reply.json()["predictions"]
    assert len(found) == 10_000
    assert found[::2] == [found[0]] * 5000
    assert found[1::2] == [found[1]] * 5000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/cnn", {"image": [["a"]]}),
        ("/cnn", {"image": [[[[1.5]] * 28] * 28]}),
        ("/cnn", {"image": [[[[None]] * 28] * 28]}),
        ("/lstm", {"text": [5, {wire.CANARY: 1}]}),
        ("/lstm", {"text": [wire.CANARY], "unit": "u" * 2000}),
        ("/dnn", {"rows": [wire.CANARY]}),
        ("/dnn", {"rows": [{wire.CANARY: 1}]}),
    ],
)
def test_native_calls_are_refused_without_a_trace_of_the_input(gateway, path, body) -> None:
    before = len(gateway.output())
    assert httpx.post(f"{gateway.http}{path}", json=body).status_code == 400
    assert wire.CANARY not in gateway.output()[before:]
    assert "Traceback" not in gateway.output()[before:]


OUTCOME = {"event_id": "odd", "metric": "m", "unit": wire.CANARY, "value": 1}


@pytest.mark.parametrize(
    "body",
    [
        b'{"event_id":"a","metric":"m","unit":"u","value":NaN}',
        b'{"event_id":"a","metric":"m","unit":"u","value":1e400}',
        OUTCOME | {"value": "1"},
        OUTCOME | {"value": 10**18},
        OUTCOME | {"observed_us": True},
        OUTCOME | {"observed_us": -1},
        OUTCOME | {"decision": wire.CANARY},
        OUTCOME | {"event_id": "e" * 10_000},
        {"outcomes": [OUTCOME] * 10_001},
        {"outcomes": None},
        [OUTCOME],
    ],
)
def test_odd_outcomes_are_refused(gateway, body) -> None:
    url = f"{gateway.http}/v1/outcomes"
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    reply = httpx.post(url, timeout=30, **sent)
    assert reply.status_code == 400
    assert wire.CANARY not in reply.text


def test_the_same_outcome_twice_in_one_call_is_one_record(gateway) -> None:
    same = OUTCOME | {"event_id": "été", "observed_us": 5}
    reply = httpx.post(f"{gateway.http}/v1/outcomes", json={"outcomes": [same] * 3}).json()
    assert (reply["recorded"], reply["repeated"], len(set(reply["leaves"]))) == (1, 2, 1)
    differ = [OUTCOME | {"event_id": "two", "value": value} for value in (0, 1)]
    assert httpx.post(f"{gateway.http}/v1/outcomes", json={"outcomes": differ}).status_code == 409


def test_nothing_that_was_sent_is_in_the_log_and_no_number_is_missing(gateway) -> None:
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    kept = [path for path in (gateway.home / "log").rglob("*") if path.is_file()]
    assert not [path.name for path in kept if wire.CANARY.encode() in path.read_bytes()]
    assert wire.CANARY not in gateway.output()
