"""The HTTP codec: every value survives or is refused; nothing is bent on the way."""

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.tensor import DTYPES, Signature, TensorSpec
from services import codec, shortcuts
from services.codec import decode, encode
from services.faults import BadRequest
from services.values import to_array

ONE_INPUT = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))


def body(**inputs: object) -> bytes:
    item = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **inputs}
    return orjson.dumps({"inputs": [item]})


def test_flat_and_nested_data_are_the_same() -> None:
    flat = decode(body(shape=[2, 2], data=[1, 2, 3, 4]), None, ONE_INPUT)
    nested = decode(body(shape=[2, 2], data=[[1, 2], [3, 4]]), None, ONE_INPUT)
    assert np.array_equal(flat.inputs["x"].data, nested.inputs["x"].data)
    assert flat.inputs["x"].data.dtype == np.float32


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT8", [128]),
        ("INT64", [2**63]),
        ("UINT64", [-1]),
        ("INT32", [1.5]),
        ("INT32", ["1"]),
        ("INT32", [None]),
        ("BOOL", [1]),
        ("FP32", [1e39]),
        ("FP32", ["nan"]),
        ("FP64", [True, "x"]),
        ("BYTES", [1]),
        ("BYTES", [["a"]] * 0 + [{"a": 1}]),
        ("FP16", [1.0]),
        ("INT32", [[1], [2, 3]]),
        ("INT32", {"a": 1}),
        ("INT32", 5),
    ],
)
def test_a_value_that_does_not_fit_is_refused(datatype: str, values: object) -> None:
    shape = (len(values),) if isinstance(values, list) else (1,)
    with pytest.raises(BadRequest, match="input 'x'"):
        to_array(values, datatype, shape, "x")


@given(st.sampled_from([n for n in DTYPES if n[0] in "IU"]), st.integers(-(2**65), 2**65))
def test_an_integer_is_kept_or_refused_never_wrapped(datatype: str, value: int) -> None:
    limits = np.iinfo(DTYPES[datatype])
    try:
        found = to_array([value], datatype, (1,), "x")
    except BadRequest:
        assert not limits.min <= value <= limits.max
    else:
        assert found.tolist() == [value]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_survives_json(value: float) -> None:
    decoded = decode(
        orjson.dumps(
            {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}]}
        ),
        None,
        None,
    )
    assert decoded.inputs["x"].data[0] == value


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5))
def test_texts_survive_both_ways(values: list[str]) -> None:
    array = to_array(values, "BYTES", (len(values),), "x")
    spec = (TensorSpec("x", "BYTES", (-1,)),)
    text, size = encode({}, spec, {"x": array}, binary={}, binary_default=False)
    assert size is None
    assert json.loads(text)["outputs"][0]["data"] == values


def mixed(json_part: bytes, *tails: bytes) -> tuple[bytes, str]:
    return json_part + b"".join(tails), str(len(json_part))


def binary_body(size: int, tail: bytes) -> tuple[bytes, str]:
    item = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
    head = orjson.dumps({"inputs": [item | {"parameters": {"binary_data_size": size}}]})
    return mixed(head, tail)


def test_binary_and_json_tensors_mix_in_one_message() -> None:
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "a",
                    "datatype": "INT16",
                    "shape": [2],
                    "parameters": {"binary_data_size": 4},
                },
                {"name": "b", "datatype": "BOOL", "shape": [1], "data": [True]},
                {
                    "name": "c",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": 6},
                },
            ]
        }
    )
    message, size = mixed(head, b"\x01\x00\xff\xff", b"\x02\x00\x00\x00hi")
    found = decode(message, size, None).inputs
    assert found["a"].data.tolist() == [1, -1]
    assert found["b"].data.tolist() == [True]
    assert found["c"].data.tolist() == [b"hi"]


@pytest.mark.parametrize(
    ("size", "tail", "header"),
    [
        (8, b"\0" * 7, None),
        (8, b"\0" * 9, None),
        (7, b"\0" * 7, None),
        (10**9, b"\0" * 8, None),
        (-1, b"", None),
        (8, b"\0" * 8, "-1"),
        (8, b"\0" * 8, "9" * 4000),
        (8, b"\0" * 8, "abc"),
        (8, b"\0" * 8, "²"),
        (8, b"\0" * 8, "1"),
        (8, b"\0" * 8, ""),
    ],
)
def test_a_binary_message_whose_sizes_lie_is_refused(size, tail, header) -> None:
    message, honest = binary_body(size, tail)
    with pytest.raises(BadRequest):
        decode(message, honest if header is None else header, ONE_INPUT)


