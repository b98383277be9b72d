"""Each outcome is recognised, whatever the disk does and however the process ends."""

import asyncio
import gc
import shutil
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import LogDamaged, LogUnavailable
from audit.keys import Keyring
from audit.link_client import NotaryClient
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Outcome
from audit.testing import MemoryNotary, MemoryReader
from services import reported as reporting
from services.faults import Conflict
from services.ledger import LocalLedger
from services.outcomes import Outcomes
from services.reported import Reported
from services.settings import Settings
from tests.audit.worlds import decision
from tests.services.outcomeworld import NAME, SECRET, call, full, opened, outcome, promoted

SERVICES = Path(reporting.__file__).parent


async def test_a_full_disk_costs_no_outcome_and_makes_none_twice(tmp_path, caplog) -> None:
    notary = MemoryNotary()
    outcomes = await opened(notary, tmp_path)
    await outcomes.report(call(range(10)))
    await outcomes._reported.catch_up()
    book = outcomes._reported._book
    full(book)
    told = await outcomes.report(call(range(600)))
    assert (told["recorded"], told["repeated"]) == (590, 10)
    for _ in range(2):
        await outcomes._reported.catch_up()
    assert (book.covered, outcomes._reported.in_memory) == (10, 590)
    assert len(caplog.records) == 1
    assert "SQLITE_FULL" in caplog.text
    assert (await outcomes.report(call(range(600))))["repeated"] == 600
    with pytest.raises(Conflict):
        await outcomes.report(call([500], value=0))
    await outcomes.close()  # in vain
    later = await opened(notary, tmp_path)
    told = await later.report(call(range(600)))
    assert (told["repeated"], notary.size) == (600, 600)
    await later.close()


async def test_when_the_disk_has_room_again_memory_is_given_back(tmp_path) -> None:
    notary = MemoryNotary()
    outcomes = await opened(notary, tmp_path)
    reported = outcomes._reported
    full(reported._book)
    await outcomes.report(call(range(600)))
    await reported.catch_up()
    assert reported.in_memory == 600
    reported._book._file._db.execute("PRAGMA max_page_count = 100000")
    await reported.catch_up()
    assert (reported.in_memory, reported._book.covered) == (0, 600)
    await outcomes.close()


def held_by_services():
    """Bytes that the code of `services` allocated and that are still held."""
    gc.collect()
    found = tracemalloc.take_snapshot().statistics("filename")
    return sum(one.size for one in found if one.traceback[0].filename.startswith(str(SERVICES)))


async def test_memory_does_not_grow_with_the_number_of_outcomes(tmp_path) -> None:
    outcomes = await opened(MemoryNotary(), tmp_path)
    reported, held = outcomes._reported, []
    tracemalloc.start()
    try:
        for start in range(0, 8000, 2000):
            await outcomes.report(call(range(start, start + 2000)))
            assert reported.in_memory <= 2 * 4096 + 2000
            await reported.catch_up()
            assert reported.in_memory == 0
            held.append(held_by_services())
    finally:
        tracemalloc.stop()
    assert held[-1] - held[0] < 6000 * 10  # a dict of what was reported: 6000 * 93 and more
    await outcomes.close()


async def test_what_the_book_has_not_read_stays_in_memory(tmp_path) -> None:
    notary = MemoryNotary()
    before = MemoryReader(list(notary.entries))
    reported = await Reported.open(tmp_path / NAME, SECRET, before)
    receipt = await notary.append(outcome(1))
    named = reported.name(outcome(1))
    reported.note(named, receipt.index)
    await reported.catch_up()
    assert await reported.find([named.key]) == {named.key: (0, named.content)}
    await reported.close()


async def test_the_book_is_brought_up_to_date_without_being_asked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reporting, "_MANY", 20)
    outcomes = await opened(MemoryNotary(), tmp_path)
    reported = outcomes._reported
    for start in range(0, 400, 10):
        await outcomes.report(call(range(start, start + 10)))
        assert reported.in_memory <= 2 * 20 + 10
    assert reported._book.covered > 300
    await outcomes.close()


@pytest.mark.parametrize("durability", ["strict", "bounded"])
async def test_an_outcome_that_came_over_the_link_is_known_at_once(tmp_path, durability) -> None:
    ledger = LocalLedger(Settings(home=tmp_path / "home"))
    await ledger.open()
    client = NotaryClient(tmp_path / "home" / "run" / "notary.sock")
    try:
        theirs = replace(outcome(1, event_id="e1"), unit_ref=ledger.keyring.unit_ref("alice"))
        await client.append(theirs, durability=durability)
        told = await ledger.outcomes.report(call([1]))
        assert (told["repeated"], told["leaves"]) == (1, [ledger.notary.size - 1])
        with pytest.raises(Conflict):
            await ledger.outcomes.report(call([1], value=0))
    finally:
        await client.close()
        await ledger.close()


