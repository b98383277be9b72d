"""Bounded durability: the answer does not wait for the disk, and no promise is given up."""

import asyncio

import pytest

from audit.errors import LogUnavailable
from audit.notary import Notary
from audit.reader import LogReader
from audit.receipts import PROMISED
from audit.testing import FaultyFiles, check_log
from tests.audit.worlds import ORIGIN, decision, leaf_of, make_keyring

BOUND_S = 0.05


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
def files():
    return FaultyFiles()


@pytest.fixture
async def notary(tmp_path, ring, files):
    opened = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, files=files, durability="bounded", bound_s=BOUND_S
    )
    yield opened
    await opened.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the writer's thread sets no event
            await asyncio.sleep(0.001)


def stored(tmp_path):
    return [entry.event.seq for entry in LogReader(tmp_path / "log").entries()]


async def test_a_promise_names_the_leaf_before_it_has_a_place(notary):
    receipt = await notary.append(decision(1))
    assert receipt == (ORIGIN, PROMISED, leaf_of(decision(1)))
    assert str(receipt) == f"{ORIGIN}#sha256:{leaf_of(decision(1)).hex()}"
    placed = await notary.append(decision(2), durability="strict")
    assert str(placed) == f"{ORIGIN}#1"


async def test_every_promise_is_kept_in_order(notary, tmp_path, ring):
    await asyncio.gather(*[notary.append(decision(n)) for n in range(1, 301)])
    await notary.close()
    assert stored(tmp_path) == list(range(1, 301))
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_the_same_event_again_makes_no_second_record(notary, tmp_path):
    first = await notary.append(decision(1))
    assert await notary.append(decision(1)) == first
    await notary.close()
    assert stored(tmp_path) == [1]


async def test_a_promise_is_no_answer_to_the_same_event_as_strict(notary, files, tmp_path):
    for durability, seq in (("strict", 1), ("async", 2)):
        assert (await notary.append(decision(seq))).index == PROMISED
        placed = [notary.append(decision(seq), durability=durability) for _ in range(3)]
        assert {receipt.index for receipt in await asyncio.gather(*placed)} == {seq - 1}
    with files.failing("not-stored"):
        promise = await notary.append(decision(3))
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                async with asyncio.timeout(10):
                    await notary.append(decision(3), durability="strict")
        assert await notary.append(decision(3)) == promise
    assert (await notary.append(decision(3), durability="strict")).index == 2
    await notary.close()
    assert stored(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("fault", ["not-stored", "short", "stored"])
async def test_a_promise_outlives_a_disk_that_fails(notary, files, tmp_path, ring, fault):
    await notary.append(decision(1), durability="strict")
    with files.failing(fault):
        await notary.append(decision(2))
        with pytest.raises(LogUnavailable):  # strict ones learn of it, and are not stored
            await notary.append(decision(3), durability="strict")
        await until(lambda: notary.failure is not None)
        refused = 0
        for n in range(3, 1000):  # beyond the bound, nothing is promised any more
            try:
                await notary.append(decision(n))
            except LogUnavailable:
                refused = n
                break
            await asyncio.sleep(BOUND_S / 20)
        assert refused
    await notary.append(decision(refused), durability="strict")
    await notary.close()
    assert stored(tmp_path) == list(range(1, refused + 1))
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_promises_are_tried_again_without_another_append(notary, files, tmp_path):
    with files.failing("not-stored"):
        await notary.append(decision(1))
        await until(lambda: notary.failure is not None)
    await until(lambda: notary.size)
    assert stored(tmp_path) == [1]


async def test_closing_on_a_dead_disk_says_what_was_promised_and_lost(
    tmp_path, ring, files, caplog
):
    opened = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, files=files, durability="bounded"
    )
    with files.failing("not-stored"):
        await opened.append(decision(1))
        strict = asyncio.ensure_future(opened.append(decision(1), durability="strict"))
        await asyncio.sleep(0)
        await opened.close()
        with pytest.raises(LogUnavailable):
            async with asyncio.timeout(10):
                await strict
    assert "1 promised records could not be stored" in caplog.text