@st.composite
def binary_messages(draw: st.DrawFn) -> tuple[bytes, str]:
    """A message of binary tensors as callers write them, with a fault in most."""
    items, tail = [], b""
    for name in draw(st.lists(st.sampled_from(["x", "y", "z", ""]), max_size=3)):
        datatype = draw(st.sampled_from(["FP32", "UINT8", "INT64", "BF16", "BYTES", "FP99"]))
        shape = draw(st.lists(st.integers(-1, 3), max_size=3))
        width = {"FP32": 4, "UINT8": 1, "INT64": 8, "BF16": 2}.get(datatype, 4)
        size = math.prod(shape) * width + draw(st.sampled_from([0, 0, 0, 1, -1]))
        parameters = draw(
            st.sampled_from(
                [{"binary_data_size": size}] * 4
                + [{"binary_data_size": size, "more": 1}, {"binary_data_size": True}, {}, None]
            )
        )
        item = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
        items.append(item | draw(st.sampled_from([{}, {}, {}, {"data": None}, {"data": [1]}])))
        tail += draw(st.binary(min_size=max(size, 0), max_size=max(size, 0)))
    head = {"inputs": items} | draw(
        st.sampled_from(
            [
                {},
                {"id": "7"},
                {"id": 7},
                {"id": None, "more": [1]},
                {"parameters": {"binary_data_output": True, "a": 1.5}},
                {"parameters": {"a": [1]}},
                {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
                {"outputs": [{}]},
            ]
        )
    )
    return mixed(orjson.dumps(head), tail + draw(st.sampled_from([b"", b"", b"", b"\0"])))


@given(binary_messages())
def test_the_short_way_reads_binary_messages_as_the_rules_do(sent: tuple[bytes, str]) -> None:
    def read() -> object:
        try:
            found = decode(*sent, None)
        except BadRequest as exc:
            return str(exc)
        held = [(n, t.datatype, t.data.shape, t.data.tobytes()) for n, t in found.inputs.items()]
        return found._replace(inputs={}), held

    quick = read()
    assert quick == read()  # now it may be remembered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "read_binary", lambda *_: None)
        assert quick == read()


def test_nothing_of_one_call_is_remembered_for_the_next() -> None:
    def sent(**more: object) -> tuple[bytes, str]:
        item = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
        item["parameters"] = {"binary_data_size": 8}
        return mixed(orjson.dumps({"inputs": [item], **more}), b"\0" * 8)

    def held() -> int:
        return len(shortcuts._forms)

    shortcuts._forms.clear()
    decode(*sent(id="7"), None)
    decode(*sent(parameters={"weighbridge_unit": "alice"}), None)
    assert held() == 0
    first = decode(*sent(parameters={"binary_data_output": True}), None)
    assert held() == 1
    first.parameters["weighbridge_unit"] = "alice"
    first.inputs.clear()
    second = decode(*sent(parameters={"binary_data_output": True}), None)
    assert second.parameters == {"binary_data_output": True}
    assert second.inputs["x"].data.tolist() == [[0, 0]]
    for number in range(2000):
        decode(*sent(outputs=[{"name": f"y{number}"}]), None)
        assert held() <= 256


def test_header_zero_is_one_raw_tensor() -> None:
    found = decode(np.arange(6, dtype="<f4").tobytes(), "0", ONE_INPUT)
    assert found.inputs["x"].data.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found.binary_default
    for wrong in (b"", b"\0" * 7):
        with pytest.raises(BadRequest):
            decode(wrong, "0", ONE_INPUT)


def test_a_raw_body_of_text_keeps_its_last_zero_byte() -> None:
    text = Signature((TensorSpec("t", "BYTES", (-1, 1)),), ())
    assert decode(b"ab\0", "0", text).inputs["t"].data.tolist() == [[b"ab\0"]]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [1]}',
        b'{"inputs": [{"name": "x"}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP99", "shape": [1], "data": [1]}]}',
        body(shape=[1, -2]),
        body(shape=[1.5]),
        body(shape=[True]),
        body(shape="1"),
        body(shape=[2**40, 2**40]),
        body(shape=[1] * 40),
        body(data=[1, 2, 3]),
        body(data=[]),
        body(parameters=[1]),
        body(parameters={"a": [1]}),
        body(name=""),
        body(name=None),
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1e999]}]}',
        b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"inputs": [{"name":"x","datatype":"FP32","shape":[1],"data":'
        + b"[" * 100
        + b"1"
        + b"]" * 100
        + b"}]}",
        orjson.dumps({"id": 5, "inputs": []}),
        orjson.dumps({"inputs": json.loads(body())["inputs"] * 2}),
        orjson.dumps({"inputs": json.loads(body())["inputs"], "outputs": [{}]}),
        orjson.dumps({"inputs": json.loads(body())["inputs"], "outputs": {"name": "y"}}),
        orjson.dumps({"inputs": json.loads(body())["inputs"], "id": "x" * 257}),
    ],
)
def test_a_malformed_message_is_a_clear_refusal(message: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(message, None, ONE_INPUT)
    assert 5 < len(str(refused.value)) < 400


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=6)))
def test_no_bytes_whatever_raise_anything_but_a_refusal(message: bytes, header: str | None) -> None:
    try:
        decode(message, header, ONE_INPUT)
    except BadRequest:
        return


def test_outputs_choose_binary_or_json_one_by_one() -> None:
    specs = (TensorSpec("y", "FP32", (-1,)), TensorSpec("n", "INT64", (-1,)))
    outputs = {"y": np.array([0.1], np.float32), "n": np.array([7])}
    whole, size = encode({"id": "1"}, specs, outputs, binary={"y": True}, binary_default=False)
    head = json.loads(whole[:size])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert head["outputs"][1]["data"] == [7]
    assert np.frombuffer(whole[size:], np.float32)[0] == np.float32(0.1)


def test_a_float_is_written_as_the_shortest_text_that_reads_back() -> None:
    specs = (TensorSpec("y", "FP32", (-1,)),)
    values = np.array([0.1, math.pi, 1e-30], np.float32)
    text, _ = encode({}, specs, {"y": values}, binary={}, binary_default=False)
    assert np.array(json.loads(text)["outputs"][0]["data"], np.float32).tolist() == values.tolist()
