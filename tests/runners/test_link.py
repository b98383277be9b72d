"""The data socket between processes: every call gets its own answer, or a refusal at once."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from runners.batch import Answer
from runners.errors import InputInvalid, ModelNotReady, RunnerError
from runners.link import Call, Link, serve


def batch(value: float, rows: int = 1) -> dict[str, np.ndarray]:
    text = np.array([[b"\xff\x00"]] * rows, dtype=object)
    return {"x": np.full((rows, 2), value), "t": text}


async def double(call: Call) -> Answer:
    value = call.batch["x"]
    if value[0, 0] < 0:
        raise InputInvalid("negative numbers are refused")
    await asyncio.sleep(0.02 if value[0, 0] == 1 else 0)
    return Answer({"y": value * 2, "t": call.batch["t"]}, 0.0, 0.0)


async def test_many_calls_on_one_connection_get_their_own_answers(tmp_path: Path) -> None:
    server = await serve(tmp_path / "s.sock", double)
    link = Link(tmp_path / "s.sock")
    answers = await asyncio.gather(*(link.call("m", "1", batch(i), 1) for i in range(50)))
    assert [a.outputs["y"][0, 0] for a in answers] == [2.0 * i for i in range(50)]
    assert answers[3].outputs["t"].tolist() == [[b"\xff\x00"]]
    await link.close()
    await server.close()


async def test_a_refusal_keeps_its_kind_and_fails_alone(tmp_path: Path) -> None:
    server = await serve(tmp_path / "s.sock", double)
    link = Link(tmp_path / "s.sock")
    good, bad = await asyncio.gather(
        link.call("m", "1", batch(4), 1),
        link.call("m", "1", batch(-1), 1),
        return_exceptions=True,
    )
    assert good.outputs["y"][0, 0] == 8.0
    assert isinstance(bad, InputInvalid)
    await link.close()
    await server.close()


async def test_a_handler_that_raises_anything_fails_only_its_call(tmp_path: Path) -> None:
    async def handler(call: Call) -> Answer:
        if call.rows == 2:
            raise ZeroDivisionError("secret detail")
        return await double(call)

    server = await serve(tmp_path / "s.sock", handler)
    link = Link(tmp_path / "s.sock")
    good, bad = await asyncio.gather(
        link.call("m", "1", batch(4), 1),
        link.call("m", "1", batch(1, 2), 2),
        return_exceptions=True,
    )
    assert good.outputs["y"][0, 0] == 8.0
    assert isinstance(bad, RunnerError)
    assert "secret" not in str(bad)
    await link.close()
    await server.close()


async def test_when_the_far_side_dies_calls_in_flight_fail_at_once_and_later_ones_reconnect(
    tmp_path: Path,
) -> None:
    arrived = asyncio.Event()

    async def die(call: Call) -> Answer:
        arrived.set()
        await asyncio.sleep(60)
        return await double(call)

    server = await serve(tmp_path / "s.sock", die)
    link = Link(tmp_path / "s.sock")
    waiting = asyncio.create_task(link.call("m", "1", batch(3), 1))
    await arrived.wait()
    await server.close()
    with pytest.raises(ModelNotReady):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(ModelNotReady):
        await link.call("m", "1", batch(3), 1)
    again = await serve(tmp_path / "s.sock", double)
    assert (await link.call("m", "1", batch(3), 1)).outputs["y"][0, 0] == 6.0
    await link.close()
    await again.close()


async def test_nobody_listening_is_a_refusal_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady):
        await asyncio.wait_for(Link(tmp_path / "none.sock").call("m", "1", batch(1), 1), 5)
