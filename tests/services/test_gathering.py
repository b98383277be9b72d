"""Calls that gather: who is alone is never held, who is expected is waited for, nobody for ever."""

import asyncio

from services.gathering import Gathering


async def released(gathering: Gathering, *calls: object) -> list[asyncio.Task[None]]:
    """The calls' tasks after they have come in, in order; some may still wait."""
    tasks = [asyncio.create_task(gathering.arrive(call)) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_the_calls_of_one_client_are_never_held() -> None:
    gathering = Gathering()
    for call in range(100):
        (task,) = await released(gathering, call)
        assert task.done()
        gathering.leave(call)


async def two_clients() -> Gathering:
    """A gathering that has seen two calls at once, both answered by now."""
    gathering = Gathering()
    await released(gathering, "first")
    await asyncio.wait_for(asyncio.gather(*await released(gathering, "a", "b")), 5)
    for call in ("first", "a", "b"):
        gathering.leave(call)
    return gathering


async def test_calls_that_were_there_together_go_on_together_again() -> None:
    gathering = await two_clients()
    for _ in range(20):
        (early,) = await released(gathering, "c")
        assert not early.done()
        (last,) = await released(gathering, "d")
        await asyncio.sleep(0)  # one turn of the loop, and no clock
        assert early.done()
        assert last.done()
        gathering.leave("c")
        gathering.leave("d")


async def test_what_did_not_come_is_not_expected_again() -> None:
    gathering = await two_clients()
    (vain,) = await released(gathering, "c")
    assert not vain.done()
    await asyncio.wait_for(vain, 5)
    gathering.leave("c")
    (next_one,) = await released(gathering, "d")
    assert next_one.done()


async def test_a_slow_call_does_not_hold_the_quick_ones_beside_it() -> None:
    gathering = Gathering()
    await released(gathering, "slow")
    (first,) = await released(gathering, "quick")
    await asyncio.wait_for(first, 5)
    gathering.leave("quick")
    for call in range(100):
        (task,) = await released(gathering, call)
        assert task.done()
        gathering.leave(call)
    gathering.leave("slow")


async def test_calls_that_keep_coming_do_not_hold_the_first_for_ever() -> None:
    gathering = Gathering()
    await released(gathering, "slow")
    (first,) = await released(gathering, "first")
    others = []
    async with asyncio.timeout(5):
        while not first.done():
            others += await released(gathering, object())
            await asyncio.sleep(0.0001)
        await asyncio.gather(*others)


async def test_a_call_that_is_given_up_while_it_waits_leaves_the_others_alone() -> None:
    gathering = Gathering()
    await released(gathering, "slow")
    gone, stays = await released(gathering, "gone", "stays")
    gone.cancel()
    gathering.leave("gone")
    await asyncio.wait_for(stays, 5)
    assert gone.cancelled()
