"""gRPC tensors: the quick way and the plain way read the same, and write the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import InputInvalid
from runners.tensor import DTYPES, format_raw, parse_raw
from services.faults import BadRequest
from services.layouts import Layouts
from services.messages import read_inputs
from services.oip import Envelope, message

Request = message("ModelInferRequest")
_RAW = st.sampled_from(sorted(DTYPES))
_SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Names, datatypes, shapes and raw values that fit together."""
    found = []
    for name in draw(st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)):
        datatype, shape = draw(_RAW), draw(_SHAPES)
        count = int(np.prod(shape, dtype=int))
        if datatype == "BYTES":
            held = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
            values = np.empty(count, dtype=object)
            values[:] = held
            raw = format_raw(values)
        else:
            size = count * DTYPES[datatype].itemsize
            raw = draw(st.binary(min_size=size, max_size=size))
        found.append((name, datatype, shape, raw))
    return found


def infer(given: list[tuple[str, str, tuple[int, ...], bytes]], **head: Any) -> Any:
    request = Request(model_name="m", **head)
    for name, datatype, shape, raw in given:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return request


@given(tensors(), st.text(max_size=5))
def test_what_is_remembered_reads_as_what_is_parsed(held: Any, request_id: str) -> None:
    data = infer(held, id=request_id).SerializeToString()
    for _ in range(2):  # the second time, the layouts are known
        envelope = Envelope.FromString(data)
        found = read_inputs(envelope)
        assert envelope.id == request_id
        assert list(found) == [name for name, *_ in held]
        for name, datatype, shape, raw in held:
            tensor, plain = found[name], parse_raw(raw, datatype, shape, name)
            assert (tensor.name, tensor.datatype) == (name, datatype)
            assert (tensor.data.dtype, tensor.data.shape) == (plain.dtype, plain.shape)
            assert format_raw(tensor.data) == raw


@given(tensors(), st.binary(max_size=12), st.data())
def test_other_values_under_known_layouts_are_read_or_refused_as_ever(
    held: Any, other: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(held) - 1))
    read_inputs(Envelope.FromString(infer(held).SerializeToString()))
    name, datatype, shape, _ = held[place]
    held[place] = (name, datatype, shape, other)
    envelope = Envelope.FromString(infer(held).SerializeToString())
    try:
        plain = parse_raw(other, datatype, shape, name)
    except InputInvalid:
        with pytest.raises(BadRequest, match="input"):
            read_inputs(envelope)
    else:
        assert format_raw(read_inputs(envelope)[name].data) == format_raw(plain)


def test_a_value_that_was_read_cannot_be_written() -> None:
    request = infer([("x", "FP32", (1,), b"\0" * 4)])
    found = read_inputs(Envelope.FromString(request.SerializeToString()))
    with pytest.raises(ValueError, match="read-only"):
        found["x"].data[0] = 1


def test_typed_contents_are_never_remembered() -> None:
    for value in (1, 2):
        request = Request()
        tensor = request.inputs.add(name="x", datatype="INT32", shape=[1])
        tensor.contents.int_contents.append(value)
        found = read_inputs(Envelope.FromString(request.SerializeToString()))
        assert found["x"].data.tolist() == [value]


def broken(*inputs: bytes, raw: int = 0) -> Any:
    return Envelope(inputs=inputs, raw_input_contents=[b"\0" * 4] * raw)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([b"\xff"], "not an inference.ModelInferRequest"),
        ([b"\x0a\x01\xff"], "not an inference.ModelInferRequest"),  # a name that is not UTF-8
        ([b"\x0a\x01x\x12\x04FP99\x1a\x01\x01"], "unknown datatype"),
        ([b"\x0a\x01x\x12\x04FP32\x1a\x01\x01"] * 2, "stands twice"),
        ([], "no inputs"),
    ],
)
def test_inputs_that_are_none_are_refused_and_not_remembered(
    inputs: list[bytes], said: str, *, raw: bool
) -> None:
    for _ in range(2):
        with pytest.raises(BadRequest, match=said):
            read_inputs(broken(*inputs, raw=len(inputs) * raw))


def test_typed_contents_beside_raw_ones_are_refused_each_time() -> None:
    request = infer([("x", "INT32", (1,), b"\0" * 4)])
    request.inputs[0].contents.int_contents.append(1)
    for _ in range(2):
        with pytest.raises(BadRequest, match="beside raw_input_contents"):
            read_inputs(Envelope.FromString(request.SerializeToString()))


def test_what_is_remembered_is_bounded() -> None:
    layouts = Layouts()

    def held() -> int:
        return len(layouts._held)

    for number in range(2000):
        tensor = message("ModelInferRequest.InferInputTensor")(name=f"x{number}", datatype="FP32")
        layouts.read((tensor.SerializeToString(),))
        assert held() <= 256
    before = held()
    more = message("ModelInferRequest.InferInputTensor")(name="x", datatype="FP32")
    more.parameters["who"].string_param = "alice"
    unknown = b"\x0a\x01x\x12\x04FP32" + b"\x7a\x05alice"  # field 15 is none of the protocol's
    for other in (more.SerializeToString(), unknown):
        layouts.read((other,))
        assert held() == before
    long = message("ModelInferRequest.InferInputTensor")(name="x" * 5000, datatype="FP32")
    layouts.read((long.SerializeToString(),))
    assert held() == before
