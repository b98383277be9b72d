"""The protocol page line by line, in bytes: what no client of the other tests happens to send."""

import json
import struct
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import wire
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

INFER = "/v2/models/income/infer"
TEXT = "/v2/models/sentiment/infer"
ALICE = b"x-weighbridge-unit: alice"


def post(gateway, path: str, body: bytes, *headers: bytes) -> wire.Answer:
    return wire.send(gateway.http_port, wire.request("POST", path, body, ALICE, *headers))


def tensors(income: dict[str, Any], binary: set[str]) -> tuple[bytes, int]:
    """One row of the income model; the inputs named in `binary` follow the JSON as bytes."""
    items, tail = [], b""
    for name, value in income.items():
        kind = "BYTES" if isinstance(value, str) else "INT64"
        item: dict[str, Any] = {"name": name, "datatype": kind, "shape": [1, 1]}
        if name in binary:
            if kind == "BYTES":
                raw = serialize_byte_tensor(np.array([value], dtype=object)).item()
            else:
                raw = struct.pack("<q", value)
            item["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            item["data"] = [[value]]
        items.append(item)
    head = json.dumps({"inputs": items}).encode()
    return head + tail, len(head)


def test_binary_and_json_tensors_may_be_mixed_in_both_directions(gateway, income) -> None:
    plain, size = tensors(income, set())
    expected = json.loads(post(gateway, INFER, plain).body)["outputs"]
    names = list(income)
    for binary in (set(names), set(names[::2]), set(names[1::2]), {names[-1]}):
        body, size = tensors(income, binary)
        length = b"inference-header-content-length: %d" % size
        answer = post(gateway, INFER, body, length)
        assert answer.status == 200, answer
        assert json.loads(answer.body)["outputs"] == expected, "JSON out, as nothing else was asked"

        whole = json.loads(body[:size])
        whole["outputs"] = [
            {"name": "label"},
            {"name": "probabilities", "parameters": {"binary_data": True}},
        ]
        head = json.dumps(whole).encode()
        length = b"inference-header-content-length: %d" % len(head)
        answer = post(gateway, INFER, head + body[size:], length)
        size = int(answer.headers["inference-header-content-length"])
        label, probabilities = json.loads(answer.body[:size])["outputs"]
        assert label["data"] == expected[1]["data"]
        assert "data" not in probabilities
        assert probabilities["parameters"]["binary_data_size"] == 8
        found = np.frombuffer(answer.body[size:], "<f4")
        assert np.allclose(found, expected[0]["data"], atol=1e-6)


def test_binary_output_may_be_asked_for_as_a_whole_and_refused_for_one(gateway, income) -> None:
    body, _ = tensors(income, set())
    whole = json.loads(body) | {
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "probabilities"},
            {"name": "label", "parameters": {"binary_data": False}},
        ],
    }
    answer = post(gateway, INFER, json.dumps(whole).encode())
    size = int(answer.headers["inference-header-content-length"])
    probabilities, label = json.loads(answer.body[:size])["outputs"]
    assert probabilities["parameters"]["binary_data_size"] == len(answer.body) - size == 8
    assert label["data"] in ([0], [1])
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "length", [b"-1", b"abc", b"1e3", b"99999999999999999999", b"4096", b"7", b"+5", b"0x10"]
)
def test_a_header_length_that_is_not_the_json_parts_is_a_400(gateway, income, length) -> None:
    body, _ = tensors(income, set())
    answer = post(gateway, INFER, body, b"inference-header-content-length: " + length)
    assert answer.status == 400
    assert 10 < len(answer.error()) < 500


def test_missing_and_extra_bytes_are_a_400(gateway, income) -> None:
    body, size = tensors(income, set(income))
    length = b"inference-header-content-length: %d" % size
    for wrong in (body[:-1], body + b"x", body[:size]):
        answer = post(gateway, INFER, wrong, length)
        assert answer.status == 400
        answer.error()


