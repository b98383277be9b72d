"""Natural batching: peers never share anything but the arithmetic."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runners.batch import Batcher
from runners.errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
)
from runners.tensor import Batch, Signature


class Doubler:
    """Doubles; refuses 13; raises on 666; waits for `gate` when it is set."""

    name, version, digest, runtime, device = "doubler", "1", "sha256:0", "test", "cpu"
    signature = Signature((), ())
    inline = False

    def __init__(self) -> None:
        self.gate: threading.Event | None = None
        self.started = threading.Event()
        self.batches: list[int] = []

    def warm_up(self) -> None:
        """Nothing to do."""

    def infer(self, batch: Batch) -> dict[str, np.ndarray]:
        data = batch["x"]
        self.batches.append(len(data))
        self.started.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        if 13 in data:
            raise InputInvalid("13 is refused")
        if 666 in data:
            raise ZeroDivisionError("secret detail")
        return {"y": data * 2}


@pytest.fixture
def model() -> Doubler:
    return Doubler()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def column(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype=np.float64).reshape(-1, 1)}


async def hold(model: Doubler, batcher: Batcher) -> asyncio.Task:
    """Start a request that keeps the model busy until `model.gate` is set."""
    model.gate = threading.Event()
    task = asyncio.create_task(batcher.infer(column(0), 1))
    await asyncio.to_thread(model.started.wait, 10)
    return task


async def test_what_queued_while_one_ran_is_the_next_batch(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    rest = [asyncio.create_task(batcher.infer(column(i + 99), 1)) for i in range(1, 30)]
    await asyncio.sleep(0)
    model.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [a.outputs["y"].tolist() for a in answers] == [[[0.0]]] + [
        [[2.0 * (i + 99)]] for i in range(1, 30)
    ]
    assert model.batches == [1, 29]


async def test_batches_stop_at_the_limit_and_keep_whole_requests(model, executor) -> None:
    batcher = Batcher(model, executor, max_rows=8)
    first = await hold(model, batcher)
    rest = [asyncio.create_task(batcher.infer(column(i, i, i), 3)) for i in range(5)]
    await asyncio.sleep(0)
    model.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert max(model.batches) <= 8
    assert [len(a.outputs["y"]) for a in answers] == [1, 3, 3, 3, 3, 3]


async def test_a_bad_request_fails_alone(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    tasks = [asyncio.create_task(batcher.infer(column(i), 1)) for i in (1, 13, 2, 666, 3)]
    await asyncio.sleep(0)
    model.gate.set()
    good, bad, fine, broken, last = await asyncio.gather(*tasks, return_exceptions=True)
    await first
    assert [a.outputs["y"].item() for a in (good, fine, last)] == [2.0, 4.0, 6.0]
    assert isinstance(bad, InputInvalid)
    assert isinstance(broken, ModelFailed)


async def test_different_shapes_and_types_never_meet(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    wide = {"x": np.ones((1, 2))}
    small = {"x": np.ones((1, 1), dtype=np.float32)}
    tasks = [asyncio.create_task(batcher.infer(b, 1)) for b in (column(1), wide, small, wide)]
    await asyncio.sleep(0)
    model.gate.set()
    answers = await asyncio.gather(*tasks)
    await first
    assert [a.outputs["y"].shape for a in answers] == [(1, 1), (1, 2), (1, 1), (1, 2)]
    assert answers[2].outputs["y"].dtype == np.float32
    assert model.batches == [1, 1, 2, 1]


async def test_a_cancelled_request_leaves_its_peers_alone(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    tasks = [asyncio.create_task(batcher.infer(column(i), 1)) for i in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first.cancel()
    await asyncio.sleep(0)
    model.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [answers[i].outputs["y"].item() for i in (0, 2, 3)] == [0.0, 4.0, 6.0]
    assert model.batches == [1, 3], "the cancelled request was dropped from the queue"
    assert (await batcher.infer(column(7), 1)).outputs["y"].item() == 14.0


async def test_a_deadline_counts_in_the_queue_and_while_running(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    late = asyncio.create_task(batcher.infer(column(1), 1, deadline=time.monotonic() + 0.05))
    peer = asyncio.create_task(batcher.infer(column(2), 1))
    with pytest.raises(DeadlinePassed):
        await late
    model.gate.set()
    assert (await peer).outputs["y"].item() == 4.0
    await first
    assert model.batches == [1, 1], "what was late did not run"


async def test_a_full_queue_refuses_at_once_and_recovers(model, executor) -> None:
    batcher = Batcher(model, executor, max_queued_rows=3)
    first = await hold(model, batcher)
    queued = [asyncio.create_task(batcher.infer(column(i), 1)) for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batcher.infer(column(9), 1)
    model.gate.set()
    await asyncio.gather(first, *queued)
    assert (await batcher.infer(column(9), 1)).outputs["y"].item() == 18.0


async def test_closing_answers_what_is_queued_and_refuses_the_rest(model, executor) -> None:
    batcher = Batcher(model, executor)
    first = await hold(model, batcher)
    queued = asyncio.create_task(batcher.infer(column(5), 1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady):
        await batcher.infer(column(6), 1)
    model.gate.set()
    await closing
    assert (await queued).outputs["y"].item() == 10.0
    await first


async def test_outputs_whose_rows_are_not_the_batch_are_no_answer(executor) -> None:
    class Short(Doubler):
        def infer(self, batch: Batch) -> dict[str, np.ndarray]:
            return {"y": batch["x"][:1]}

    with pytest.raises(ModelFailed, match="rows"):
        await Batcher(Short(), executor).infer(column(1, 2), 2)


async def test_a_call_of_many_rows_runs_in_pieces_and_comes_back_whole(model, executor) -> None:
    batcher = Batcher(model, executor, max_rows=4)
    answer = await batcher.infer(column(*range(14, 24)), 10)
    assert answer.outputs["y"].ravel().tolist() == [2.0 * value for value in range(14, 24)]
    assert model.batches == [4, 4, 2]


async def test_a_call_of_many_rows_fails_whole(model, executor) -> None:
    with pytest.raises(InputInvalid):
        await Batcher(model, executor, max_rows=2).infer(column(1, 2, 3, 13, 5), 5)


async def test_a_caller_of_many_rows_who_leaves_ends_the_work(model, executor) -> None:
    batcher = Batcher(model, executor, max_rows=1)
    model.gate = threading.Event()
    call = asyncio.create_task(batcher.infer(column(*range(100, 200)), 100))
    await asyncio.to_thread(model.started.wait, 10)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    model.gate.set()
    assert (await batcher.infer(column(7), 1)).outputs["y"].item() == 14.0
    assert len(model.batches) <= 3


@pytest.mark.parametrize("deadline_s", [None, 0.01])
async def test_who_leaves_the_queue_frees_their_place_at_once(model, executor, deadline_s) -> None:
    batcher = Batcher(model, executor, max_queued_rows=2)
    first = await hold(model, batcher)
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    gone = [asyncio.create_task(batcher.infer(column(5), 1, deadline=deadline)) for _ in range(2)]
    await asyncio.sleep(0)
    if deadline_s is None:
        for call in gone:
            call.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    stays = [asyncio.create_task(batcher.infer(column(6), 1)) for _ in range(2)]
    await asyncio.sleep(0)
    model.gate.set()
    answers = await asyncio.gather(*stays)
    assert [answer.outputs["y"].item() for answer in answers] == [12.0, 12.0]
    await first


class Whole(Doubler):
    """Gives one number for all that it was sent together: rows that meet would be seen."""

    signature = Signature((), (), "none")

    def infer(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"y": super().infer(batch)["y"].sum()}


async def test_a_model_that_does_not_batch_never_sees_two_requests(executor) -> None:
    model = Whole()
    batcher = Batcher(model, executor, max_rows=4)
    sent = [np.full((rows, 2), rows) for rows in (1, 3, 9, 1, 2)]
    found = await asyncio.gather(*(batcher.infer({"x": data}, 1) for data in sent))
    assert [answer.outputs["y"] for answer in found] == [2 * data.sum() for data in sent]
    assert model.batches == [1, 3, 9, 1, 2], "each alone, whole, and in order"
