"""Disk faults in pairs: failed and not stored, failed but stored; and going on afterwards."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audit.blobfile import as_payloads
from audit.errors import LogDamaged, LogUnavailable
from audit.log import Record
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import encode
from audit.testing import FaultyFiles, check_log
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, append, decision, make_keyring, open_log, records

FAULTS = ["not-stored", "stored", "short"]
SEGMENT = "wal/00000000000000000000.wal"


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failed_group_leaves_no_trace_and_the_next_one_is_stored(tmp_path, ring, fault, error):
    files = FaultyFiles()
    log = open_log(tmp_path, ring, files=files)
    log.append(records(1))
    before = (tmp_path / "log" / SEGMENT).read_bytes().rstrip(b"\0")  # without reserved room
    with files.failing(fault, error), pytest.raises(LogUnavailable):
        log.append(records(2, 3))
    assert (tmp_path / "log" / SEGMENT).read_bytes().rstrip(b"\0") == before
    assert log.append(records(4)) == 1
    log.publish()
    log.close()
    findings = check_log_with_gap(tmp_path / "log", ring)
    assert findings.leaves == 2


def check_log_with_gap(directory, ring):
    """Everything holds, apart from the numbers that these tests skip."""
    findings = verify_log(directory, ring.verifier_key(ORIGIN))
    assert [p for p in findings.problems if p.step != 7] == []
    return findings


@pytest.mark.parametrize("fault", FAULTS)
def test_a_group_that_cannot_even_be_cut_off_is_cut_off_later(tmp_path, ring, fault):
    files = FaultyFiles()
    log = open_log(tmp_path, ring, files=files)
    log.append(records(1))
    files.truncate_fails = True
    with files.failing(fault), pytest.raises(LogUnavailable):
        log.append(records(2))
    if fault != "not-stored":
        with pytest.raises(LogUnavailable):  # the disk is back, the truncation is not
            log.append(records(3))
    files.truncate_fails = False
    assert log.append(records(4)) == 1
    log.publish()
    log.close()
    assert [e.event.seq for e in LogReader(tmp_path / "log").entries()] == [1, 4]


def test_failed_but_stored_is_found_if_the_process_dies_at_once(tmp_path, ring):
    files = FaultyFiles()
    log = open_log(tmp_path, ring, files=files)
    log.append(records(1))
    files.truncate_fails = True
    with files.failing("stored"), pytest.raises(LogUnavailable):
        log.append(records(2))
    log.close()  # stands for the death of the process: nothing more is written
    log = open_log(tmp_path, ring)
    assert log.position.leaves == 2
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def test_half_a_group_is_cut_if_the_process_dies_at_once(tmp_path, ring):
    files = FaultyFiles()
    log = open_log(tmp_path, ring, files=files)
    log.append(records(1))
    files.truncate_fails = True
    with files.failing("short"), pytest.raises(LogUnavailable):
        log.append(records(2))
    log.close()
    log = open_log(tmp_path, ring)
    assert log.position.leaves == 1
    assert log.recovered.cut is not None
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("fault", FAULTS)
async def test_payloads_of_a_failed_group_are_taken_back(tmp_path, ring, fault):
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    await append(notary, decision(5), 5)
    with files.failing(fault), pytest.raises(LogUnavailable):
        await append(notary, decision(10), 5)
    await append(notary, decision(15), 5)
    await notary.close()
    reader = LogReader(tmp_path / "log")
    assert reader.payload(ring, decision(5).id, "input") == b"the input of 5"
    assert reader.payload(ring, decision(10).id, "input") is None
    assert reader.payload(ring, decision(15).id, "output") == b"the output of 15"
    check_log_with_gap(tmp_path / "log", ring)


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_append_of_a_failed_group_fails_and_later_ones_do_not(tmp_path, ring, fault):
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    with files.failing(fault):
        tries = [append(notary, decision(seq)) for seq in range(1, 21)]
        failures = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(failure, LogUnavailable) for failure in failures)
        assert all(failure.retryable and failure.status_hint == 503 for failure in failures)
        assert notary.failure is not None
    again = [append(notary, decision(seq)) for seq in range(1, 21)]
    receipts = await asyncio.gather(*again)
    assert sorted(receipt.index for receipt in receipts) == list(range(20))
    assert notary.failure is None
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_random_faults_never_lose_an_acknowledged_record(tmp_path, ring):
    files = FaultyFiles()
    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, files=files, segment_bytes=20_000
    )
    acknowledged = {}

    async def client(first):
        for seq in range(first, 401, 8):
            while True:
                try:
                    receipt = await append(notary, decision(seq), 3)
                except LogUnavailable:
                    files.fault = None
                    continue
                acknowledged[receipt.index] = seq
                break
            if seq % 37 == 0:
                files.fault = FAULTS[seq % 3]

    await asyncio.gather(*[client(first) for first in range(1, 9)])
    files.fault = None
    await notary.close()
    assert sorted(acknowledged) == list(range(400))
    entries = LogReader(tmp_path / "log").entries()
    assert {e.index: e.event.seq for e in entries} == acknowledged
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def test_a_disk_that_forgot_what_it_acknowledged_is_noticed(tmp_path, ring):
    files = FaultyFiles()
    log = open_log(tmp_path, ring, files=files)
    log.append(records(1))
    path = tmp_path / "log" / SEGMENT

    def lose_acknowledged_bytes():
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)

    with files.failing("not-stored"), pytest.raises(LogUnavailable):
        log.append(records(2))
    lose_acknowledged_bytes()
    log._wal._file.spoil()
    with pytest.raises(LogDamaged, match="last acknowledged group"):
        log.append(records(3))
    log.close()


KEPT = [SEGMENT, "blobs/00000000.seg", "blobs/subjects.keys"]


@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_is_removed_takes_no_more_until_it_is_copied_back(tmp_path, ring, name):
    log = open_log(tmp_path, ring)
    log.append(with_payload(1))
    path = tmp_path / "log" / name
    path.unlink()
    for seq in (2, 3):
        with pytest.raises(LogUnavailable, match="it was removed") as told:
            log.append(with_payload(seq))
        path.touch()  # not the file that it was
    copy = str(told.value).rpartition(" ")[2]
    assert copy.startswith("/proc/")
    path.write_bytes(Path(copy).read_bytes())
    path.chmod(0o600)
    assert log.append(with_payload(2)) == 1
    log.publish()
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    reader = LogReader(tmp_path / "log")
    events = [entry.event for entry in reader.entries()]
    assert [event.seq for event in events] == [1, 2]
    bodies = [reader.payload(ring, event.id, "input") for event in events]
    assert bodies == [b"body 1", b"body 2"]


@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_is_cut_beside_its_writer_takes_no_more(tmp_path, ring, name):
    log = open_log(tmp_path, ring)
    log.append(with_payload(1))
    path = tmp_path / "log" / name
    whole = path.read_bytes()
    length = len(whole.rstrip(b"\0"))
    os.truncate(path, length - 1)
    for seq in (2, 3):
        with pytest.raises(LogUnavailable, match=f"it has {length - 1} bytes"):
            log.append(with_payload(seq))
    path.write_bytes(whole)
    assert log.append(with_payload(2)) == 1
    log.publish()
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def with_payload(seq):
    event = decision(seq)
    return [Record(encode(event), as_payloads(event.id, {"input": b"body %d" % seq}, f"{seq}"))]


def test_a_marker_that_is_removed_is_there_again_with_the_next_group(tmp_path, ring):
    log = open_log(tmp_path, ring)
    log.append(records(1))
    (tmp_path / "log" / "committed").unlink()
    log.append(records(2))
    assert LogReader(tmp_path / "log").size() == 2
    log.close()


def test_a_full_disk_while_signing_keeps_the_last_checkpoint(tmp_path, ring, monkeypatch):
    log = open_log(tmp_path, ring)
    log.append(records(*range(1, 301)))

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "injected")

    for place in ("audit.publish.replace_file", "audit.tiles.replace_file"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(LogUnavailable):
                log.publish()
        assert log.signed.size == 0
    assert log.publish().size == 300
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def test_a_full_disk_while_starting_a_segment_fails_the_group_only(tmp_path, ring, monkeypatch):
    log = open_log(tmp_path, ring, segment_bytes=1000)
    log.append(records(1))

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as patch:
        patch.setattr("audit.wal.replace_file", full)
        with pytest.raises(LogUnavailable):
            log.append(records(2))
    assert log.append([Record(encode(decision(2)))]) == 1
    log.publish()
    log.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from audit.blobfile import as_payloads
from audit.errors import LogUnavailable
from audit.keys import Keyring
from audit.notary import Notary
from tests.audit.worlds import ORIGIN, decision

async def main(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    notary = await Notary.open(folder / "log", Keyring.load(folder / "keys"), origin=ORIGIN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    refused = 0
    for seq in range(1, 41):
        try:
            await notary.append(decision(seq))
        except LogUnavailable:
            refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await notary.append(decision(seq))
    await notary.close()
    sys.stdout.write(f"{refused} {notary.size}")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_the_systems_own_refusal_to_grow_a_file_is_survived(tmp_path, ring):
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1 40"
    assert [e.event.seq for e in LogReader(tmp_path / "log").entries()] == list(range(1, 41))
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize(("megabytes", "reserved"), [(4, False), (48, True)])
def test_room_is_reserved_only_where_much_more_is_free(tmp_path, ring, megabytes, reserved):
    place = tmp_path / "log"
    place.mkdir()
    size = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], check=True)
    try:
        log = open_log(tmp_path, ring)
        for seq in range(1, 300):
            log.append(records(seq))
        path = place / SEGMENT
        assert path.read_bytes().endswith(b"\0") == reserved
        log.publish()
        log.close()
        assert not path.read_bytes().endswith(b"\0")
        check_log(place, ring.verifier_key(ORIGIN))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
