"""Outcomes: one record per event id, whatever fails and whoever leaves."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from audit.errors import LogUnavailable
from audit.keys import Keyring
from audit.notary import Notary
from audit.record import Outcome
from audit.testing import MemoryNotary
from services.faults import BadRequest, Conflict
from tests.services.outcomeworld import opened

ONE = {"event_id": "e1", "unit": "alice", "metric": "clicked", "value": 1}
ID = "01a20033-c953-732b-b132-76c50ea53f5a"


@pytest.fixture
def notary() -> MemoryNotary:
    return MemoryNotary()


@pytest.fixture
async def outcomes(notary: MemoryNotary, tmp_path: Path):
    made = await opened(notary, tmp_path)
    yield made
    await made.close()


async def test_a_repeat_makes_no_second_record_and_a_conflict_none_at_all(outcomes, notary) -> None:
    first = await outcomes.report(ONE)
    assert first == {"recorded": 1, "repeated": 0, "leaves": [0]}
    assert (await outcomes.report(ONE | {"value": 1.0}))["repeated"] == 1
    with pytest.raises(Conflict):
        await outcomes.report({"outcomes": [ONE | {"event_id": "e2"}, ONE | {"value": 0}]})
    assert notary.size == 1
    assert b"alice" not in notary.entries[0].data


async def test_what_the_log_holds_is_remembered_at_start(outcomes, notary, tmp_path) -> None:
    await outcomes.report(ONE)
    await outcomes.close()
    later = await opened(notary, tmp_path)
    assert await later.report(ONE) == {"recorded": 0, "repeated": 1, "leaves": [0]}
    with pytest.raises(Conflict):
        await later.report(ONE | {"value": 0})
    assert notary.size == 1
    await later.close()


@pytest.mark.parametrize("fault", ["not-stored", "stored"])
async def test_a_refused_call_may_be_repeated(outcomes, notary, fault) -> None:
    notary.fault = fault
    with pytest.raises(LogUnavailable):
        await outcomes.report({"outcomes": [ONE, ONE | {"event_id": "e2"}]})
    notary.fault = None
    await outcomes.report({"outcomes": [ONE, ONE | {"event_id": "e2"}]})
    found = [e.event.event_id for e in notary.entries if isinstance(e.event, Outcome)]
    assert sorted(found) == ["e1", "e2"]


async def test_an_outcome_is_on_disk_when_its_leaf_is_told_whatever_routes_may_promise(tmp_path):
    keyring = Keyring.load_or_create(tmp_path / "keys")
    notary = await Notary.open(
        tmp_path / "log", keyring, origin="example.com/outcomes", durability="bounded"
    )
    outcomes = await opened(notary, tmp_path)
    found = await outcomes.report({"outcomes": [ONE, ONE | {"event_id": "e2"}]})
    assert (found["leaves"], notary.size) == ([0, 1], 2)
    await outcomes.close()
    await notary.close()


async def test_thousands_in_one_call_leave_others_their_turns(outcomes, notary, monkeypatch):
    parsed, seen = [], []
    parse = outcomes._parse
    monkeypatch.setattr(outcomes, "_parse", lambda *one: parsed.append(1) or parse(*one))

    async def others():
        while True:
            seen.append((len(parsed), notary.size))
            await asyncio.sleep(0)

    watching = asyncio.create_task(others())
    listed = [ONE | {"event_id": f"e{n}"} for n in range(10_000)]
    told = await outcomes.report({"outcomes": listed})
    watching.cancel()
    assert told == {"recorded": 10_000, "repeated": 0, "leaves": list(range(10_000))}
    most = max(max(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(seen))
    assert most <= 64


class Slow(MemoryNotary):
    """Stores when `gate` opens; refuses the event ids in `bad`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.bad: set[str] = set()

    async def append(self, event, *, payloads=None, subject=None, durability=None):
        self.asked.set()
        await self.gate.wait()
        if event.event_id in self.bad:
            raise LogUnavailable("injected")
        return await super().append(event)


async def test_one_refusal_does_not_forget_what_its_peers_recorded(tmp_path) -> None:
    notary = Slow()
    notary.gate.set()
    notary.bad = {"e0"}
    outcomes = await opened(notary, tmp_path)
    call = {"outcomes": [ONE | {"event_id": f"e{n}"} for n in range(5)]}
    with pytest.raises(LogUnavailable):
        await outcomes.report(call)
    notary.bad = set()
    assert (await outcomes.report(call))["recorded"] == 1
    assert notary.size == 5
    await outcomes.close()


async def test_a_caller_who_leaves_is_remembered_all_the_same(tmp_path) -> None:
    notary = Slow()
    outcomes = await opened(notary, tmp_path)
    call = asyncio.create_task(outcomes.report(ONE))
    await notary.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    again = asyncio.create_task(outcomes.report(ONE))
    notary.gate.set()
    assert (await again)["repeated"] == 1
    assert notary.size == 1
    await outcomes.close()


async def test_closing_waits_for_what_is_under_way(tmp_path) -> None:
    notary = Slow()
    outcomes = await opened(notary, tmp_path)
    call = asyncio.create_task(outcomes.report(ONE))
    await notary.asked.wait()
    closing = asyncio.create_task(outcomes.close())
    await asyncio.sleep(0)
    notary.gate.set()
    await closing
    assert (await call)["recorded"] == 1
    later = await opened(notary, tmp_path)
    assert (await later.report(ONE))["repeated"] == 1
    await later.close()


@pytest.mark.parametrize(
    "change",
    [
        {"value": "1"},
        {"value": None},
        {"value": 10**16},
        {"value": float("nan")},
        {"observed_us": True},
        {"observed_us": 2**53},
        {"event_id": ""},
        {"event_id": "x" * 257},
        {"metric": 5},
        {"decision": "not an id"},
        {"unit": None},
        {"extra": 1},
    ],
)
async def test_an_odd_outcome_is_refused_and_nothing_of_its_call_recorded(
    outcomes, notary, change
) -> None:
    with pytest.raises(BadRequest):
        await outcomes.report({"outcomes": [ONE, ONE | {"event_id": "e2"} | change]})
    assert notary.size == 0


async def test_booleans_and_whole_numbers_are_values(outcomes, notary) -> None:
    odd = [ONE | {"event_id": "t", "value": True, "decision": ID}, ONE | {"value": 0.25}]
    await outcomes.report({"outcomes": odd})
    assert [e.event.value for e in notary.entries] == ["1", "0.25"]
