"""Threads that give way: those started inside, and nobody else."""

import os
import threading

import pytest

from services.background import in_background

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone knows it")


def policy_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
    thread.start()
    thread.join()
    return found[0]


def test_threads_started_inside_give_way_and_the_starter_does_not() -> None:
    before = os.sched_getscheduler(0)
    if before != os.SCHED_OTHER:
        pytest.skip("this process is scheduled in a way of its own, which stays")
    with in_background():
        assert policy_of_a_new_thread() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before
    assert policy_of_a_new_thread() == before


def test_the_starter_is_as_before_after_a_failure() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(OSError, match="no port"), in_background():
        raise OSError("no port")
    assert os.sched_getscheduler(0) == before