async def test_what_came_over_the_link_while_the_disk_was_full_is_read_later(tmp_path) -> None:
    notary = MemoryNotary()
    outcomes = await opened(notary, tmp_path)
    reported = outcomes._reported
    full(reported._book)
    unit = outcomes._keyring.unit_ref("alice")
    for number in range(600):
        await notary.append(replace(outcome(number, event_id=f"e{number}"), unit_ref=unit))
    outcomes.heard()
    assert (await outcomes.report(call([1000])))["recorded"] == 1
    reported._book._file._db.execute("PRAGMA max_page_count = 100000")
    assert (await outcomes.report(call(range(600))))["repeated"] == 600
    await outcomes.close()


async def test_what_came_over_the_link_is_known_while_the_book_cannot_be_written(tmp_path) -> None:
    notary = MemoryNotary()
    outcomes = await opened(notary, tmp_path)
    reported = outcomes._reported
    await outcomes.report(call([5000]))
    await reported.catch_up()
    full(reported._book)
    unit = outcomes._keyring.unit_ref("alice")
    for number in [*range(5000), 5000]:
        await notary.append(replace(outcome(number, event_id=f"e{number}"), unit_ref=unit))
    outcomes.heard()
    told = await outcomes.report(call(range(5001)))
    assert (told["recorded"], told["leaves"]) == (0, [*range(1, 5001), 0])
    with pytest.raises(Conflict):
        await outcomes.report(call([1], value=0))
    await outcomes.report(call([7000]))
    await notary.append(replace(outcome(6000, event_id="e6000"), unit_ref=unit))
    outcomes.heard()
    assert (await outcomes.report(call([7000, 6000])))["recorded"] == 0
    reported._book._file._db.execute("PRAGMA max_page_count = 100000")
    await reported.catch_up()
    assert reported.in_memory == 0
    assert (await outcomes.report(call(range(5001))))["recorded"] == 0
    await outcomes.close()


async def test_what_came_over_the_link_and_cannot_be_read_is_not_passed_over(
    tmp_path, monkeypatch
) -> None:
    notary, settling = MemoryNotary(), []

    async def settled():
        if settling.pop():
            raise LogUnavailable("injected")

    reported = await Reported.open(tmp_path / NAME, SECRET, notary.reader(), settled=settled)
    receipt = await notary.append(outcome(1))
    key, content = reported.name(outcome(1))
    reported.heard()
    settling += [False, False, True]
    with pytest.raises(LogUnavailable, match="injected"):
        await reported.find([key])
    with monkeypatch.context() as broken:
        broken.setattr(MemoryReader, "bundles", unreadable)
        with pytest.raises(LogUnavailable, match="LogDamaged"):
            await reported.find([key])
    assert await reported.find([key]) == {key: (receipt.index, content)}
    await reported.close()


def unreadable(*_):
    raise LogDamaged(Path("wal"), offset=0, expected="a segment", found="none")


KEEPER = """
import asyncio, sys
from pathlib import Path
from services import reported
from services.ledger import LocalLedger
from services.settings import Settings

reported._MANY = 8

async def keep():
    ledger = LocalLedger(Settings(home=Path(sys.argv[1])))
    await ledger.open()
    for number in range(1 << 30):
        one = {"event_id": f"e{number}", "unit": "alice", "metric": "clicked", "value": 1}
        told = await ledger.outcomes.report(one)
        print(told["leaves"][0], flush=True)

asyncio.run(keep())
"""


def killed_after(home, told):
    """What a process that takes outcomes had told when it was killed."""
    command = [sys.executable, "-c", KEEPER, home]
    with subprocess.Popen(
        command, cwd=SERVICES.parent, stdout=subprocess.PIPE, text=True
    ) as keeper:
        leaves = [int(keeper.stdout.readline()) for _ in range(told)]
        keeper.kill()
    return leaves


@pytest.mark.parametrize("told", [1, 30, 77])
async def test_after_kill_9_all_that_was_told_is_recognised(tmp_path, told) -> None:
    leaves = killed_after(tmp_path / "home", told)
    ledger = LocalLedger(Settings(home=tmp_path / "home"))
    await ledger.open()
    try:
        again = await ledger.outcomes.report(call(range(told)))
        assert again == {"recorded": 0, "repeated": told, "leaves": leaves}
    finally:
        await ledger.close()


