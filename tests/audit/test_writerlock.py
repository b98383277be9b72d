"""Whatever becomes of the lock file, two writers never go on beside one another."""

import errno
import fcntl
from pathlib import Path

import pytest

from audit import writerlock
from audit.errors import LogLocked, LogUnavailable
from audit.fsck import inspect
from audit.notary import Notary
from audit.reader import LogReader
from audit.testing import check_log
from audit.writerlock import has_writer
from tests.audit.worlds import ORIGIN, decision, make_keyring, open_log, records


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
def no_folder_locks(monkeypatch):
    """As on a file system that locks files only; and every look is a new one."""
    real = fcntl.flock

    def flock(fd, how):
        if Path(f"/proc/self/fd/{fd}").is_dir():
            raise OSError(errno.EBADF, "this is a folder")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(writerlock, "LOOK_S", 0.0)


def remove(directory):
    (directory / "lock").unlink()


def replace(directory):
    (directory / "lock.new").touch()
    (directory / "lock.new").replace(directory / "lock")


def move_folder(directory):
    """Another log under the same name, as a restore makes it."""
    directory.rename(directory.with_name("aside"))
    directory.mkdir()


@pytest.mark.parametrize("deed", [remove, replace])
def test_a_second_writer_is_refused_although_the_lock_file_is_another(tmp_path, ring, deed):
    log = open_log(tmp_path, ring)
    deed(tmp_path / "log")
    with pytest.raises(LogLocked):
        open_log(tmp_path, ring)
    assert has_writer(tmp_path / "log")
    log.close()
    assert not has_writer(tmp_path / "log")
    open_log(tmp_path, ring).close()


@pytest.mark.parametrize("deed", [remove, replace, move_folder])
def test_who_lost_the_lock_takes_no_record_and_signs_nothing(tmp_path, ring, monkeypatch, deed):
    monkeypatch.setattr(writerlock, "LOOK_S", 0.0)
    log = open_log(tmp_path, ring)
    log.append(records(1))
    deed(tmp_path / "log")
    for refused in (
        lambda: log.append(records(2)),
        log.publish,
        log.prepare,
        log.roll,
        lambda: log.destroy("somebody"),
        lambda: log.destroy_slots([0]),
    ):
        with pytest.raises(LogUnavailable, match="lock was removed or replaced"):
            refused()
    assert log.position.leaves == 1
    assert "end all that do, then start one" in log.ended()
    log.close()


def test_it_stays_so_when_the_file_comes_back(tmp_path, ring, monkeypatch):
    monkeypatch.setattr(writerlock, "LOOK_S", 0.0)
    log = open_log(tmp_path, ring)
    lock = tmp_path / "log" / "lock"
    lock.rename(lock.with_name("aside"))
    with pytest.raises(LogUnavailable):
        log.append(records(1))
    lock.with_name("aside").rename(lock)
    with pytest.raises(LogUnavailable):
        log.append(records(1))
    log.close()


@pytest.mark.usefixtures("no_folder_locks")
def test_of_two_writers_only_the_second_goes_on_and_loses_nothing_to_the_first(tmp_path, ring):
    first = open_log(tmp_path, ring)
    first.append(records(1))
    remove(tmp_path / "log")
    second = open_log(tmp_path, ring)
    second.append(records(2, 3))
    with pytest.raises(LogUnavailable):
        first.append(records(4))
    assert first.more_room() == []
    first.close()  # which else cuts off what it believes to be room
    second.append(records(4))
    second.publish()
    seqs = [entry.event.seq for entry in LogReader(tmp_path / "log").entries()]
    assert seqs == [1, 2, 3, 4]
    second.close()
    assert check_log(tmp_path / "log", ring.verifier_key(ORIGIN)).leaves == 4


def test_a_group_does_not_look_each_time(tmp_path, ring, monkeypatch):
    looks = []
    log = open_log(tmp_path, ring)
    monkeypatch.setattr(writerlock.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(log._lock, "look", lambda: looks.append(1))
    log.append(records(1))
    log.append(records(2))
    assert looks == []
    log.close()


def test_a_file_that_goes_before_it_is_locked_is_no_lock(tmp_path, ring, monkeypatch):
    open_log(tmp_path, ring).close()
    real = fcntl.flock

    def flock(fd, how):
        real(fd, how)
        (tmp_path / "log" / "lock").unlink(missing_ok=True)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LogLocked):
        open_log(tmp_path, ring)


def test_whoever_looks_for_a_writer_keeps_none_from_starting(tmp_path, ring, monkeypatch):
    real, refused = fcntl.flock, []

    def flock(fd, how):
        if not refused:
            refused.append(fd)
            raise BlockingIOError(errno.EAGAIN, "somebody looks just now")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    open_log(tmp_path, ring).close()
    assert refused


async def test_a_notary_says_that_it_is_not_the_writer_and_closes(tmp_path, ring, monkeypatch):
    monkeypatch.setattr(writerlock, "LOOK_S", 0.0)
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=3600)
    await notary.append(decision(1))
    assert notary.failure is None
    remove(tmp_path / "log")
    assert "removed or replaced" in notary.failure
    with pytest.raises(LogUnavailable, match="removed or replaced"):
        await notary.append(decision(2))
    seen = {one.path: one for one in inspect(tmp_path / "log", ring.verifier_key(ORIGIN)).seen}
    assert "removed" in seen["lock"].what
    await notary.close()
