"""What a process counted is on record: regularly while it answers, and at its end."""

import asyncio

from audit.events import Counters
from audit.testing import MemoryNotary
from services.tally import Tally


class Counted:
    """A recorder's counts."""

    instance = "0000000a"

    def __init__(self, seq, recorded, under_way=0):
        self.seq, self.recorded, self.under_way = seq, recorded, under_way


def events(notary):
    return [entry.event for entry in notary.entries]


async def test_the_end_says_that_nothing_is_on_its_way() -> None:
    notary, recorder = MemoryNotary(), Counted(7, 5)
    tally = Tally(notary, recorder)
    tally.start(answered=lambda: 4, traced=lambda: 3)
    await tally.close()
    (event,) = events(notary)
    assert isinstance(event, Counters)
    assert (event.seq, event.recorded, event.refused) == (7, 5, 2)
    assert (event.answered, event.traced, event.final) == (4, 3, True)


async def test_a_process_without_answers_counts_nothing() -> None:
    notary = MemoryNotary()
    await Tally(notary, Counted(0, 0)).close()
    assert events(notary) == []


class Watched(MemoryNotary):
    """Says when something was tried."""

    def __init__(self):
        super().__init__()
        self.tried = asyncio.Event()

    async def append(self, event, **options):
        self.tried.set()
        return await super().append(event, **options)


async def test_it_is_repeated_while_there_are_new_answers_and_survives_a_full_disk() -> None:
    notary, recorder = Watched(), Counted(2, 1, 1)
    tally = Tally(notary, recorder, interval_s=0.001)
    notary.fault = "not-stored"
    tally.start(answered=lambda: 1, traced=lambda: 0)
    async with asyncio.timeout(5):
        await notary.tried.wait()
        assert events(notary) == []
        notary.fault = None
        notary.tried.clear()
        recorder.seq = 3
        await notary.tried.wait()
    assert (events(notary)[0].refused, events(notary)[0].final) == (1, False)
    recorder.under_way, recorder.recorded = 0, 3
    await tally.close()
    assert [event.final for event in events(notary)] == [False, True]  # nothing new between
