"""Calls that meet in the gateway and go to another process as one frame: the same promises."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest

from runners.batch import Answer, Batcher
from runners.errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
)
from runners.link import Call, Link, LinkServer, Remote, serve
from runners.tensor import Batch, Signature, TensorSpec

ANY = Signature((), ())
ONE = Signature((TensorSpec("x", "FP64", (-1, 1)),), (TensorSpec("y", "FP64", (-1, 1)),))
traceparent: ContextVar[str] = ContextVar("traceparent", default="")


class Far:
    """The other process, here: a server that notes its frames and answers when it may."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[Call] = []
        self.came = asyncio.Condition()
        self.gate = asyncio.Event()
        self.server: LinkServer | None = None

    async def open(self) -> None:
        self.server = await serve(self.path, self.answer)

    async def answer(self, call: Call) -> Answer:
        self.frames.append(call)
        async with self.came:
            self.came.notify_all()
        await self.gate.wait()
        if 13 in call.batch["x"]:
            raise InputInvalid("13 is refused")
        if 666 in call.batch["x"]:
            raise ZeroDivisionError("secret detail")
        return Answer({"y": call.batch["x"] * 2}, 0.25, 0.5, call.rows)

    async def has(self, frames: int) -> None:
        async with self.came, asyncio.timeout(10):
            await self.came.wait_for(lambda: len(self.frames) >= frames)

    @property
    def rows(self) -> list[int]:
        return [frame.rows for frame in self.frames]


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    found = Far(tmp_path / "far.sock")
    await found.open()
    yield found
    found.gate.set()
    await found.server.close()


@pytest.fixture
async def remote(far: Far) -> AsyncIterator[Callable[..., Remote]]:
    links: list[Link] = []

    def make(signature: Signature = ANY, **options: object) -> Remote:
        links.append(Link(far.path))
        return Remote(links[-1], "m", "1", signature, **options)

    yield make
    for link in links:
        await link.close()


def column(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype=np.float64).reshape(-1, 1)}


def ask(queue: Remote, *values: float, deadline: float | None = None) -> asyncio.Task[Answer]:
    return asyncio.create_task(queue.infer(column(*values), len(values), deadline=deadline))


async def hold(far: Far, queue: Remote) -> asyncio.Task[Answer]:
    """A frame in flight; what comes now queues here."""
    first = ask(queue, 0)
    await far.has(1)
    return first


