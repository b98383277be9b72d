"""What opening a log believes, cuts and refuses."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from audit import marker
from audit.errors import LogDamaged, LogLocked
from audit.frames import SEGMENT_HEADER_BYTES, Watermark, format_frame
from audit.marker import MARKER_NAME, format_marker, read_marker
from audit.reader import LogReader
from audit.record import encode
from audit.testing import check_log
from tests.audit.worlds import ORIGIN, decision, make_keyring, open_log, records

SEGMENT = "wal/00000000000000000000.wal"


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


def grow(tmp_path, ring, *groups, publish=False, **options):
    """A closed log with these groups of records; unsigned unless `publish`."""
    log = open_log(tmp_path, ring, **options)
    for group in groups:
        log.append(records(*group))
    if publish:
        log.publish()
    log.close()
    return tmp_path / "log"


def forget_marker(directory):
    """As after a power cut, which may take the unsynced marker."""
    (directory / MARKER_NAME).unlink()


def reopened(tmp_path, ring):
    log = open_log(tmp_path, ring)
    log.close()
    return log.recovered


def test_a_new_log_is_empty_and_signed(tmp_path, ring):
    log = open_log(tmp_path, ring)
    assert log.position.leaves == 0
    assert log.signed.size == 0
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def test_a_closed_log_opens_with_all_its_leaves_and_nothing_cut(tmp_path, ring):
    grow(tmp_path, ring, [1, 2], [3])
    report = reopened(tmp_path, ring)
    assert (report.leaves, report.cut) == (3, None)
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("room", [0, 4096])
def test_every_possible_torn_tail_is_cut_and_reported(tmp_path, ring, room):
    directory = grow(tmp_path, ring, [1, 2])
    whole = (directory / SEGMENT).read_bytes()
    frame = format_frame(2, [encode(decision(3))], Watermark(0, 16, 0))
    for length in range(1, len(frame), 13):
        (directory / SEGMENT).write_bytes(whole + frame[:length] + bytes(room))
        report = reopened(tmp_path, ring)
        assert report.leaves == 2
        assert report.cut is not None
        written = len(frame[:length].rstrip(b"\0"))
        assert (report.cut.offset, report.cut.length) == (len(whole), written)
        assert report.cut.file == directory / SEGMENT
        assert (directory / SEGMENT).read_bytes() == whole


def test_reserved_room_behind_the_end_is_nothing_to_report(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole + bytes(5000))
    check_log(directory, ring.verifier_key(ORIGIN))
    assert reopened(tmp_path, ring).cut is None
    assert (directory / SEGMENT).read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 4096 + b"\1", b"\xf5WB\xfe" * 30])
def test_a_tail_of_garbage_that_nobody_acknowledged_is_cut(tmp_path, ring, tail):
    directory = grow(tmp_path, ring, [1])
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole + tail)
    assert reopened(tmp_path, ring).cut is not None
    assert (directory / SEGMENT).read_bytes() == whole


def test_a_whole_group_that_was_not_yet_published_is_kept(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    before = (directory / MARKER_NAME).read_bytes()
    grow(tmp_path, ring, [2])
    (directory / MARKER_NAME).write_bytes(before)
    assert LogReader(directory).size() == 1
    assert reopened(tmp_path, ring).leaves == 2
    assert LogReader(directory).size() == 2


def test_damage_in_the_middle_is_refused_and_left_alone(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], [2], [3])
    forget_marker(directory)
    whole = (directory / SEGMENT).read_bytes()
    for offset in range(0, len(whole) - 1500, 97):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x10
        (directory / SEGMENT).write_bytes(damaged)
        with pytest.raises(LogDamaged, match=SEGMENT) as caught:
            reopened(tmp_path, ring)
        assert caught.value.offset is not None
        assert caught.value.offset <= offset
        assert (directory / SEGMENT).read_bytes() == damaged


def test_a_damaged_length_in_the_middle_does_not_hide_the_rest(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], [2])
    forget_marker(directory)
    damaged = bytearray((directory / SEGMENT).read_bytes())
    damaged[SEGMENT_HEADER_BYTES + 16] = 0x7F  # the first group now claims two gigabytes
    (directory / SEGMENT).write_bytes(damaged)
    with pytest.raises(LogDamaged):
        reopened(tmp_path, ring)


def test_a_torn_tail_that_was_acknowledged_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], [2])
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole[:-1])
    with pytest.raises(LogDamaged):
        reopened(tmp_path, ring)
    assert (directory / SEGMENT).read_bytes() == whole[:-1]


def test_a_torn_tail_that_a_checkpoint_covers_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], [2], publish=True)
    forget_marker(directory)
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole[:-1])
    with pytest.raises(LogDamaged):
        reopened(tmp_path, ring)


def test_a_group_missing_at_the_end_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    length = (directory / SEGMENT).stat().st_size
    grow(tmp_path, ring, [2], publish=True)
    forget_marker(directory)
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole[:length])
    with pytest.raises(LogDamaged, match="2 acknowledged records"):
        reopened(tmp_path, ring)


def test_a_group_missing_in_the_middle_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    first = (directory / SEGMENT).read_bytes()
    grow(tmp_path, ring, [2])
    forget_marker(directory)
    whole = (directory / SEGMENT).read_bytes()
    (directory / SEGMENT).write_bytes(whole[:SEGMENT_HEADER_BYTES] + whole[len(first) :])
    with pytest.raises(LogDamaged, match="begins at leaf 0"):
        reopened(tmp_path, ring)


def test_no_segments_beside_a_checkpoint_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], publish=True)
    forget_marker(directory)
    (directory / SEGMENT).unlink()
    with pytest.raises(LogDamaged, match="segments"):
        reopened(tmp_path, ring)


@pytest.mark.parametrize("content", [b"", bytes(36)])
def test_a_marker_lost_in_a_power_cut_is_made_again(tmp_path, ring, content):
    directory = grow(tmp_path, ring, [1], [2])
    (directory / MARKER_NAME).write_bytes(content)
    assert reopened(tmp_path, ring).leaves == 2
    assert read_marker(directory).leaves == 2


def test_opening_removes_its_own_leftovers_and_nothing_else(tmp_path, ring):
    wal = grow(tmp_path, ring, [1]) / "wal"
    own = [wal / "00000000000000000001.wal.tmp", wal / "00000000000000000001.carry.tmp"]
    theirs = [wal / "notes.tmp", wal / "00000000000000000001.tmp", wal / "1.wal.tmp"]
    for path in own + theirs:
        path.write_text("half")
    assert reopened(tmp_path, ring).leaves == 1
    assert not any(path.exists() for path in own)
    assert all(path.exists() for path in theirs)


_EMPTIED = """
import os, sys
from pathlib import Path
from tests.audit.worlds import open_log, records
log = open_log(Path(sys.argv[1]))
log.append(records(1))
os.truncate(Path(sys.argv[1]) / "log" / "committed", 0)
log.append(records(2))
log.close()
"""


def test_a_writer_outlives_a_marker_that_is_emptied_and_makes_it_whole(tmp_path):
    # In a process of its own: a mapped file that is truncated ends it with SIGBUS.
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", _EMPTIED, tmp_path], cwd=root, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert read_marker(tmp_path / "log").leaves == 2


def test_a_group_is_stored_although_the_marker_cannot_be_written(tmp_path, ring, monkeypatch):
    log = open_log(tmp_path, ring)
    log.append(records(1))

    def fails(fd, data, offset):
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as patched:
        patched.setattr(marker.os, "pwrite", fails)
        log._wal._marker.write(log.position._replace(leaves=2))
    assert read_marker(tmp_path / "log").leaves == 1
    assert log.append(records(2)) == 1
    assert read_marker(tmp_path / "log").leaves == 2
    log.close()


def test_a_damaged_marker_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    found = read_marker(directory)
    (directory / MARKER_NAME).write_bytes(format_marker(found)[:-1] + b"\x00")
    with pytest.raises(LogDamaged, match=MARKER_NAME):
        reopened(tmp_path, ring)


def test_segments_follow_one_another(tmp_path, ring):
    groups = [[n, n + 1] for n in range(1, 21, 2)]
    directory = grow(tmp_path, ring, *groups, publish=True, segment_bytes=4000)
    assert len(list((directory / "wal").iterdir())) > 3
    assert reopened(tmp_path, ring).leaves == 20
    check_log(directory, ring.verifier_key(ORIGIN))


def test_a_missing_segment_is_refused(tmp_path, ring):
    groups = [[n, n + 1] for n in range(1, 21, 2)]
    directory = grow(tmp_path, ring, *groups, publish=True, segment_bytes=4000)
    path = sorted((directory / "wal").iterdir())[1]
    path.unlink()
    with pytest.raises(LogDamaged, match=path.name):
        reopened(tmp_path, ring)


def test_damage_before_the_last_segment_is_refused(tmp_path, ring):
    groups = [[n, n + 1] for n in range(1, 21, 2)]
    directory = grow(tmp_path, ring, *groups, segment_bytes=4000)
    forget_marker(directory)
    path = sorted((directory / "wal").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LogDamaged, match=path.name):
        reopened(tmp_path, ring)


def test_lost_tiles_are_built_again(tmp_path, ring):
    directory = grow(tmp_path, ring, range(1, 300), publish=True)
    before = {p: p.read_bytes() for p in (directory / "tile").rglob("*") if p.is_file()}
    for path in before:
        path.unlink()
    assert reopened(tmp_path, ring).tiles_rebuilt
    assert {p: p.read_bytes() for p in (directory / "tile").rglob("*") if p.is_file()} == before


def test_a_log_whose_leaves_are_not_those_signed_is_refused(tmp_path, ring):
    directory = grow(tmp_path, ring, [1], publish=True)
    other = [encode(decision(1, label="<=50K", label_counts={"<=50K": 1}))]
    (directory / SEGMENT).write_bytes(
        (directory / SEGMENT).read_bytes()[:SEGMENT_HEADER_BYTES]
        + format_frame(0, other, Watermark(0, 16, 0))
    )
    forget_marker(directory)
    for path in (directory / "tile").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(LogDamaged, match="signed root"):
        reopened(tmp_path, ring)


def test_a_checkpoint_of_another_key_is_refused(tmp_path, ring):
    grow(tmp_path, ring, [1], publish=True)
    other = type(ring).load_or_create(tmp_path / "other")
    with pytest.raises(LogDamaged, match="checkpoint"):
        reopened(tmp_path, other)


def test_a_second_writer_is_locked_out_until_the_first_is_gone(tmp_path, ring):
    log = open_log(tmp_path, ring)
    with pytest.raises(LogLocked):
        open_log(tmp_path, ring)
    log.close()
    open_log(tmp_path, ring).close()


def test_a_failed_open_releases_the_lock(tmp_path, ring):
    directory = grow(tmp_path, ring, [1])
    good = (directory / MARKER_NAME).read_bytes()
    (directory / MARKER_NAME).write_bytes(b"x" * 36)
    with pytest.raises(LogDamaged):
        open_log(tmp_path, ring)
    (directory / MARKER_NAME).write_bytes(good)
    open_log(tmp_path, ring).close()
