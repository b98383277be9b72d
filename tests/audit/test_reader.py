import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from audit.errors import DecodeError, LogDamaged, LogUnavailable, NotFound
from audit.index import Index
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import ExplanationSkipped, original
from audit.shapes import flaw
from audit.testing import FaultyFiles
from tests.audit.anyevents import entries, write_log
from tests.audit.worlds import (
    ORIGIN,
    START_US,
    append,
    build_world,
    decision,
    make_keyring,
    open_log,
    records,
    uuid,
)

FOLLOWER = """
import sys, time
from pathlib import Path
from audit.reader import LogReader
reader, seen = LogReader(Path(sys.argv[1])), 0
print("ready", flush=True)
while seen < int(sys.argv[2]):
    size = reader.size()
    for entry in reader.entries(seen, size):
        assert entry.index == seen, (entry.index, seen)
        seen += 1
        print(entry.index, entry.event.seq, flush=True)
    time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return asyncio.run(build_world(folder, [5, 1, 40, 80], segment_bytes=20_000))


def test_a_reader_gives_every_leaf_in_order(world):
    reader = LogReader(world.directory)
    assert reader.size() == 126
    entries = list(reader.entries())
    assert [entry.index for entry in entries] == list(range(126))
    assert {entry.event.seq for entry in entries} == set(range(1, 127))


def sound(event):
    try:
        return flaw(event) is None and flaw(original(event)) is None
    except DecodeError:
        return False


@settings(max_examples=50)
@given(entries(max_size=20))
def test_the_others_are_all_that_are_no_decisions(listed):
    with tempfile.TemporaryDirectory() as folder:
        reader = LogReader(write_log(Path(folder), listed, group=3))
        wanted = [
            entry
            for entry in reader.entries()
            if entry.event.type != "decision" and sound(entry.event)
        ]
        assert list(reader.others()) == wanted
        assert list(reader.others(7)) == [entry for entry in wanted if entry.index >= 7]


@pytest.mark.parametrize(
    ("start", "end"), [(0, 3), (5, 6), (4, 50), (125, 200), (126, 130), (9, 9)]
)
def test_any_range_can_be_read(world, start, end):
    reader = LogReader(world.directory)
    whole = list(LogReader(world.directory).entries())
    assert list(reader.entries(start, end)) == whole[start:end]
    assert list(reader.entries(0, 2)) == whole[:2]


def test_one_leaf_can_be_read_in_any_order(world):
    reader = LogReader(world.directory)
    for index in (125, 0, 60, 59, 61):
        assert reader.entry(index).index == index
    for index in (-1, 126):
        with pytest.raises(NotFound):
            reader.entry(index)


def test_a_folder_without_a_log_reads_as_empty(tmp_path):
    assert LogReader(tmp_path).size() == 0
    assert list(LogReader(tmp_path).entries()) == []
    with pytest.raises(NotFound):
        LogReader(tmp_path).checkpoint()


def test_a_log_whose_marker_is_missing_is_damaged(world, tmp_path):
    victim = world.copy(tmp_path / "log")
    (victim.directory / "committed").unlink()
    with pytest.raises(LogDamaged, match="committed"):
        LogReader(victim.directory).size()


def test_damage_is_raised_with_file_and_offset(world, tmp_path):
    victim = world.copy(tmp_path / "log")
    path = sorted((victim.directory / "wal").iterdir())[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    reader = LogReader(victim.directory)
    with pytest.raises(LogDamaged) as caught:
        list(reader.entries())
    assert caught.value.file == path
    assert caught.value.offset is not None


def test_a_reader_sees_a_group_only_after_it_is_durable(tmp_path):
    files = FaultyFiles()
    log = open_log(tmp_path, files=files)
    reader = LogReader(tmp_path / "log")
    log.append(records(1))
    assert reader.size() == 1
    files.truncate_fails = True
    with files.failing("stored"), pytest.raises(LogUnavailable):
        log.append(records(2))
    assert [entry.event.seq for entry in reader.entries()] == [1]
    files.truncate_fails = False
    log.append(records(3))
    assert [entry.event.seq for entry in reader.entries()] == [1, 3]
    log.close()


async def test_another_process_follows_while_the_writer_writes(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, segment_bytes=100_000)
    follower = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FOLLOWER, str(tmp_path / "log"), "400",
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert follower.stdout is not None
    assert await follower.stdout.readline() == b"ready\n"
    acknowledged = {}
    for first in range(1, 401, 20):
        made = [append(notary, decision(seq), 50) for seq in range(first, first + 20)]
        for seq, receipt in enumerate(await asyncio.gather(*made), start=first):
            acknowledged[receipt.index] = seq
    seen = {}
    async with asyncio.timeout(60):
        while line := await follower.stdout.readline():
            index, seq = map(int, line.split())
            seen[index] = seq
        assert await follower.wait() == 0
    assert seen == acknowledged
    await notary.close()


def test_an_index_finds_decisions_units_traces_and_models(world, tmp_path):
    with Index(world.directory, tmp_path / "index.sqlite") as index:
        leaf = index.find(decision(50).id)
        assert leaf is not None
        assert LogReader(world.directory).entry(leaf).event == decision(50)
        assert index.find("no such id") is None
        assert index.by_model("income") == list(range(126))
        assert index.by_model("income", limit=3) == [123, 124, 125]
        assert len(index.by_unit_ref("ab" * 16)) == 126
        assert len(index.by_trace_id("45" * 16)) == 126
        assert index.by_model("none") == []


async def test_an_index_catches_up_and_finds_what_speaks_of_a_decision(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    await notary.append(decision(1))
    with Index(tmp_path / "log") as index:
        assert index.find(decision(2).id) is None
        await notary.append(decision(2))
        skipped = ExplanationSkipped(
            id=uuid(1 << 44), time_us=START_US, decision=decision(1).id, reason="r", detail_code="d"
        )
        await notary.append(skipped)
        assert index.find(decision(2).id) == 1
        assert index.about(decision(1).id) == [2]
    await notary.close()


@pytest.mark.parametrize("harm", ["garbage", "wrong rows", "ahead"])
def test_a_damaged_index_is_built_again(world, tmp_path, harm):
    path = tmp_path / "index.sqlite"
    with Index(world.directory, path) as index:
        right = index.find(decision(50).id)
        if harm == "wrong rows":
            index._file._db.execute("UPDATE leaf SET leaf = leaf - 1000")
            index._file._db.execute("UPDATE leaf SET leaf = 125 - (leaf + 1000)")
        if harm == "ahead":
            index._file._db.execute("UPDATE leaf SET leaf = leaf + 1000 WHERE leaf > 100")
    if harm == "garbage":
        path.write_bytes(b"garbage" * 1000)
    with Index(world.directory, path) as index:
        assert index.find(decision(50).id) == right
