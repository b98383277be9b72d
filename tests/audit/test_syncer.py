"""The process that syncs: what it answers, and what happens when it, or its parent, ends."""

import asyncio
import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
from array import array
from pathlib import Path

import pytest

from audit import syncer as module
from audit.errors import LogUnavailable
from audit.notary import Notary
from audit.reader import LogReader
from audit.sync_process import ANSWERED, ASKED, PIECE, serve
from audit.syncer import Syncer, Written
from audit.testing import check_log
from tests.audit.worlds import ORIGIN, append, decision, make_keyring


@pytest.fixture
async def syncing():
    made = Syncer(asyncio.get_running_loop())
    assert await made.started(10)
    yield made
    made.close()


async def sync(syncing, *fds):
    told = asyncio.get_running_loop().create_future()
    syncing.fdatasync([Written(fd, 0, 1) for fd in fds], told.set_result)
    return await asyncio.wait_for(told, 10)


def open_files(process):
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  of another process
            await asyncio.sleep(0.005)


async def test_it_says_what_went_well_and_what_did_not(tmp_path, syncing):
    with (tmp_path / "file").open("wb") as file:
        assert await sync(syncing, file.fileno()) is None
    reading, writing = os.pipe()
    assert (await sync(syncing, writing)).errno == errno.EINVAL
    with (tmp_path / "file").open("wb") as file:
        assert (await sync(syncing, file.fileno(), writing, file.fileno())).errno == errno.EINVAL
        assert await sync(syncing, *[file.fileno()] * 8) is None
    os.close(reading)
    os.close(writing)


def test_the_later_files_are_on_their_way_before_the_first_is_synced(tmp_path, monkeypatch):
    did = []
    really = os.fdatasync
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *piece: did.append((name(fd), *piece)))
    monkeypatch.setattr(os, "fdatasync", lambda fd: did.append(name(fd)) or really(fd))

    def name(fd):
        return Path(f"/proc/self/fd/{fd}").readlink().name

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, (tmp_path / "a").open("wb") as a, (tmp_path / "b").open("wb") as b:
        asked = ASKED.pack(7, 2) + PIECE.pack(4096, 99)
        lent = array("i", [a.fileno(), b.fileno()])
        ours.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, lent)])
        ours.shutdown(socket.SHUT_WR)
        serve(theirs)
        assert ANSWERED.unpack(ours.recv(ANSWERED.size)) == (7, 0)
    theirs.close()
    assert did == [("b", 4096, 99, os.POSIX_FADV_DONTNEED), "a", "b"]


async def test_files_that_did_not_reach_it_are_not_said_to_be_on_disk(tmp_path, syncing):
    pid = syncing._process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, hard))
    with (tmp_path / "file").open("wb") as file:
        assert (await sync(syncing, file.fileno(), file.fileno())).errno == errno.EMFILE
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert await sync(syncing, file.fileno(), file.fileno()) is None


async def test_many_at_once_are_each_answered_once(tmp_path, syncing):
    files = [(tmp_path / str(number)).open("wb") for number in range(6)]
    answers = await asyncio.gather(*(sync(syncing, f.fileno()) for f in files for _ in range(20)))
    assert answers == [None] * 120
    before = open_files("self")
    await asyncio.gather(*(sync(syncing, f.fileno()) for f in files))
    assert open_files("self") == before
    assert open_files(syncing._process.pid) < 12, "it closes what it was lent"
    for file in files:
        file.close()


async def test_what_it_had_not_answered_failed_and_another_one_is_started(
    tmp_path, syncing, monkeypatch
):
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    first = syncing._process.pid
    with (tmp_path / "file").open("wb") as file:
        os.kill(first, signal.SIGSTOP)
        answer = asyncio.ensure_future(sync(syncing, file.fileno()))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert (await answer).errno == errno.EIO
        await until(lambda: syncing.ready)
        assert syncing._process.pid != first
        assert await sync(syncing, file.fileno()) is None


async def test_one_that_ends_at_once_is_not_started_again_and_again(monkeypatch, tmp_path):
    program = tmp_path / "ends.py"
    program.write_text("")
    started = []
    really = subprocess.Popen

    def counted(*args, **kwargs):
        started.append(args)
        return really(*args, **kwargs)

    monkeypatch.setattr(module.sync_process, "__file__", str(program))
    monkeypatch.setattr(module.subprocess, "Popen", counted)
    syncing = Syncer(asyncio.get_running_loop())
    await until(lambda: syncing._socket is None)
    assert not await syncing.started(10)
    with pytest.raises(OSError, match="gone"):
        syncing.fdatasync([Written(0, 0, 1)], print)
    assert len(started) == 1
    syncing.close()


async def test_signals_to_everybody_do_not_end_it(tmp_path, syncing):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(syncing._process.pid, number)
    with (tmp_path / "file").open("wb") as file:
        assert await sync(syncing, file.fileno()) is None


def test_it_ends_with_its_parent():
    program = """
        import asyncio, os, signal
        from audit.syncer import Syncer

        async def main():
            syncing = Syncer(asyncio.get_running_loop())
            assert await syncing.started(10)
            print(syncing._process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=False
    )
    watched = os.pidfd_open(int(done.stdout)) if _lives(int(done.stdout)) else None
    if watched is not None:
        assert select.select([watched], [], [], 10)[0]
        os.close(watched)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_log_whose_syncing_process_is_killed_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    syncing = notary._groups._syncer
    stored, pids = [], set()

    async def client(first):
        for seq in range(first, 401, 8):
            while True:
                try:
                    stored.append((await append(notary, decision(seq), 2)).index)
                    break
                except LogUnavailable:
                    continue  # its group was under way just then

    def another():
        return syncing.ready and syncing._process.pid not in pids  # not one that is just ending

    async def killer():
        for done in (50, 150, 250):
            await until(lambda done=done: len(stored) >= done and another())
            pids.add(syncing._process.pid)
            os.kill(syncing._process.pid, signal.SIGKILL)

    await asyncio.gather(killer(), *(client(first) for first in range(1, 9)))
    await notary.close()
    assert len(pids) == 3
    assert sorted(stored) == list(range(400))
    assert sorted(entry.event.seq for entry in LogReader(tmp_path / "log").entries()) == list(
        range(1, 401)
    )
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
