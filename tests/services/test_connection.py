"""The client's end: bodies are bounded, and whoever leaves cancels their work alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.connection import ClientGone, header, read_body, read_headers, while_connected
from services.faults import BadRequest, TooLarge


def messages(*listed: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    queue = iter(listed)

    async def receive() -> dict[str, Any]:
        return next(queue)

    return receive


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_read_whole_and_no_further_than_the_limit() -> None:
    assert await read_body(messages(part(b"ab"), part(b""), part(b"c", more=False)), 3) == b"abc"
    with pytest.raises(TooLarge):
        await read_body(messages(part(b"ab"), part(b"cd")), 3)
    with pytest.raises(ClientGone):
        await read_body(messages(part(b"ab"), {"type": "http.disconnect"}), 3)


def test_headers_that_stand_twice_are_joined_or_refused() -> None:
    found = read_headers([(b"accept-encoding", b"gzip"), (b"accept-encoding", b"deflate")])
    assert header(found, "accept-encoding") == "gzip, deflate"
    with pytest.raises(BadRequest):
        read_headers([(b"x-weighbridge-unit", b"a")] * 2)


def test_a_header_is_utf8_or_latin1_and_an_empty_one_is_absent() -> None:
    found = {b"a": "é".encode(), b"b": b" \xe9\t", b"c": b"  "}
    assert [header(found, name) for name in "abcd"] == ["é", "é", None, None]


async def test_work_is_answered_while_the_client_is_there() -> None:
    forever = asyncio.Event()

    async def stays() -> dict[str, Any]:
        await forever.wait()
        return {"type": "http.disconnect"}

    async def work() -> str:
        await asyncio.sleep(0.1)
        return "done"

    assert await while_connected(work(), stays) == "done"
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1, "nobody goes on watching"


async def test_a_client_that_leaves_cancels_its_work_and_nobody_elses() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await while_connected(work(), messages({"type": "http.disconnect"}))
    assert cancelled.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def stays() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(while_connected(asyncio.Event().wait(), stays))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
