"""What reads a pruned log: packs, Parquet files, questions, reports, the notary's socket."""

import asyncio
import shutil

import pytest

from audit import verify as verifying
from audit.complete import check_complete
from audit.errors import LeafPruned, NotPrunable
from audit.manifest import Destination, ParquetMismatch
from audit.pack_range import Wanted, choose
from audit.parquet import check, drop_pruned, export
from audit.pruneplan import Plan, Segment
from audit.pruning import PRUNES
from audit.reader import LogReader
from audit.record import original
from audit.report.data import Period
from audit.report.gather import gather
from audit.socket_link import NotaryClient, serve
from audit.sql import Tables
from audit.verify import verify_log
from tests.audit.packworld import export as export_pack
from tests.audit.packworld import verify
from tests.audit.pruneworld import living
from tests.audit.test_pruning import old_and_new
from tests.audit.worlds import ORIGIN, START_US, World, decision, make_keyring


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


async def spread(log):
    """400 decisions that may go and 400 that stay, a millisecond apart."""
    for seq in range(1, 801):
        if seq == 401:
            await log.pruning.roll()
        await log.notary.append(decision(seq))
    await log.notary.checkpoint()
    log.hours = 0.000_111  # 0.4 s


async def test_a_pack_of_a_pruned_log_satisfies_the_verifier(tmp_path, ring, capsys) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        await spread(log)
        earlier = LogReader(log.directory).checkpoint()
        await log.prune()
        await log.notary.checkpoint()
        world = World(log.directory, ring, ())
        for first, last in ((500, 600), (1, 700), (257, 300), (258, 258)):
            pack = export_pack(world, first, last, since=earlier)
            said = verify(pack, tmp_path, capsys, "--key", log.ring.verifier_key(ORIGIN))
            assert (said.status, said.problems) == (0, []), said.text
        for first, last in ((1, 200), (100, 256)):
            with pytest.raises(LeafPruned, match="records of that time were pruned"):
                export_pack(world, first, last)


