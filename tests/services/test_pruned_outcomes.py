"""Leaves go when the outcomes in them are noted down for good; so they stay known."""

import shutil

import pytest

from audit import pruning
from audit.errors import LogUnavailable
from audit.reader import LogReader
from services.ledger import LocalLedger
from services.masterkey import load_or_create_keyring
from services.outcomes import Outcomes
from services.reported import OUTCOMES_NAME, OutcomesBehind, open_reported
from services.settings import Settings
from tests.audit.pruneworld import living
from tests.audit.worlds import ORIGIN
from tests.services.outcomeworld import call, full

NUMBERS = range(700)


@pytest.fixture
def chosen(tmp_path):
    return Settings(home=tmp_path / "home", origin=ORIGIN)


@pytest.fixture
def ring(chosen):
    return load_or_create_keyring(chosen)


async def with_outcomes(world):
    """Outcomes of this log, whose records may go."""
    reported = await open_reported(world.notary, world.ring)
    world.pruning.keep_more = reported.keep
    return Outcomes(world.notary, world.ring, reported), reported


async def make_prunable(world):
    await world.decide(300, at=0)
    await world.pruning.roll()
    await world.decide(300, at=0)
    await world.notary.checkpoint()
    world.hours = 1e6


async def test_no_leaf_goes_while_its_outcomes_cannot_be_noted_down(chosen, ring) -> None:
    async with living(chosen.home, ring) as world:
        outcomes, reported = await with_outcomes(world)
        full(reported._book)
        await outcomes.report(call(NUMBERS))
        await make_prunable(world)
        size = world.notary.size
        with pytest.raises(OutcomesBehind, match="remembered in memory alone"):
            await world.prune()
        assert (world.notary.size, world.notary.reader().first()) == (size, 0)
        reported._book._file._db.execute("PRAGMA max_page_count = 100000")
        first = (await world.prune()).first_leaf
        assert first > len(NUMBERS)
        assert reported.in_memory == 0
        assert (await outcomes.report(call(NUMBERS)))["repeated"] == len(NUMBERS)
        await outcomes.close()
        with pytest.raises(OutcomesBehind):
            await reported.keep(first)


async def test_what_goes_is_known_after_a_power_cut(chosen, ring, tmp_path) -> None:
    async with living(chosen.home, ring) as world:
        outcomes, _ = await with_outcomes(world)
        await outcomes.report(call(NUMBERS))
        await make_prunable(world)
        await world.prune()
        # What was not waited for is in the `-wal`, and is lost with it.
        kept = shutil.copy(chosen.log_dir / OUTCOMES_NAME, tmp_path / "kept")
        await outcomes.close()
        shutil.copy(kept, chosen.log_dir / OUTCOMES_NAME)
        outcomes, _ = await with_outcomes(world)
        assert (await outcomes.report(call(NUMBERS)))["repeated"] == len(NUMBERS)
        await outcomes.close()


async def interrupted(chosen, ring, monkeypatch):
    """A log whose pruning was begun; no outcome of it was noted down."""
    async with living(chosen.home, ring) as world:
        outcomes, _ = await with_outcomes(world)
        await outcomes.report(call(NUMBERS))
        await make_prunable(world)
        with monkeypatch.context() as refusing:
            refusing.setattr(pruning, "prune_files", no_room)
            with pytest.raises(LogUnavailable, match="no room"):
                await world.prune()
        await outcomes.close()
    (chosen.log_dir / OUTCOMES_NAME).unlink()


def no_room(*_):
    raise OSError("no room")


async def test_an_interrupted_pruning_waits_until_its_outcomes_are_noted_down(
    chosen, ring, monkeypatch, caplog
) -> None:
    await interrupted(chosen, ring, monkeypatch)
    path = chosen.log_dir / OUTCOMES_NAME
    path.mkdir()  # no file can be there
    for repaired in (False, True):
        ledger = LocalLedger(chosen)
        await ledger.open()
        try:
            told = await ledger.outcomes.report(call(NUMBERS))
            assert (told["recorded"], told["repeated"]) == (0, len(NUMBERS))
            assert (LogReader(chosen.log_dir).first() > len(NUMBERS)) is repaired
        finally:
            await ledger.close()
        if not repaired:
            assert "is left for the next one or start" in caplog.text
            path.rmdir()
