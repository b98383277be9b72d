"""Groups on the event loop and in the thread: the same promises, whichever way a group goes."""

import asyncio
import errno
import os
import random

import pytest

from audit import syncer
from audit.appendfile import AppendFile
from audit.errors import LogUnavailable
from audit.files import OsFiles
from audit.notary import Notary
from audit.reader import LogReader
from audit.steps import drive
from audit.syncer import Written
from audit.testing import FaultyFiles, check_log
from tests.audit.worlds import ORIGIN, append, decision, make_keyring


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture(params=["process", "thread"])
def way(request, monkeypatch):
    """Once as it is, once as where no process can be started."""
    if request.param == "thread":
        refuse_processes(monkeypatch)
    return request.param


def refuse_processes(monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "no processes here")

    monkeypatch.setattr(syncer.subprocess, "Popen", refused)


class CountingFiles(FaultyFiles):
    """Fails the syncs whose turn is in `bad`, whoever waits for them; counts both kinds."""

    def __init__(self):
        super().__init__()
        self.bad = set()
        self.turn = 0
        self.soon = 0

    def _due(self):
        self.turn += 1
        return self.turn in self.bad

    def fdatasync(self, fd):
        super().fdatasync(fd)
        if self._due():
            raise OSError(errno.EIO, "injected: this sync failed")

    def fdatasync_soon(self, syncer, pieces, done):
        self.soon += 1
        fails = self._due()

        def told(error):
            done(OSError(errno.EIO, "injected: this sync failed") if fails else error)

        super().fdatasync_soon(syncer, pieces, told)


async def test_appends_go_the_way_the_system_allows(tmp_path, ring, way):
    files = CountingFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    for seq in range(1, 21):
        await append(notary, decision(seq), 3)
    await notary.close()
    assert (files.soon > 15) == (way == "process")
    assert (files.soon == 0) == (way == "thread")
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("seed", range(12))
async def test_syncs_that_fail_here_and_there_lose_nothing_acknowledged(tmp_path, ring, way, seed):
    draw = random.Random(seed)
    files = CountingFiles()
    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, files=files, segment_bytes=60_000
    )
    files.bad = {files.turn + draw.randrange(1, 400) for _ in range(60)}
    stored = {}

    async def client(first):
        for seq in range(first, 241, 6):
            while True:
                try:
                    receipt = await append(notary, decision(seq), 2)
                except LogUnavailable:
                    continue
                stored[seq] = receipt.index
                break

    await asyncio.gather(*(client(first) for first in range(1, 7)))
    files.bad = set()
    await notary.close()
    assert sorted(stored.values()) == list(range(240))
    reader = LogReader(tmp_path / "log")
    found = {entry.event.seq: entry.index for entry in reader.entries()}
    assert found == stored
    for seq in range(2, 241, 2):
        assert reader.payload(ring, decision(seq).id, "input") == b"the input of %d" % seq
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_promised_records_and_awaited_ones_share_a_failing_disk(tmp_path, ring, way):
    files = CountingFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files, bound_s=60)
    await append(notary, decision(1))
    files.bad = set(range(files.turn + 1, files.turn + 5))
    promised = [notary.append(decision(seq), durability="bounded") for seq in range(2, 12)]
    await asyncio.gather(*promised)
    refused = 0
    while True:
        try:
            await notary.append(decision(12))
            break
        except LogUnavailable:
            refused += 1
    assert refused
    await notary.close()
    found = sorted(entry.event.seq for entry in LogReader(tmp_path / "log").entries())
    assert found == list(range(1, 13))
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_large_group_does_not_hold_the_loop(tmp_path, ring):
    files = CountingFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    await append(notary, decision(1), 1)
    before = files.soon
    body = os.urandom(2 << 20)
    await notary.append(decision(2), payloads={"input": body})
    assert files.soon == before, "it went to the thread"
    await notary.close()
    assert LogReader(tmp_path / "log").payload(ring, decision(2).id, "input") == body


async def test_more_than_the_room_that_was_ready_is_stored_whole(tmp_path, ring, way):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    await asyncio.gather(*(append(notary, decision(seq), 4) for seq in range(1, 3001)))
    await notary.close()
    reader = LogReader(tmp_path / "log")
    assert sorted(entry.event.seq for entry in reader.entries()) == list(range(1, 3001))
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_two_groups_are_never_under_way_at_once(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    groups = notary._groups

    tasks = []
    for seq in range(1, 301):  # one comes in each turn of the loop, so in the midst of groups, too
        tasks.append(asyncio.create_task(append(notary, decision(seq), 3)))
        await asyncio.sleep(0)
        groups._begin()
    await asyncio.gather(*tasks)
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def test_room_that_is_made_while_the_file_is_cut_back_is_not_believed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    file = AppendFile(path, 0, OsFiles(), reserve=1 << 16)

    def add(data):
        written = file.begin(data)
        os.fdatasync(written.fd)
        return file.commit()

    add(b"a" * 40_000)
    fill = file.more_room()
    assert fill is None
    add(b"b" * 40_000)
    fill = file.more_room()
    assert fill is not None
    file.spoil()  # a fault, in the meantime
    assert add(b"c" * 100) == 80_000
    fill()
    for _ in range(50):
        add(b"d" * 5_000)
    assert file.size == 80_100 + 250_000
    file.close()
    whole = path.read_bytes()
    assert whole == b"a" * 40_000 + b"b" * 40_000 + b"c" * 100 + b"d" * 250_000


def test_room_is_made_beside_appends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    file = AppendFile(path, 0, OsFiles(), reserve=1 << 16)
    expected = b""
    for number in range(400):
        piece = bytes([number % 251 + 1]) * 1_000
        fill = file.more_room()
        os.fdatasync(file.begin(piece).fd)
        file.commit()
        expected += piece
        if fill is not None:
            fill()  # as the thread does, a little later
        assert number == 0 or file.ready(1_000)
    file.close()
    assert path.read_bytes() == expected


def test_steps_that_fail_are_told_once(tmp_path):
    seen = []

    def steps():
        try:
            yield [Written(1, 0, 1), Written(2, 0, 1)]
        except OSError as error:
            seen.append(error)
            raise LogUnavailable("no") from error

    class Broken(OsFiles):
        def fdatasync(self, fd):
            if fd == 2:
                raise OSError(errno.EIO, "injected")

    with pytest.raises(LogUnavailable):
        drive(steps(), Broken())
    assert len(seen) == 1
