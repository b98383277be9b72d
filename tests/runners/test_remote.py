"""A remote model: what a broken far side may do to a caller, and how often it is asked.

The far side here is a real HTTP server on a socket, scripted to misbehave; the well-behaved one is
our own gateway, in tests/e2e/test_remote.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
import pytest

from runners.breaker import Breaker
from runners.errors import DeadlinePassed, InputInvalid, ModelFailed, ModelNotReady, Overloaded
from runners.oip import format_http, parse_http
from runners.remote import RemoteQueue
from runners.tensor import Signature, TensorSpec
from runners.wires import Place, wire_to

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
BATCH = {"x": np.array([[1, 2]], np.float32)}
Turn = Callable[["Far", dict[str, str], bytes], Awaitable[bytes]]


class Far:
    """A far side: `turns` answers the nth request; the last one answers all that follow."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = turns
        self.asked: list[dict[str, str]] = []
        self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                turn = self.turns[min(len(self.asked), len(self.turns) - 1)]
                self.asked.append(headers)
                reply = await turn(self, headers, body)
                if not reply:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def http(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(y: np.ndarray) -> bytes:
    head = {"outputs": [{"name": "y", "datatype": "FP32", "shape": list(y.shape)}]}
    head["outputs"][0]["parameters"] = {"binary_data_size": y.nbytes}
    text = orjson.dumps(head)
    return http(200, text + y.tobytes(), inference_header_content_length=str(len(text)))


async def doubles(_: Far, headers: dict[str, str], body: bytes) -> bytes:
    data = body[int(headers["inference-header-content-length"]) :]
    return answer(2 * np.frombuffer(data, np.float32).reshape(-1, 2))


async def hangs_up(*_: Any) -> bytes:
    return b""


async def hangs(*_: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


def says(status: int, body: bytes = b'{"error":"secret text"}', **headers: str) -> Turn:
    async def turn(*_: Any) -> bytes:
        return http(status, body, **headers)

    return turn


@asynccontextmanager
async def queue(*turns: Turn, idempotent: bool = False, token: str | None = None) -> AsyncIterator:
    far = Far(*turns)
    server = await asyncio.start_server(far.talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = Place(f"http://127.0.0.1:{port}", "m", "2", token)
    asked = RemoteQueue(
        "far:1",
        wire_to(place, SIGNATURE, None),
        Breaker(time.monotonic, limit=3, cool_s=60),
        context=lambda: "00-aa-bb-01",
        idempotent=idempotent,
        max_rows=8,
    )
    try:
        yield asked, far
    finally:
        await asked.close()
        server.close()


async def test_one_connection_carries_many_calls_with_deadline_trace_and_token() -> None:
    async with queue(doubles, token="t0ken") as (asked, far):
        for _ in range(20):
            found = await asked.infer(BATCH, 1, deadline=time.monotonic() + 5)
            assert found.outputs["y"].tolist() == [[2.0, 4.0]]
        assert (far.connections, len(far.asked)) == (1, 20)
        first = far.asked[0]
        assert 4000 < int(first["x-weighbridge-timeout-ms"]) <= 5000
        assert first["traceparent"] == "00-aa-bb-01"
        assert first["authorization"] == "Bearer t0ken"
        assert not any("unit" in name for name in first)


async def test_calls_run_side_by_side_and_never_in_one_body() -> None:
    together = asyncio.Barrier(4)

    async def waits(far: Far, headers: dict[str, str], body: bytes) -> bytes:
        async with asyncio.timeout(10):
            await together.wait()
        return await doubles(far, headers, body)

    async with queue(waits) as (asked, far):
        batches = [{"x": np.full((1, 2), value, np.float32)} for value in range(4)]
        found = await asyncio.gather(*(asked.infer(batch, 1) for batch in batches))
        assert [f.outputs["y"].tolist() for f in found] == [[[2.0 * v] * 2] for v in range(4)]
        assert len(far.asked) == 4


async def test_what_may_have_run_is_not_sent_again() -> None:
    async with queue(hangs_up, doubles) as (asked, far):
        with pytest.raises(ModelNotReady, match="away"):
            await asked.infer(BATCH, 1)
        assert len(far.asked) == 1


async def test_what_is_idempotent_is_sent_again() -> None:
    async with queue(hangs_up, hangs_up, doubles, idempotent=True) as (asked, far):
        found = await asked.infer(BATCH, 1)
        assert found.outputs["y"].tolist() == [[2.0, 4.0]]
        assert len(far.asked) == 3


async def test_a_server_that_is_not_there_is_tried_again_and_then_left_alone() -> None:
    async with queue(doubles) as (asked, _):
        asked._wire._options["base_url"] = "http://127.0.0.1:1"
        for _ in range(3):
            with pytest.raises(ModelNotReady, match="away"):
                await asked.infer(BATCH, 1)
        assert asked.breaker.state == "open"
        with pytest.raises(ModelNotReady, match="does not answer; come back shortly"):
            await asked.infer(BATCH, 1)


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        (says(400), InputInvalid),
        (says(413), InputInvalid),
        (says(429), Overloaded),
        (says(503), ModelNotReady),
        (says(404), ModelNotReady),
        (says(504), DeadlinePassed),
        (says(500), ModelFailed),
        (says(401), ModelFailed),
        (says(302, location="http://127.0.0.1:1/"), ModelFailed),
        (says(200, b"no json"), ModelFailed),
        (says(200, b"[]"), ModelFailed),
        (says(200, b'{"outputs": [{"name": "z"}]}'), ModelFailed),
        (says(200, b'{"outputs": []}'), ModelFailed),
        (says(200, b'{"outputs": []}', inference_header_content_length="x"), ModelFailed),
    ],
)
async def test_a_refusal_becomes_ours_and_its_text_stays_there(turn: Turn, error: type) -> None:
    async with queue(turn) as (asked, far):
        with pytest.raises(error) as caught:
            await asked.infer(BATCH, 1)
        assert len(far.asked) == 1
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("y", [np.zeros((1, 3), np.float32), np.zeros((2, 2), np.float64)])
async def test_an_answer_that_is_not_of_the_signature_is_none(y: np.ndarray) -> None:
    async def wrong(*_: Any) -> bytes:
        return answer(y)

    async with queue(wrong) as (asked, _):
        with pytest.raises(ModelFailed):
            await asked.infer(BATCH, 1)


async def test_a_far_side_that_hangs_costs_no_more_than_the_deadline() -> None:
    async with queue(hangs) as (asked, _):
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            await asked.infer(BATCH, 1, deadline=began + 0.2)
        assert time.monotonic() - began < 5
        assert asked.breaker.state == "closed", "so short a wait says nothing about the far side"


async def test_rows_under_way_are_bounded_and_closing_waits_for_them() -> None:
    release = asyncio.Event()

    async def waits(far: Far, headers: dict[str, str], body: bytes) -> bytes:
        await release.wait()
        return await doubles(far, headers, body)

    async with queue(waits) as (asked, _):
        first = asyncio.create_task(asked.infer(BATCH, 8))
        while not asked._rows:  # noqa: ASYNC110  a turn or two of the loop
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await asked.infer(BATCH, 1)
        closing = asyncio.create_task(asked.close())
        await asyncio.sleep(0)
        with pytest.raises(ModelNotReady, match="unloaded"):
            await asked.infer(BATCH, 1)
        assert not closing.done()
        release.set()
        assert (await first).outputs["y"].tolist() == [[2.0, 4.0]]
        await closing


async def test_a_caller_who_leaves_frees_the_rows() -> None:
    async with queue(hangs) as (asked, far):
        call = asyncio.create_task(asked.infer(BATCH, 8))
        while not far.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert asked._rows == 0
        assert asked.breaker.state == "closed"


def test_a_token_and_an_address_are_in_no_text() -> None:
    place = Place("http://10.0.0.1:80", "m", "1", "t0ken")
    assert "t0ken" not in repr(place)
    assert "10.0.0.1" not in str(place)


def test_bodies_are_binary_and_come_back_whole() -> None:
    specs = (
        TensorSpec("s", "BYTES", (-1,)),
        TensorSpec("b", "BF16", (-1,)),
        TensorSpec("n", "INT8", (0,)),
    )
    signature = Signature(specs, specs)
    batch = {
        "s": np.array([b"\xff", b""], dtype=object),
        "b": np.zeros(3, np.dtype("bfloat16")) + np.float32(1.5),
        "n": np.zeros(0, np.int8),
    }
    batch["b"] = batch["b"].astype("bfloat16")
    body, size = format_http(batch, signature)
    head = orjson.loads(body[:size])
    reply = orjson.dumps({"outputs": head["inputs"]})
    found = parse_http(reply + body[size:], str(len(reply)), signature)
    for name, data in batch.items():
        assert found[name].tolist() == data.tolist()
        assert found[name].dtype == data.dtype
    with pytest.raises(ModelFailed, match="belong to no output"):
        parse_http(reply + body[size:] + b"x", str(len(reply)), signature)
    with pytest.raises(ModelFailed):
        parse_http(reply + body[size:-1], str(len(reply)), signature)