async def test_a_ledger_reads_its_log_once_and_then_what_came_since(tmp_path, monkeypatch) -> None:
    chosen = Settings(home=tmp_path / "home")
    ledger = LocalLedger(chosen)
    await ledger.open()
    await asyncio.gather(*[ledger.notary.append(decision(n)) for n in range(1, 301)])
    await ledger.outcomes.report(call(range(50)))
    await ledger.append(promoted(1, "3"))
    size = ledger.notary.size
    await ledger.close()

    given = []
    monkeypatch.setattr(Notary, "reader", lambda notary: Counted(notary.directory, given))
    ledger = LocalLedger(chosen)
    await ledger.open()
    try:
        assert sum(given) == 1 + ledger.notary.size - size
        assert await ledger.leading_now() == {"income": "3"}
        assert (await ledger.outcomes.report(call(range(50))))["repeated"] == 50
    finally:
        await ledger.close()


class Counted(LogReader):
    """Says in a list how many leaves it gave to the thread of outcomes."""

    def __init__(self, directory, given):
        super().__init__(directory)
        self.given = given

    def bundles(self, start=None, end=None):
        for first, bundle in super().bundles(start, end):
            if threading.current_thread().name.startswith("outcomes"):
                self.given.append(len(bundle))
            yield first, bundle


# --- anything in any order ----------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("report"),
            st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=4),
        ),
        st.tuples(st.sampled_from(["restart", "crash", "catch up", "refused", "stored"])),
        st.tuples(st.just("decide"), st.integers(1, 5)),
    ),
    max_size=25,
)


class Life:
    """Outcomes over restarts and crashes, beside a plain dict."""

    def __init__(self, folder):
        self.folder, self.lives, self.seq = folder, 0, 0
        self.notary = MemoryNotary()
        self.keyring = Keyring.load_or_create(folder / "keys")
        self.model = {}  # event id: value, leaf

    async def begin(self):
        self.path = self.folder / str(self.lives) / NAME
        self.path.parent.mkdir(exist_ok=True)
        reader = MemoryReader(self.notary.entries, group=3)
        self.reported = await Reported.open(self.path, SECRET, reader)
        self.outcomes = Outcomes(self.notary, self.keyring, self.reported)

    async def restart(self):
        await self.outcomes.close()
        await self.begin()

    async def crash(self):
        self.lives += 1
        shutil.copytree(self.path.parent, self.folder / str(self.lives))
        await self.outcomes.close()  # of the copy that nobody reads any more
        await self.begin()

    async def report(self, listed):
        body = {
            "outcomes": [
                {"event_id": f"e{n}", "unit": "u", "metric": "m", "value": value}
                for n, value in listed
            ]
        }
        known = dict(self.model)
        sound = all(known.setdefault(n, (value, None))[0] == value for n, value in listed)
        if not sound:
            with pytest.raises(Conflict):
                await self.outcomes.report(body)
            return
        told = await self.outcomes.report(body)
        fresh = {n: value for n, value in listed if n not in self.model}
        assert (told["recorded"], told["repeated"]) == (len(fresh), len(listed) - len(fresh))
        for (n, value), leaf in zip(listed, told["leaves"], strict=True):
            assert self.model.setdefault(n, (value, leaf)) == (value, leaf)

    async def step(self, kind, argument=None):
        if kind == "report":
            await self.report(argument)
        elif kind == "decide":
            for _ in range(argument):
                self.seq += 1
                await self.notary.append(decision(self.seq))
        elif kind == "catch up":
            await self.reported.catch_up()
        elif kind in ("refused", "stored"):
            await self.fail("not-stored" if kind == "refused" else "stored")
        else:
            await (self.restart() if kind == "restart" else self.crash())

    async def fail(self, fault):
        """One whose append fails; stored all the same, it is on record."""
        number, before = 100 + len(self.model), self.notary.size
        self.notary.fault = fault
        with pytest.raises(Exception, match="injected"):
            await self.outcomes.report(
                {"event_id": f"e{number}", "unit": "u", "metric": "m", "value": 1}
            )
        self.notary.fault = None
        if fault == "stored":
            self.model[number] = (1, before)
            await self.report([(number, 1)])

    def check(self):
        found = [e.event for e in self.notary.entries if isinstance(e.event, Outcome)]
        assert len(found) == len(self.model)
        assert {e.event_id: e.value for e in found} == {
            f"e{n}": str(value) for n, (value, _) in self.model.items()
        }


@settings(max_examples=40)
@given(STEPS)
def test_whatever_happens_each_outcome_is_on_record_once_and_is_recognised(steps) -> None:
    async def live(folder):
        life = Life(folder)
        await life.begin()
        for step in steps:
            await life.step(*step)
            life.check()
        await life.restart()
        await life.report([(n, value) for n, (value, _) in life.model.items()] or [(0, 0)])
        life.check()
        await life.outcomes.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))