def text(**changes: Any) -> bytes:
    item = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}
    return json.dumps({"inputs": [item | changes]}).encode()


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]], [["a", "b"]]])
def test_data_may_be_flat_or_nested(gateway, data) -> None:
    answer = post(gateway, TEXT, text(data=data))
    assert json.loads(answer.body)["outputs"][0]["shape"] == [2, 3]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": ["a"]}, "2"),
        ({"data": ["a", "b", "c"]}, "2"),
        ({"data": [["a"], ["b", "c"]]}, "text"),
        ({"data": json.loads("[" * 100 + '"a"' + "]" * 100)}, "text"),
        ({"data": None}, "data"),
        ({"shape": [2]}, "shape"),
        ({"shape": [-2, 1]}, "dimension"),
        ({"shape": [2.0, 1]}, "dimension"),
        ({"shape": "2,1"}, "shape"),
        ({"datatype": "FP16", "data": [0.5, 0.5]}, "FP16"),
        ({"datatype": "BF16", "data": [0.5, 0.5]}, "BF16"),
        ({"datatype": "STRING"}, "STRING"),
        ({"datatype": "INT8", "data": [1, 300]}, "text"),
        ({"datatype": "BOOL", "data": [1, 0]}, "text"),
        ({"datatype": "UINT64", "data": [-1, 0]}, "text"),
        ({"datatype": "FP32", "data": [1e300, 0]}, "text"),
    ],
)
def test_values_that_do_not_fit_are_a_clear_400(gateway, changes, word) -> None:
    answer = post(gateway, TEXT, text(**changes))
    assert answer.status == 400
    assert word in answer.error()


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_what_json_cannot_hold_is_a_400(gateway, number) -> None:
    body = text(datatype="FP64", data=[7, 7]).replace(b"7", number)
    answer = post(gateway, TEXT, body)
    assert answer.status == 400
    answer.error()


@pytest.mark.parametrize(
    "path",
    ["/v2/trace/setting", "/v2/logging", "/v2/systemsharedmemory/status", "/v2/cudasharedmemory"],
)
def test_what_belongs_to_triton_alone_is_a_501(gateway, path) -> None:
    answer = wire.send(gateway.http_port, wire.request("GET", path))
    assert answer.status == 501
    assert "Triton" in answer.error()


@pytest.mark.parametrize("tail", ["", "/", "?x=1", "/?x=1&y"])
@pytest.mark.parametrize("path", ["/v2", "/v2/models", "/v2/models/digits", "/v2/health/ready"])
def test_a_slash_or_a_query_string_at_the_end_changes_nothing(gateway, path, tail) -> None:
    plain, odd = httpx.get(gateway.http + path), httpx.get(gateway.http + path + tail)
    assert odd.status_code == 200
    assert plain.json() == odd.json()


@pytest.mark.parametrize("coding", ["gzip, deflate, br", "br", "*"])
def test_only_infer_replies_are_compressed_and_never_with_br(gateway, coding) -> None:
    headers = {"accept-encoding": coding}
    for path in ("/v2/models/stats", "/v2/openapi.json", "/v2/models/income/config"):
        reply = httpx.get(gateway.http + path, headers=headers)
        assert "content-encoding" not in reply.headers
    many = {"name": "text", "datatype": "BYTES", "shape": [300, 1], "data": ["a"] * 300}
    reply = httpx.post(gateway.http + TEXT, json={"inputs": [many]}, headers=headers)
    assert reply.headers.get("content-encoding") in (None, "gzip", "deflate")
    assert reply.json()["outputs"][0]["shape"] == [300, 3]


def test_every_kind_of_parameter_is_read_and_none_comes_back(gateway) -> None:
    request = service_pb2.ModelInferRequest(model_name="sentiment", id="p")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(b"fine")
    request.parameters["a"].bool_param = True
    request.parameters["b"].int64_param = -5
    request.parameters["c"].string_param = wire.CANARY
    request.parameters["d"].double_param = 0.5
    request.parameters["e"].uint64_param = 2**63
    request.parameters["f"].SetInParent()
    request.parameters["weighbridge_timeout_ms"].uint64_param = 20_000
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(2):
            response = stub.ModelInfer(request)
            assert wire.CANARY not in str(response)
            assert set(response.parameters) <= {
                *("weighbridge_decision", "weighbridge_receipt", "weighbridge_arm"),
            }
            request.parameters["g"].string_param = "second"


def test_a_metadata_reply_leaves_the_disputed_field_alone(gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="digits"))
    known = {field.number for field, _ in response.ListFields()}
    assert known == {1, 2, 3, 4, 5}
