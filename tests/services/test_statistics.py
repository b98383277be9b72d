"""Counters add up, and are told in Triton's shapes."""

import numpy as np
import pytest

from runners.batch import Answer
from services.statistics import Statistics

M1 = ("m", "1")
MS = 1_000_000


def answer(rows: int, batch: int, seconds: float = 0.002) -> Answer:
    return Answer({"y": np.zeros(rows)}, 0.001, seconds, batch)


def one(statistics: Statistics) -> dict:
    (found,) = statistics.told([M1])["model_stats"]
    return found


def count(statistics: Statistics, rows: int, batch: int) -> None:
    statistics.answered(M1, rows, answer(rows, batch), 0, 1 * MS, 4 * MS, 6 * MS, 900 * MS)


def test_nothing_asked_is_all_zeros() -> None:
    found = one(Statistics())
    assert (found["name"], found["version"]) == M1
    assert found["inference_stats"]["success"] == {"count": 0, "ns": 0}
    assert found["batch_stats"] == []


def test_times_are_sums_of_nanoseconds() -> None:
    statistics = Statistics()
    for _ in range(3):
        count(statistics, 2, 2)
    found = one(statistics)
    assert found["inference_count"] == 6
    assert found["execution_count"] == 3
    assert found["last_inference"] == 900
    assert found["inference_stats"] == {
        "success": {"count": 3, "ns": 18 * MS},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 3, "ns": 3 * MS},
        "compute_input": {"count": 3, "ns": 3 * MS},
        "compute_infer": {"count": 3, "ns": 6 * MS},
        "compute_output": {"count": 3, "ns": 6 * MS},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }


@pytest.mark.parametrize(
    ("requests", "executions", "sizes"),
    [
        ([(1, 3), (1, 3), (1, 3)], 1, {3: 1}),
        ([(2, 7), (5, 7), (1, 1)], 2, {1: 1, 7: 1}),
        ([(100, 64)], 2, {64: 2}),
        ([(5, 0)], 1, {5: 1}),
        ([(1, 49)] * 49 * 100, 100, {49: 100}),
    ],
)
def test_a_batch_that_was_shared_counts_once(requests, executions, sizes) -> None:
    statistics = Statistics()
    for rows, batch in requests:
        count(statistics, rows, batch)
    found = one(statistics)
    assert found["execution_count"] == executions
    told = {b["batch_size"]: b["compute_infer"]["count"] for b in found["batch_stats"]}
    assert told == sizes
    spent = {b["batch_size"]: b["compute_infer"]["ns"] for b in found["batch_stats"]}
    pieces = {size: sum(1 for r, b in requests if r > b) for size in sizes}
    for size, runs in sizes.items():
        expected = pieces[size] * 2 * MS if requests == [(100, 64)] else runs * 2 * MS
        assert spent[size] == expected


def test_a_failure_is_counted_apart() -> None:
    statistics = Statistics()
    statistics.failed(M1, 0, 5 * MS)
    found = one(statistics)
    assert found["inference_stats"]["fail"] == {"count": 1, "ns": 5 * MS}
    assert found["inference_stats"]["success"]["count"] == 0
    assert found["inference_count"] == 0
