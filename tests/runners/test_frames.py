"""Frames of the data socket: what goes in comes out, however the bytes arrive."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runners.errors import ModelFailed
from runners.frames import (
    Ask,
    Frame,
    Splitter,
    Told,
    format_frame,
    parse_arrays,
    parse_head,
)
from runners.tensor import DTYPES

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [dtype for name, dtype in DTYPES.items() if name not in ("BYTES", "BF16")]


def texts(shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape))
    listed = st.lists(st.binary(max_size=5), min_size=size, max_size=size)
    return listed.map(lambda values: as_objects(values, shape))


def as_objects(values: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found.reshape(shape)


TENSORS = st.one_of(
    st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
    SHAPES.flatmap(texts),
)
BATCHES = st.dictionaries(st.text(max_size=4), TENSORS, max_size=4)


def whole(data: bytes) -> Frame:
    (frame,) = Splitter().feed(data)
    return frame


def assert_alike(found: dict[str, np.ndarray], sent: dict[str, np.ndarray]) -> None:
    assert list(found) == list(sent)
    for name, data in sent.items():
        assert (found[name].shape, found[name].dtype) == (data.shape, data.dtype)
        assert found[name].tolist() == data.tolist() or found[name].tobytes() == data.tobytes()


@given(BATCHES)
def test_a_frame_is_read_as_it_was_written(batch) -> None:
    frame = whole(format_frame(Ask(7, "m", "1", 3, 0.5, ("a", "b")), batch))
    ask = parse_head(Ask, frame)
    assert (ask.number, ask.name, ask.version, ask.rows) == (7, "m", "1", 3)
    assert (ask.budget_s, ask.contexts) == (0.5, ("a", "b"))
    assert_alike(parse_arrays(ask, frame.body), batch)
    frame = whole(format_frame(Told(8, 0.1, 0.2, 4), batch))
    told = parse_head(Told, frame)
    assert (told.number, told.queue_s, told.infer_s, told.batch_rows) == (8, 0.1, 0.2, 4)
    assert_alike(parse_arrays(told, frame.body), batch)


@given(st.lists(BATCHES, max_size=4), st.data())
def test_frames_are_the_same_however_the_bytes_are_cut(batches, data) -> None:
    sent = b"".join(format_frame(Told(number), batch) for number, batch in enumerate(batches))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    splitter, found = Splitter(), []
    for first, last in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += splitter.feed(sent[first:last])
    heads = [parse_head(Told, frame) for frame in found]
    assert [head.number for head in heads] == list(range(len(batches)))
    for head, frame, batch in zip(heads, found, batches, strict=True):
        assert_alike(parse_arrays(head, frame.body), batch)


def test_large_tensors_not_in_order_and_bfloat16_arrive_whole() -> None:
    large = np.arange(40_000, dtype=np.float32).reshape(2, 100, 200).transpose(2, 0, 1)
    brain = np.arange(9_000).astype(DTYPES["BF16"])
    frame = whole(format_frame(Told(1), {"x": large, "b": brain}))
    found = parse_arrays(parse_head(Told, frame), frame.body)
    np.testing.assert_array_equal(found["x"], large)
    assert found["b"].dtype == brain.dtype
    assert found["b"].tobytes() == brain.tobytes()
    assert not found["x"].flags.writeable


def test_texts_of_any_numpy_type_are_bytes() -> None:
    sent = {"u": np.array(["ä", "b"]), "s": np.array([b"xy"]), "o": np.array(["z"], dtype=object)}
    frame = whole(format_frame(Told(1), sent))
    found = parse_arrays(parse_head(Told, frame), frame.body)
    assert {name: data.tolist() for name, data in found.items()} == {
        "u": ["ä".encode(), b"b"],
        "s": [b"xy"],
        "o": [b"z"],
    }


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", 3, 0) + b"\xc1\xc1\xc1",
        struct.pack("<II", 1, 0) + b"\x90",
        format_frame(Told(1, error="x"), {})[:8] + b"\x00" * 40,
    ],
)
def test_what_is_no_head_is_refused(data) -> None:
    for frame in Splitter().feed(data):
        with pytest.raises(ConnectionError):
            parse_head(Ask, frame)


def test_a_body_that_is_not_what_the_head_says_is_refused() -> None:
    frame = whole(format_frame(Told(1), {"x": np.zeros(4)}))
    with pytest.raises(ConnectionError):
        parse_arrays(parse_head(Told, frame), frame.body[:-1])


def test_a_frame_of_more_than_a_gibibyte_is_refused_on_both_sides() -> None:
    with pytest.raises(ConnectionError):
        Splitter().feed(struct.pack("<II", 1, 1 << 30))
    with pytest.raises(ModelFailed, match="1 GiB"):
        format_frame(Told(1), {"x": np.broadcast_to(np.uint8(0), (1 << 30,))})
