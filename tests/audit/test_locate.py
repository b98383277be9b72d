"""One record by its id, without an index: found where its time says, else left to the index."""

import asyncio

import pytest

from audit import index as indexing
from audit.index import Index
from audit.locate import locate
from audit.nodeids import NodeIds
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Access, new_id
from tests.audit.worlds import ORIGIN, START_US, decision, make_keyring, uuid

COUNT = 900


async def filled(folder, *, pruned=False):
    """A log of many small segments, a decision a second; the ids in order."""
    clock = [START_US]
    ids = NodeIds(clock=lambda: clock[0])
    notary = await Notary.open(
        folder / "log", make_keyring(folder / "keys"), origin=ORIGIN, segment_bytes=20_000
    )
    made = []
    for seq in range(COUNT):
        clock[0] += 1_000_000
        made.append(ids.new())
        event = decision(seq + 1, id=made[-1], time_us=clock[0] + 3)
        await notary.append(event)
    await notary.close()
    return made


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("located")
    return folder / "log", asyncio.run(filled(folder))


def test_every_record_is_found(log) -> None:
    directory, made = log
    reader = LogReader(directory)
    assert len(list((directory / "wal").glob("*.wal"))) > 20
    for leaf in (*range(0, COUNT, 7), COUNT - 1):
        assert locate(reader, made[leaf]) == leaf


def test_few_segments_are_read(log, monkeypatch) -> None:
    directory, made = log
    reader, read = LogReader(directory), []
    real = reader.bundles
    monkeypatch.setattr(reader, "bundles", lambda a, b: read.append(b - a) or real(a, b))
    assert locate(reader, made[500]) == 500
    assert sum(read) < COUNT / 10
    assert locate(reader, new_id(clock=lambda: START_US + 450_000_000)) is None
    assert sum(read) < COUNT / 3


@pytest.mark.parametrize("time_us", [0, START_US, START_US + 450_000_000, 1 << 58])
def test_what_is_not_there_is_not_found(log, time_us) -> None:
    assert locate(LogReader(log[0]), new_id(clock=lambda: time_us)) is None


@pytest.mark.parametrize("unknown", ["", "no id", uuid(5), '"', "0" * 36])
def test_what_is_no_id_is_not_found(log, unknown) -> None:
    assert locate(LogReader(log[0]), unknown) is None


def test_an_index_that_is_far_behind_is_not_asked(log, tmp_path, monkeypatch) -> None:
    directory, made = log
    monkeypatch.setattr(indexing, "_FAR", 100)
    with Index(directory, tmp_path / "index.sqlite") as index:
        assert index.find(made[77]) == 77
        assert index._file.known() == 0
        assert index.find(uuid(5)) is None  # now it was
        assert index._file.known() == COUNT
        assert index.find(made[77]) == 77


async def test_a_record_that_only_speaks_of_it_or_has_another_time_is_not_taken_for_it(
    tmp_path,
) -> None:
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, segment_bytes=20_000)
    wanted = new_id()
    said = f'"id":"{wanted}"'
    await notary.append(
        Access(id=new_id(), time_us=START_US, actor=said, action="show", reason=said)
    )
    assert locate(notary.reader(), wanted) is None
    late = decision(1, id=wanted, time_us=START_US)
    await notary.append(late)
    assert locate(notary.reader(), wanted) == 1
    await notary.close()
    assert locate(LogReader(tmp_path / "log"), wanted) == 1


async def test_an_empty_log_has_none(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    assert locate(notary.reader(), new_id()) is None
    await notary.close()
