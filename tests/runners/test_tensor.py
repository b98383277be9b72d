"""Tensors on the wire: the inverse laws, and every refusal."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runners.errors import InputInvalid
from runners.tensor import (
    DTYPES,
    Signature,
    Tensor,
    TensorSpec,
    format_bytes,
    format_raw,
    pack,
    parse_bytes,
    parse_raw,
    unpack,
)

numeric = st.sampled_from([name for name in DTYPES if name != "BYTES"])


@given(data=st.data(), datatype=numeric)
def test_raw_numbers_come_back_bit_for_bit(data: st.DataObject, datatype: str) -> None:
    drawn = np.dtype(np.uint16) if datatype == "BF16" else DTYPES[datatype]  # Hypothesis knows none
    array = data.draw(hnp.arrays(drawn, hnp.array_shapes(max_dims=3, max_side=4)))
    array = array.view(DTYPES[datatype])
    back = parse_raw(format_raw(array), datatype, array.shape, "x")
    assert back.tobytes() == array.tobytes()
    assert back.dtype == array.dtype


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_bytes_elements_come_back(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    assert parse_bytes(format_bytes(array), len(values), "x").tolist() == values


@given(st.binary(max_size=64), st.integers(0, 5))
def test_parse_bytes_takes_every_byte_or_refuses(buffer: bytes, count: int) -> None:
    try:
        found = parse_bytes(buffer, count, "x")
    except InputInvalid:
        return
    assert format_bytes(found) == buffer


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 3), max_size=4))
def test_pack_and_unpack_are_inverse(shapes: dict[str, int]) -> None:
    arrays = {name: np.arange(n, dtype=np.float32).reshape(n, 1) for name, n in shapes.items()}
    back = unpack(pack(arrays))
    assert {k: v.tolist() for k, v in back.items()} == {k: v.tolist() for k, v in arrays.items()}


@given(st.binary(max_size=80))
def test_unpack_refuses_what_pack_did_not_make_without_crashing(buffer: bytes) -> None:
    with contextlib.suppress(InputInvalid):
        unpack(buffer)


@pytest.mark.parametrize("size", [0, 3, 5, 100])
def test_a_wrong_byte_size_is_refused_with_both_numbers(size: int) -> None:
    with pytest.raises(InputInvalid, match=rf"holds {size} bytes.*takes 4"):
        parse_raw(bytes(size), "FP32", (1,), "x")


SIGNATURE = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "BYTES", (-1, 1))),
    (TensorSpec("y", "FP32", (-1, 1)),),
)


def tensors(rows_a: int = 2, rows_b: int = 2) -> dict[str, Tensor]:
    return {
        "a": Tensor("a", "FP32", np.zeros((rows_a, 2), np.float32)),
        "b": Tensor("b", "BYTES", np.full((rows_b, 1), b"", dtype=object)),
    }


def test_check_counts_the_rows() -> None:
    assert SIGNATURE.check(tensors()) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("b"), "'b' is missing"),
        (lambda t: t.update(c=t["a"]), "unknown input 'c'"),
        (lambda t: t.update(a=Tensor("a", "FP64", np.zeros((2, 2)))), "FP64.*takes FP32"),
        (lambda t: t.update(a=Tensor("a", "FP32", np.zeros((2, 3), np.float32))), r"\[2, 3\]"),
        (lambda t: t.update(tensors(rows_a=3)), "2 rows where another input has 3"),
        (lambda t: t.update(tensors(0, 0)), "no rows"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(change, words) -> None:
    given_tensors = tensors()
    change(given_tensors)
    with pytest.raises(InputInvalid, match=words):
        SIGNATURE.check(given_tensors)
