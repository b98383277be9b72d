"""The id of a pruned record stays taken: at once, after a restart, and whatever failed between."""

import shutil
from contextlib import asynccontextmanager

import pytest

from audit import pruning
from audit.complete import check_complete
from audit.errors import EventConflict, LogUnavailable
from audit.fsck import inspect
from audit.idruns import IdRuns
from audit.notary import Notary
from audit.reader import LogReader
from audit.testing import check_log
from tests.audit.pruneworld import SEGMENT_BYTES, Living, time_us
from tests.audit.worlds import ORIGIN, decision, make_keyring

OLD, NEW = 600, 300


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@asynccontextmanager
async def living(folder, ring, remembered=65_536):
    notary = await Notary.open(
        folder / "log",
        ring,
        origin=ORIGIN,
        segment_bytes=SEGMENT_BYTES,
        checkpoint_interval_s=3600,
        remembered=remembered,
        max_pending=16,
    )
    try:
        yield Living(notary, ring, "0s..")
    finally:
        await notary.close()


async def fill(log):
    await log.decide(OLD, at=0)
    await log.pruning.roll()
    await log.decide(NEW, at=0)
    await log.notary.checkpoint()
    log.hours = 1


async def check_ids(log, first):
    """Every pruned id is refused, also for other content; what is kept gives its receipt."""
    size = log.notary.size
    for seq in (1, 5, 100, first):
        for event in (decision(seq, time_us=time_us(0)), decision(seq, label="<=50K")):
            with pytest.raises(EventConflict, match="which was pruned since"):
                await log.notary.append(event)
    assert log.notary.size == size


def check(tmp_path, ring):
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    counted = check_complete(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert counted.ok, counted.text()


@pytest.mark.parametrize("remembered", [65_536, 64])
async def test_an_id_that_was_only_remembered_is_refused_after_a_restart(
    tmp_path, ring, remembered
) -> None:
    async with living(tmp_path, ring, remembered) as log:
        await fill(log)
        first = (await log.prune()).first_leaf
        assert first >= 512
    async with living(tmp_path, ring, remembered) as log:
        await check_ids(log, first)
        log.seq = OLD + NEW
        await log.decide(NEW, at=2)  # what was remembered is forgotten, and written again
        await check_ids(log, first)
        kept = LogReader(log.directory).entry(first + 3)
        assert (await log.notary.append(kept.event)).index == first + 3
    async with living(tmp_path, ring, remembered) as log:
        await check_ids(log, first)
    check(tmp_path, ring)


async def test_the_ids_of_pruned_leaves_are_taken_from_a_run_of_an_earlier_version(
    tmp_path, ring, caplog
) -> None:
    async with living(tmp_path, ring, 64) as log:
        await fill(log)
        first = (await log.prune()).first_leaf
    for path in (tmp_path / "log" / "ids").glob("*.run"):
        path.write_bytes(path.read_bytes().replace(b"WBIDS2", b"WBIDS1", 1))
    assert ids_seen(tmp_path, ring) == {}
    for hours in (2, 3):
        async with living(tmp_path, ring, 64) as log:
            await check_ids(log, first)
            log.seq = log.notary.size
            await log.decide(NEW, at=hours)
            await check_ids(log, first)
    assert "lost" not in caplog.text
    assert ids_seen(tmp_path, ring) == {}


async def test_nothing_is_pruned_while_its_ids_cannot_be_written(
    tmp_path, ring, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    async with living(tmp_path, ring) as log:
        await fill(log)
        with monkeypatch.context() as broken:
            broken.setattr(IdRuns, "write", full)
            with pytest.raises(LogUnavailable, match="could not keep the ids"):
                await log.prune()
        assert LogReader(log.directory).entry(5).event.seq == 6
    async with living(tmp_path, ring) as log:
        assert await log.pruning.finish()
        first = LogReader(log.directory).first()
    async with living(tmp_path, ring) as log:
        await check_ids(log, first)
    check(tmp_path, ring)


async def test_a_crash_after_the_ids_were_written_changes_nothing(
    tmp_path, ring, monkeypatch
) -> None:
    def dies(*_: object) -> None:
        raise OSError(5, "the power is gone")

    async with living(tmp_path, ring) as log:
        await fill(log)
        with monkeypatch.context() as broken:
            broken.setattr(pruning, "prune_files", dies)
            with pytest.raises(LogUnavailable, match="the power is gone"):
                await log.prune()
    async with living(tmp_path, ring) as log:
        old = LogReader(log.directory).entry(5)
        assert (await log.notary.append(old.event)).index == 5
        assert await log.pruning.finish()
        first = LogReader(log.directory).first()
    async with living(tmp_path, ring) as log:
        await check_ids(log, first)
    check(tmp_path, ring)


@pytest.mark.parametrize("more", [200, 400])
async def test_runs_of_later_beside_an_older_copy_of_the_log_cost_no_pruned_id(
    tmp_path, ring, caplog, more
) -> None:
    async with living(tmp_path, ring, 64) as log:
        await fill(log)
        first = (await log.prune()).first_leaf
    shutil.copytree(tmp_path / "log", tmp_path / "older")
    async with living(tmp_path, ring, 64) as log:
        log.seq = OLD + NEW
        await log.decide(more, at=2)
    shutil.copytree(tmp_path / "log" / "ids", tmp_path / "older" / "ids", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "older").rename(tmp_path / "log")
    async with living(tmp_path, ring, 64) as log:
        await check_ids(log, first)
        log.seq = OLD + NEW
        await log.decide(more, at=3)
        await check_ids(log, first)
    assert "lost" not in caplog.text
    check(tmp_path, ring)


@pytest.mark.parametrize("remembered", [65_536, 64])
async def test_ids_that_are_lost_after_a_pruning_are_missed_by_fsck_and_at_each_start(
    tmp_path, ring, remembered, caplog
) -> None:
    async with living(tmp_path, ring, remembered) as log:
        await fill(log)
        first = (await log.prune()).first_leaf
    assert "lost" not in caplog.text
    assert ids_seen(tmp_path, ring) == {}
    shutil.rmtree(tmp_path / "log" / "ids")
    said = ids_seen(tmp_path, ring)["ids"]
    assert (said.level, said.what) == (
        "damage", f"the ids of the pruned leaves 0 to {first - 1} are not there",
    )  # fmt: skip
    assert "before the next start" in said.todo
    assert "nothing, if a version pruned them that kept no ids" in said.todo
    for _ in range(2):
        caplog.clear()
        async with living(tmp_path, ring, remembered):
            assert f"the ids of the pruned leaves 0 to {first - 1} are lost" in caplog.text
            assert caplog.text.count("are lost") == 1
        said = ids_seen(tmp_path, ring)
        assert {path: one.level for path, one in said.items()} == {"ids/lost": "note"}
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def ids_seen(tmp_path, ring):
    found = inspect(tmp_path / "log", ring.verifier_key(ORIGIN)).seen
    return {one.path: one for one in found if one.path.startswith("ids")}
