"""Work of large requests: off the loop, few at a time, and with its own errors."""

import asyncio
import threading

import pytest

from services.large import aside


async def test_work_is_done_in_another_thread_and_its_error_comes_back():
    assert await aside(threading.get_ident) != threading.get_ident()
    assert await aside(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await aside(int, "x")


async def test_the_loop_goes_on_and_large_requests_queue_behind_one_another():
    running, most, gate = 0, 0, threading.Event()
    lock = threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(30)
        with lock:
            running -= 1

    tasks = [asyncio.create_task(aside(work)) for _ in range(8)]
    while most < 2:  # only a loop that is not held up sees this  # noqa: ASYNC110
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert most == 2
