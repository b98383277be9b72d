"""Short batches run on the loop itself: the same promises as in the thread."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runners.batch import Batcher
from runners.errors import DeadlinePassed, InputInvalid, ModelFailed
from runners.pace import Pace
from runners.tensor import Batch, Signature, TensorSpec


class Quick:
    """Doubles, and notes which thread ran it; refuses 13, raises on 666, is slow on 7."""

    name, version, digest, runtime, device, inline = "quick", "1", "sha256:0", "test", "cpu", True
    signature = Signature((TensorSpec("x", "FP64", (-1, 1)),), (TensorSpec("y", "FP64", (-1, 1)),))

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def warm_up(self) -> None:
        """Nothing to do."""

    def infer(self, batch: Batch) -> dict[str, np.ndarray]:
        self.threads.append(threading.current_thread())
        data = batch["x"]
        if 13 in data:
            raise InputInvalid("13 is refused")
        if 666 in data:
            raise ZeroDivisionError("secret detail")
        until = time.thread_time() + (0.003 if 7 in data else 0)
        while time.thread_time() < until:
            pass
        return {"y": data * 2}


@pytest.fixture
def model() -> Quick:
    return Quick()


@pytest.fixture
async def batcher(model):
    """A batcher that has measured batches of one row and of a few."""
    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(model, pool)
        for _ in range(4):
            for rows in (1, 2, 4, 8):
                await batcher.infer(column(*[0] * rows), rows)
        model.threads.clear()
        yield batcher


def column(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype=np.float64).reshape(-1, 1)}


async def ask(batcher: Batcher, *values: float, **options: float):
    return await asyncio.gather(
        *(batcher.infer(column(value), 1, **options) for value in values), return_exceptions=True
    )


async def test_the_first_batches_run_in_the_thread(model) -> None:
    with ThreadPoolExecutor(1) as pool:
        await Batcher(model, pool).infer(column(1), 1)
    assert model.threads[0] is not threading.main_thread()


async def test_what_came_in_one_turn_is_one_batch_on_the_loop(model, batcher) -> None:
    answers = await ask(batcher, 1, 2, 3)
    assert [answer.outputs["y"].item() for answer in answers] == [2, 4, 6]
    assert model.threads == [threading.main_thread()]


async def test_a_bad_request_fails_alone_on_the_loop(batcher) -> None:
    good, bad, fine, broken, last = await ask(batcher, 1, 13, 2, 666, 3)
    assert [answer.outputs["y"].item() for answer in (good, fine, last)] == [2, 4, 6]
    assert isinstance(bad, InputInvalid)
    assert isinstance(broken, ModelFailed)


async def test_a_late_request_is_not_run_at_all(model, batcher) -> None:
    late, fine = await asyncio.gather(
        batcher.infer(column(1), 1, deadline=time.monotonic() - 1),
        batcher.infer(column(2), 1, deadline=time.monotonic() + 60),
        return_exceptions=True,
    )
    assert isinstance(late, DeadlinePassed)
    assert fine.outputs["y"].item() == 4


async def test_a_cancelled_request_leaves_its_peers_alone(batcher) -> None:
    tasks = [asyncio.create_task(batcher.infer(column(value), 1)) for value in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first, cancelled, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [answer.outputs["y"].item() for answer in (first, last)] == [2, 6]


async def test_one_long_batch_sends_the_size_back_to_the_thread(model, batcher) -> None:
    await ask(batcher, 7)
    await ask(batcher, 1)
    main = threading.main_thread()
    assert [thread is main for thread in model.threads] == [True, False]


async def test_a_call_of_more_rows_than_a_batch_goes_to_the_thread(model) -> None:
    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(model, pool, max_rows=2)
        for _ in range(5):
            await batcher.infer(column(1, 2), 2)
        model.threads.clear()
        answer = await batcher.infer(column(1, 2, 3), 3)
    assert answer.outputs["y"].ravel().tolist() == [2, 4, 6]
    assert threading.main_thread() not in model.threads


async def test_closing_answers_what_waits_for_its_turn(batcher) -> None:
    task = asyncio.create_task(batcher.infer(column(4), 1))
    await asyncio.sleep(0)
    await batcher.close()
    assert (await task).outputs["y"].item() == 8


def test_a_size_is_short_after_enough_short_batches_only() -> None:
    pace = Pace()
    for _ in range(3):
        pace.note(5, 0.0001)
    assert not pace.short(5)
    pace.note(5, 0.0001)
    assert pace.short(5)
    assert pace.short(7)  # the same power of two
    assert not pace.short(8)
    pace.note(6, 0.01)
    assert not pace.short(5)
