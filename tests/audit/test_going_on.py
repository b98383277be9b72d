"""After each group comes the next, whatever the system lacks and whatever listeners do."""

import asyncio
import os
import resource
import threading
from contextlib import contextmanager, suppress

import pytest

from audit.errors import AuditError, LogUnavailable
from audit.notary import Notary
from audit.record import encode
from audit.testing import FaultyFiles, check_log
from tests.audit.worlds import ORIGIN, append, decision, make_keyring

WITHIN_S = 20


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@contextmanager
def no_descriptors():
    """Every descriptor that this process may have is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_appends_go_on_or_are_refused(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    body = {"input": os.urandom(32_768)}  # so that more room is wanted soon
    stored = 0
    with no_descriptors():
        for seq in range(1, 101):
            try:
                async with asyncio.timeout(WITHIN_S):
                    await notary.append(decision(seq), payloads=body)
            except LogUnavailable:
                continue
            stored += 1
    async with asyncio.timeout(WITHIN_S):
        receipt = await append(notary, decision(101))
    assert receipt.index == stored
    assert notary.failure is None
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_without_a_thread_a_large_group_is_written_in_place(tmp_path, ring, monkeypatch):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)

    def refused(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        async with asyncio.timeout(WITHIN_S):
            receipt = await notary.append(decision(1), payloads={"input": bytes(1 << 20)})
    assert receipt.index == 0
    assert (await append(notary, decision(2))).index == 1
    await notary.close()


async def test_a_listener_that_fails_keeps_nobody_from_being_told(tmp_path, ring, caplog):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)

    def failing(_, __):
        raise TypeError("about alice")

    first, last = decision(1), decision(3)
    notary.submit(first.id, encode(first), failing)
    notary.submit(last.id, encode(last), failing)
    async with asyncio.timeout(WITHIN_S):
        assert (await append(notary, decision(2))).index == 2
        assert (await append(notary, decision(4))).index == 3
    assert "TypeError" in caplog.text
    assert "alice" not in caplog.text
    await notary.close()


async def test_an_async_append_whose_sync_fails_is_told_once(tmp_path, ring):
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    await append(notary, decision(1))
    told: list[AuditError | None] = []
    event = decision(2)
    with files.failing("stored"):
        notary.submit(
            event.id, encode(event), lambda _, error: told.append(error), durability="async"
        )
        with pytest.raises(LogUnavailable):
            await append(notary, decision(3))
    await append(notary, decision(4))
    assert told == [None]
    await notary.close()


async def test_a_disk_that_does_not_answer_is_said(tmp_path, ring, monkeypatch):
    monkeypatch.setattr("audit.notary._SILENT_S", 0.1)
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    await append(notary, decision(1))  # after which room is ready, and the process syncs
    await notary.checkpoint()
    held = []
    monkeypatch.setattr(
        files, "fdatasync_soon", lambda syncer, pieces, done: held.append((syncer, pieces, done))
    )
    waiting = asyncio.create_task(append(notary, decision(2)))
    async with asyncio.timeout(WITHIN_S):
        while notary.failure is None:  # noqa: ASYNC110  it is asked, and tells nobody
            await asyncio.sleep(0.01)
    assert "has not answered" in notary.failure
    monkeypatch.undo()
    for syncer, pieces, done in held:
        files.fdatasync_soon(syncer, pieces, done)
    await waiting
    assert notary.failure is None
    await notary.close()
