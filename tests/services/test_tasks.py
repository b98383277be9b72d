"""Work beside the answers does not end in silence, and says nothing of what it held."""

import asyncio

from services.tasks import begin


async def test_what_ends_over_something_unforeseen_is_said_without_its_text(caplog) -> None:
    async def fails() -> None:
        raise KeyError("alice")

    task = begin(fails(), "counting answers")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert caplog.messages == ["counting answers ended over a KeyError, until the next start"]


async def test_what_is_cancelled_or_done_is_nothing_to_say(caplog) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    async def ends() -> None:
        pass

    for task in (begin(waits(), "a"), begin(ends(), "b")):
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await asyncio.sleep(0)
    assert caplog.messages == []