async def test_what_queued_while_a_frame_was_in_flight_is_the_next_frame(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    rest = [ask(queue, i, i + 100) for i in range(20, 39)]
    await asyncio.sleep(0)
    far.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [a.outputs["y"].ravel().tolist() for a in answers[1:]] == [
        [2.0 * i, 2.0 * (i + 100)] for i in range(20, 39)
    ]
    assert far.rows == [1, 38]
    assert answers[5].batch_rows == 38


async def test_a_callers_times_are_both_queues_and_the_model(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    second = ask(queue, 1)
    await asyncio.sleep(0.05)
    far.gate.set()
    answers = await asyncio.gather(first, second)
    assert [answer.infer_s for answer in answers] == [0.5, 0.5]
    assert 0.25 <= answers[0].queue_s < answers[1].queue_s
    assert answers[1].queue_s >= 0.25 + 0.05


async def test_a_cancelled_caller_leaves_its_peers(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    calls = [ask(queue, i) for i in range(1, 5)]
    await asyncio.sleep(0)
    first.cancel()  # its frame is in flight
    calls[1].cancel()  # it queues
    far.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [answers[i].outputs["y"].item() for i in (0, 2, 3)] == [2.0, 6.0, 8.0]
    assert far.rows == [1, 3], "who left the queue was not sent"


async def test_a_caller_cancelled_in_a_joined_frame_leaves_its_peers(far, remote) -> None:
    queue = remote()
    calls = [ask(queue, i) for i in range(3)]
    await far.has(1)
    calls[0].cancel()
    far.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [answer.outputs["y"].item() for answer in answers[1:]] == [2.0, 4.0]
    assert far.rows == [3]


async def test_a_deadline_passes_in_flight_and_in_the_queue_for_that_caller_alone(
    far, remote
) -> None:
    queue = remote()
    soon = time.monotonic() + 0.05
    late, peer = ask(queue, 1, deadline=soon), ask(queue, 2, deadline=soon + 60)
    await far.has(1)
    queued, behind = ask(queue, 3, deadline=soon), ask(queue, 4)
    for gone in (late, queued):
        with pytest.raises(DeadlinePassed):
            await asyncio.wait_for(gone, 10)
    far.gate.set()
    assert (await peer).outputs["y"].item() == 4.0
    assert (await behind).outputs["y"].item() == 8.0
    assert far.rows == [2, 1], "who was late in the queue was not sent"
    assert far.frames[0].deadline > time.monotonic() + 30, "a frame has its latest deadline"
    assert far.frames[1].deadline is None


@pytest.mark.parametrize("place", range(7))
async def test_a_poisoned_call_fails_alone(far, remote, place: int) -> None:
    far.gate.set()
    values = [1.0] * 7
    values[place] = 13
    values[(place + 3) % 7] = 666
    calls = [ask(remote_queue, value) for remote_queue in [remote()] for value in values]
    for value, answer in zip(
        values, await asyncio.gather(*calls, return_exceptions=True), strict=True
    ):
        if value == 13:
            assert isinstance(answer, InputInvalid)
        elif value == 666:
            assert isinstance(answer, ModelFailed)
            assert "secret" not in str(answer)
        else:
            assert answer.outputs["y"].item() == 2.0
    assert far.rows[0] == 7


async def test_frames_of_two_gateways_do_not_mix(far, remote) -> None:
    far.gate.set()
    queues = [remote(ONE), remote(ONE)]
    sent = [[(place + 1) * 1000 + i for i in range(40)] for place in range(2)]
    answers = await asyncio.gather(
        *(ask(queues[place], sent[place][i]) for i in range(40) for place in range(2))
    )
    found = [answer.outputs["y"].item() / 2 for answer in answers]
    assert found[0::2] == sent[0]
    assert found[1::2] == sent[1]
    assert sum(far.rows) == 80
    for frame in far.frames:
        assert len({value // 1000 for value in frame.batch["x"].ravel().tolist()}) == 1


async def test_shapes_and_types_that_differ_never_meet(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    wide, small = {"x": np.ones((1, 2))}, {"x": np.ones((1, 1), dtype=np.float32)}
    calls = [
        asyncio.create_task(queue.infer(batch, 1))
        for batch in (column(1), wide, small, wide, column(2))
    ]
    await asyncio.sleep(0)
    far.gate.set()
    answers = await asyncio.gather(*calls)
    await first
    assert [a.outputs["y"].shape for a in answers] == [(1, 1), (1, 2), (1, 1), (1, 2), (1, 1)]
    assert answers[2].outputs["y"].dtype == np.float32
    assert far.rows == [1, 2, 2, 1]


async def test_a_model_that_does_not_batch_gets_a_frame_for_each_call(far, remote) -> None:
    far.gate.set()
    queue = remote(Signature((), (), "none"))
    answers = await asyncio.gather(
        *(queue.infer({"x": np.full(rows, rows)}, 1) for rows in (3, 1, 2))
    )
    assert [answer.outputs["y"].tolist() for answer in answers] == [[6, 6, 6], [2], [4, 4]]
    assert far.rows == [1, 1, 1]


async def test_a_second_frame_goes_ahead_only_when_it_is_full(far, remote) -> None:
    queue = remote(max_rows=4)
    first = await hold(far, queue)
    some = [ask(queue, 1) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert far.rows == [1]
    more = [ask(queue, 2) for _ in range(6)]
    await far.has(2)
    await asyncio.sleep(0.01)
    assert far.rows == [1, 4], "two frames at once, and no more"
    far.gate.set()
    answers = await asyncio.gather(first, *some, *more)
    assert [answer.outputs["y"].item() for answer in answers[1:]] == [2.0] * 3 + [4.0] * 6
    assert far.rows == [1, 4, 4, 1]


async def test_a_call_of_many_rows_goes_in_pieces_until_its_caller_leaves(far, remote) -> None:
    queue = remote(max_rows=4)
    far.gate.set()
    answer = await ask(queue, *range(14, 24))
    assert answer.outputs["y"].ravel().tolist() == [2.0 * value for value in range(14, 24)]
    assert far.rows == [4, 4, 2]
    far.gate.clear()
    long = ask(queue, *range(14, 94))
    await far.has(4)
    long.cancel()
    await asyncio.wait([long])
    far.gate.set()
    assert (await ask(queue, 1)).outputs["y"].item() == 2.0
    assert far.rows[3:] == [4, 1]


async def test_only_contexts_of_sampled_callers_travel(far, remote) -> None:
    queue = remote(context=traceparent.get)

    async def sampled(value: float, context: str) -> Answer:
        traceparent.set(context)
        return await queue.infer(column(value), 1)

    far.gate.set()
    await asyncio.gather(sampled(1, "a"), sampled(2, ""), sampled(3, "c"))
    assert [frame.contexts for frame in far.frames] == [("a", "c")]


async def test_a_full_queue_refuses_at_once(far, remote) -> None:
    queue = remote(max_queued_rows=2)
    first = await hold(far, queue)
    queued = [ask(queue, i) for i in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await queue.infer(column(1), 1)
    far.gate.set()
    await asyncio.gather(first, *queued)


async def test_closing_answers_what_came_and_refuses_the_rest(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    queued = ask(queue, 5)
    await asyncio.sleep(0)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady):
        await queue.infer(column(6), 1)
    far.gate.set()
    await closing
    assert (await queued).outputs["y"].item() == 10.0
    await first


async def test_when_the_far_side_dies_everybody_learns_at_once_and_later_calls_reconnect(
    far, remote
) -> None:
    queue = remote()
    calls = [await hold(far, queue), *(ask(queue, i) for i in range(1, 9))]
    await asyncio.sleep(0)
    await far.server.close()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert {type(answer) for answer in answers} == {ModelNotReady}
    assert far.rows == [1], "nothing is tried again by itself"
    far.gate.set()
    await far.open()
    assert (await ask(queue, 3)).outputs["y"].item() == 6.0


async def test_a_peer_that_talks_nonsense_is_dropped(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x03\0\0\0\0\0\0\0\xc1\xc1\xc1")
        await reader.read()  # until the other end drops us
        writer.close()

    server = await asyncio.start_unix_server(babble, str(tmp_path / "s.sock"))
    async with server:
        with pytest.raises(ModelNotReady):
            await asyncio.wait_for(Link(tmp_path / "s.sock").call("m", "1", column(1), 1), 5)


async def test_nonsense_on_one_connection_leaves_the_others(far, remote) -> None:
    queue = remote()
    first = await hold(far, queue)
    reader, writer = await asyncio.open_unix_connection(str(far.path))
    writer.write(b"\x03\0\0\0\0\0\0\0\xc1\xc1\xc1")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    far.gate.set()
    assert (await first).outputs["y"].item() == 0.0


class Doubler:
    """A model behind the far side's own queue; refuses 13."""

    name, version, digest, runtime, device, inline = "m", "1", "sha256:0", "test", "cpu", True
    signature = ONE

    def __init__(self) -> None:
        self.batches: list[int] = []

    def warm_up(self) -> None:
        """Nothing to do."""

    def infer(self, batch: Batch) -> dict[str, np.ndarray]:
        self.batches.append(len(batch["x"]))
        if 13 in batch["x"]:
            raise InputInvalid("13 is refused")
        return {"y": batch["x"] * 2}


async def test_two_gateways_before_one_model_and_a_bad_call_in_one_of_them(tmp_path) -> None:
    model = Doubler()
    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(model, pool)

        async def answer(call: Call) -> Answer:
            return await batcher.infer(call.batch, call.rows, deadline=call.deadline)

        server = await serve(tmp_path / "far.sock", answer)
        links = [Link(tmp_path / "far.sock") for _ in range(2)]
        queues = [Remote(link, "m", "1", ONE) for link in links]
        for _ in range(20):
            calls = [ask(queue, value) for queue in queues for value in (1, 2, 3)]
            calls[1:1] = [ask(queues[0], 13)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(answers.pop(1), InputInvalid)
            assert [a.outputs["y"].item() for a in answers] == [2.0, 4.0, 6.0] * 2
        for link in links:
            await link.close()
        await server.close()
