"""Comparing answers: one bit is found, a tolerance is a tolerance, nothing is rounded."""

import numpy as np
import pytest

from audit.replay import compare

ROW = {"p": np.array([[0.25, 0.75]], dtype=np.float32), "label": np.array([[1]])}


def other(**changes):
    return {**ROW, **changes}


def test_the_same_bits_are_equal_nan_and_text_included() -> None:
    answer = other(nan=np.array([np.nan]), text=np.array([b"a", b"b"], dtype=object))
    again = {name: data.copy() for name, data in answer.items()}
    assert compare(answer, again) == ("equal", 0.0, "", "")
    assert compare({}, {}).verdict == "equal"


def test_one_bit_differs_and_is_named() -> None:
    data = ROW["p"].copy()
    data[0, 1] = np.nextafter(data[0, 1], np.float32(1))
    found = compare(ROW, other(p=data))
    assert (found.verdict, found.where) == ("differs", "p")
    assert found.largest == pytest.approx(5.96e-8, rel=0.01)
    assert "1 of 2 values" in found.why
    assert compare(ROW, other(p=data), tolerance=1e-6).verdict == "within tolerance"
    assert compare(ROW, other(p=data), tolerance=1e-9).verdict == "differs"


@pytest.mark.parametrize(
    "again",
    [
        other(label=np.array([[0]])),  # a label has no tolerance
        other(label=np.array([[1]], dtype=np.int32)),
        other(p=np.array([0.25, 0.75], dtype=np.float32)),
        other(p=np.array([[0.25, np.nan]], dtype=np.float32)),
        other(p=np.array([[0.25, np.inf]], dtype=np.float32)),
        other(extra=np.array([1])),
        {"p": ROW["p"]},
    ],
)
def test_what_no_tolerance_covers_differs(again) -> None:
    assert compare(ROW, again, tolerance=10.0).verdict == "differs"


def test_negative_zero_is_another_bit_and_no_distance() -> None:
    kept, again = {"p": np.array([0.0])}, {"p": np.array([-0.0])}
    assert compare(kept, again).verdict == "differs"
    assert compare(kept, again, tolerance=0.0).verdict == "within tolerance"


@pytest.mark.parametrize(
    ("kept", "again", "largest", "why"),
    [
        (np.array([0.0, 1.0]), np.array([-0.0, 1.0]), 0.0, "1 of 2 values differ, by at most 0"),
        (np.array([0.0, 1.0]), np.array([-0.0, 3.0]), 2.0, "2 of 2 values differ, by at most 2"),
        (np.array([1 << 60]), np.array([(1 << 60) + 1]), 1.0, "1 of 1 values differ, by at most 1"),
        (np.array([1 << 60, 1]), np.array([(1 << 60) + 1, 3]), 2.0, "2 of 2 values differ"),
        (np.array([False, True]), np.array([True, True]), 1.0, "1 of 2 values differ"),
        (np.array([0, 9], np.uint64), np.array([2**64 - 1, 9], np.uint64), 2.0**64, "1 of 2"),
    ],
)
def test_what_differs_is_counted_and_measured_exactly(kept, again, largest, why) -> None:
    found = compare({"x": kept}, {"x": again})
    assert (found.verdict, found.largest) == ("differs", largest)
    assert found.why.startswith(why)


def test_another_text_differs() -> None:
    kept = {"t": np.array([b"a"], dtype=object)}
    assert compare(kept, {"t": np.array([b"b"], dtype=object)}, tolerance=1).verdict == "differs"
