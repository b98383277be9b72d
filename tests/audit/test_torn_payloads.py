"""A crash between the syncs of a group: its leaves are on disk and its payloads are not."""

import errno
import shutil

import pytest

from audit.blobfile import as_payloads
from audit.errors import LogDamaged, LogUnavailable
from audit.fsck import inspect
from audit.log import Record
from audit.marker import MARKER_NAME
from audit.payloads import Payloads
from audit.record import encode
from audit.testing import FaultyFiles, check_log
from tests.audit.worlds import ORIGIN, decision, make_keyring, open_log

BLOBS, SLOTS = "blobs/00000000.seg", "blobs/subjects.keys"


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


def group(*seqs):
    """Records with two payloads each, of a subject of their own."""
    return [
        Record(
            encode(decision(seq)),
            as_payloads(
                decision(seq).id,
                {"input": b"the input of %d" % seq, "output": b"%d" % seq * 50},
                f"user-{seq}",
            ),
        )
        for seq in seqs
    ]


@pytest.fixture
def crashed(tmp_path, ring):
    """A log of two groups, of which the marker counts the first; and the files' sizes before."""
    log, directory = open_log(tmp_path, ring), tmp_path / "log"
    log.append(group(1, 2))
    mark = log.payload_mark()
    shutil.copy(directory / MARKER_NAME, tmp_path / "marker")
    log.append(group(3, 4, 5))
    log.close()
    shutil.copy(tmp_path / "marker", directory / MARKER_NAME)
    return directory, {BLOBS: mark.blob_bytes, SLOTS: mark.subjects * 128}


def truncated(path, start):
    path.write_bytes(path.read_bytes()[: start + 30])


def zeroed(path, start):
    raw = path.read_bytes()
    path.write_bytes(raw[: start + 70] + bytes(len(raw) - start - 70))


def flipped(path, start):
    raw = bytearray(path.read_bytes())
    raw[-60] ^= 1
    path.write_bytes(bytes(raw))


def nothing(path, start):
    path.write_bytes(path.read_bytes()[:start])


@pytest.mark.parametrize("torn", [truncated, zeroed, flipped, nothing])
@pytest.mark.parametrize("name", [BLOBS, SLOTS])
def test_a_group_whose_payloads_are_not_whole_is_cut_and_said(tmp_path, ring, crashed, name, torn):
    directory, sizes = crashed
    torn(directory / name, sizes[name])
    foretold = inspect(directory, ring.verifier_key(ORIGIN))
    assert foretold.status == 1, foretold.seen
    assert any("payloads of the group are not whole" in seen.what for seen in foretold.seen)
    log = open_log(tmp_path, ring)
    assert log.recovered.leaves == 2
    assert log.recovered.cut is not None
    assert "payloads of the group are not whole" in log.recovered.cut.why
    assert log.append(group(3)) == 2
    log.publish()
    log.close()
    reader = Payloads(directory)
    for seq in (1, 2, 3):
        assert reader.get(ring, decision(seq).id, "input") == b"the input of %d" % seq
    check_log(directory, ring.verifier_key(ORIGIN))


def test_a_group_that_is_whole_is_believed_without_the_marker(tmp_path, ring, crashed):
    directory, _ = crashed
    log = open_log(tmp_path, ring)
    assert (log.recovered.leaves, log.recovered.cut) == (5, None)
    log.close()
    assert Payloads(directory).get(ring, decision(5).id, "input") == b"the input of 5"
    check_log(directory, ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("torn", [truncated, nothing])
def test_what_was_acknowledged_is_never_cut(tmp_path, ring, crashed, torn):
    directory, sizes = crashed
    open_log(tmp_path, ring).close()  # counts and signs all of it
    torn(directory / BLOBS, sizes[BLOBS])
    with pytest.raises(LogDamaged):
        open_log(tmp_path, ring)


def test_a_group_that_failed_is_cut_off_before_anything_else_is_written(tmp_path, ring):
    files, directory = FaultyFiles(), tmp_path / "log"
    log = open_log(tmp_path, ring, files=files)
    log.append(group(1))
    files.truncate_fails = True
    with files.failing("stored", errno.EIO), pytest.raises(LogUnavailable):
        log.append(group(2))
    before = (directory / BLOBS).read_bytes()
    with pytest.raises(LogUnavailable, match="could not cut off a group that failed"):
        log.append(group(2))
    assert (directory / BLOBS).read_bytes() == before
    files.truncate_fails = False
    assert log.append(group(2)) == 1
    log.publish()
    log.close()
    reader = Payloads(directory)
    assert reader.get(ring, decision(2).id, "input") == b"the input of 2"
    check_log(directory, ring.verifier_key(ORIGIN))