@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_pack_that_begins_later_than_asked_for_says_so(tmp_path, ring, at_once) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        for seq in range(1, 801):  # answers of one batch have one moment
            if seq == 401:
                await log.pruning.roll()
            await log.notary.append(decision(seq, time_us=START_US + seq // at_once * 1000))
        await log.notary.checkpoint()
        log.hours = 0.4 / at_once / 3600
        await log.prune()
        await log.notary.checkpoint()
        reader, key = LogReader(log.directory), log.ring.verifier_key(ORIGIN)
        assert reader.first() == 256
        assert choose(reader, Wanted(from_us=0, to_us=1 << 60, log_key=key)).pruned
        later = Wanted(from_us=START_US + 790 // at_once * 1000, to_us=1 << 60, log_key=key)
        assert not choose(reader, later).pruned


@pytest.mark.parametrize("check", [verify_log, check_complete])
@pytest.mark.parametrize("step", ["kept_checkpoints", "check_payload_files"])
async def test_a_log_that_is_pruned_while_it_is_verified_is_whole(
    tmp_path, ring, monkeypatch, check, step
) -> None:
    """Before the leaves are read, and after that: the files that it would read are gone."""
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=300, new=50)
        loop, pruned = asyncio.get_running_loop(), []
        real = getattr(verifying, step)

        def prunes(*args, **options):
            if not pruned:
                pruned.append(asyncio.run_coroutine_threadsafe(log.prune(), loop).result(60))
            return real(*args, **options)

        monkeypatch.setattr(verifying, step, prunes)
        found = await asyncio.to_thread(check, log.directory, ring.verifier_key(ORIGIN))
        assert pruned[0].first_leaf > 0
        assert found.ok, found.text()


async def test_an_older_checkpoint_is_refused_in_words(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        await log.notary.append(decision(1, instance="0000000b"))
        await log.notary.checkpoint()
        earlier = LogReader(log.directory).checkpoint()
        await spread(log)
        await log.prune()
        await log.notary.checkpoint()
        with pytest.raises(LeafPruned, match="keep one of 256 or more"):
            export_pack(World(log.directory, ring, ()), 500, 600, since=earlier)


async def test_parquet_files_outlast_the_leaves_until_they_are_dropped(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        await spread(log)
        reader, kept = LogReader(log.directory), Destination(str(tmp_path / "kept"))
        export(reader, kept)
        late = Destination(str(tmp_path / "late"))
        await log.prune()
        await log.notary.checkpoint()
        assert export(reader, kept, all_signed=True).end == reader.size()
        assert check(reader, kept) == []
        count = "select count(*), min(leaf) from decision"
        with Tables(reader, kept) as tables:
            assert list(tables.ask(count).rows) == [(800, 0)]
            assert (tables.copied, tables.pruned) == (range(reader.size()), 0)
        with Tables(reader) as tables:
            assert list(tables.ask(count).rows) == [(544, 256)]
            assert (tables.copied, tables.pruned) == (range(0), 256)
        assert export(reader, late, all_signed=True).first == 256
        assert check(reader, late) == []
        dropped = drop_pruned(reader, kept)
        assert 200 < dropped <= 256
        assert check(reader, kept) == []
        with Tables(reader, kept) as tables:
            assert list(tables.ask(count).rows) == [(800 - dropped, dropped)]
            assert (tables.copied, tables.pruned) == (range(dropped, reader.size()), dropped)
        assert drop_pruned(reader, kept) == 0


async def test_leaves_that_files_lost_and_a_copy_holds_are_read_from_the_copy(
    tmp_path, ring
) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        await spread(log)
        reader, kept = LogReader(log.directory), Destination(str(tmp_path / "kept"))
        end = export(reader, kept).end
        copy = LogReader(shutil.copytree(log.directory, tmp_path / "copy"))
        await log.prune()
        dropped = drop_pruned(reader, kept)
        with Tables(copy, kept) as tables:
            count = "select count(*), min(leaf), max(leaf) from decision"
            assert list(tables.ask(count).rows) == [(800, 0, 799)]
            assert tables.copied == range(dropped, end)


async def test_an_export_that_missed_leaves_begins_elsewhere(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        for seq in range(1, 101):
            await log.notary.append(decision(seq))
        await log.notary.checkpoint()
        reader, kept = LogReader(log.directory), Destination(str(tmp_path / "kept"))
        export(reader, kept, all_signed=True)
        await spread_from(log, 101)
        await log.prune()
        with pytest.raises(ParquetMismatch, match="begins at 256, because it was pruned"):
            export(reader, kept)


async def spread_from(log, first):
    for seq in range(first, 601):
        await log.notary.append(decision(seq))
    await log.pruning.roll()
    await log.notary.append(decision(601))
    await log.notary.checkpoint()
    log.hours = 0.000_111


async def test_the_report_counts_on_from_what_was_pruned(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        await log.prune()
        entries = [(entry.index, entry.event) for entry in LogReader(log.directory).entries()]
    found = gather(entries, Period(since_us=0, until_us=1 << 60))
    assert found.completeness.missing() == []
    assert found.completeness.instances() == {"0000000a": 1100}
    assert set(found.configs) == {"cd" * 32}
    assert len(found.registered) == 1
    assert {original(event).type for _, event in entries} >= {"pruned", "epoch"}


async def test_another_process_asks_for_it_over_the_socket(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        offered = dict.fromkeys(PRUNES, log.pruning.answer)
        server = await serve(log.notary, tmp_path / "s", log.erasing, handlers=offered)
        client = NotaryClient(tmp_path / "s")
        try:
            plan = await client.ask("plan")
            assert (plan["first_leaf"], plan["why_not"]) == (512, None)
            assert plan["segments"][0]["why"] == "every floor is passed"
            assert LogReader(log.directory).first() == 0
            done = await client.ask("prune", actor="x", reason="y")
            assert done["first_leaf"] == 512
            with pytest.raises(NotPrunable, match="must be kept"):
                await client.ask("prune", actor="x", reason="y")
        finally:
            await client.close()
            await server.close()


def test_a_plan_without_segments_says_so() -> None:
    plan = Plan(0, 0, 0, (), 0)
    assert (plan.anything, plan.going) == (False, 0)
    assert plan.why_not == "no finished segment is old enough"


def test_a_plan_says_whether_nothing_is_due_or_too_little_may_go() -> None:
    few = Segment(1024, 1129, 60_944, goes=True, due=False, why="every floor is passed")
    waiting, allowed = (Plan(1024, 1024, kept, (few,), 0) for kept in (1024, 1129))
    assert not waiting.anything
    assert not allowed.anything
    assert waiting.why_not == "nothing is due"
    assert "share a bundle" in allowed.why_not
