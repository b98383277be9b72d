import pytest

from audit.blobfile import Payload
from audit.blobs import Blobs
from audit.errors import LogDamaged, PayloadDamaged
from audit.files import OsFiles
from audit.frames import Watermark
from audit.keys import Keyring
from audit.payloads import Payloads
from audit.steps import drive
from audit.subjects import SLOT_BYTES, Slot, format_slot, parse_slot
from tests.audit.worlds import make_keyring


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


def payload(number, subject="alice", name="input"):
    return Payload(f"id-{number}", name, subject, b"data %d" % number)


def opened(tmp_path, ring, watermark=None, **options):
    return Blobs(tmp_path, ring, watermark or Watermark(), OsFiles(), **options)


def store(blobs, payloads):
    """Store durably; how far the files have grown."""

    def steps():
        yield (yield from blobs.begin(payloads))
        assert blobs.ahead != blobs.watermark
        blobs.commit()

    drive(steps(), OsFiles())
    return blobs.watermark


def test_payloads_come_back_by_id_and_name(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    store(blobs, [payload(1), payload(1, name="output"), payload(2, "bob")])
    store(blobs, [payload(3)])
    reader = Payloads(tmp_path)
    assert reader.get(ring, "id-1", "input") == b"data 1"
    assert reader.get(ring, "id-1", "output") == b"data 1"
    assert reader.get(ring, "id-3", "input") == b"data 3"
    assert reader.get(ring, "id-3", "nothing") is None
    store(blobs, [payload(4)])
    assert reader.get(ring, "id-4", "input") == b"data 4"
    blobs.close()


def test_nothing_readable_is_on_disk(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    store(blobs, [Payload("id-1", "input", "alice@example.com", b"a very private sentence")])
    blobs.close()
    raw = b"".join(path.read_bytes() for path in (tmp_path / "blobs").iterdir())
    assert b"private" not in raw
    assert b"alice" not in raw


def test_subjects_share_no_key_and_one_subject_has_one(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    store(blobs, [payload(1, "alice"), payload(2, "bob"), payload(3, "alice")])
    assert store(blobs, [payload(4, "bob")]).subjects == 2
    blobs.close()
    again = opened(tmp_path, ring, blobs.watermark)
    assert store(again, [payload(5, "alice")]).subjects == 2
    again.close()


def test_a_destroyed_subject_is_unreadable_for_ever(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    mark = store(blobs, [payload(1, "alice"), payload(2, "bob")])
    before = (tmp_path / "blobs" / "subjects.keys").read_bytes()
    assert blobs.destroy("alice")
    blobs.close()
    after = (tmp_path / "blobs" / "subjects.keys").read_bytes()
    assert before[44:100] not in after
    blobs = opened(tmp_path, ring, mark)
    store(blobs, [payload(3, "alice")])
    blobs.close()
    reader = Payloads(tmp_path)
    assert reader.get(ring, "id-1", "input") is None
    assert reader.get(ring, "id-2", "input") == b"data 2"
    assert reader.get(ring, "id-3", "input") == b"data 3"


def test_what_no_leaf_vouches_for_is_cut_on_open(tmp_path, ring):
    blobs = opened(tmp_path, ring, segment_bytes=200)
    mark = store(blobs, [payload(1)])
    for number in range(2, 9):
        store(blobs, [payload(number, f"subject {number}")])
    blobs.close()
    assert len(list((tmp_path / "blobs").glob("*.seg"))) > 1
    blobs = opened(tmp_path, ring, mark)
    assert blobs.cut_bytes > 0
    assert blobs.watermark == mark
    blobs.close()
    assert Payloads(tmp_path).get(ring, "id-5", "input") is None


def test_a_reader_that_saw_bytes_which_were_taken_back_looks_again(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    mark = store(blobs, [payload(1)])
    reader = Payloads(tmp_path)
    store(blobs, [payload(2), payload(3)])
    assert reader.get(ring, "id-2", "input") == b"data 2"
    blobs.roll_back(mark)
    store(blobs, [payload(22), payload(3)])
    assert reader.get(ring, "id-2", "input") is None
    assert reader.get(ring, "id-3", "input") == b"data 3"
    assert reader.get(ring, "id-22", "input") == b"data 22"
    blobs.close()


def test_a_payload_file_shorter_than_the_log_says_is_refused(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    mark = store(blobs, [payload(1)])
    blobs.close()
    for name in ("00000000.seg", "subjects.keys"):
        path = tmp_path / "blobs" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(LogDamaged, match=name):
            opened(tmp_path, ring, mark)
        path.write_bytes(whole)


def test_a_damaged_key_slot_is_refused(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    mark = store(blobs, [payload(1)])
    blobs.close()
    path = tmp_path / "blobs" / "subjects.keys"
    raw = bytearray(path.read_bytes())
    raw[60] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LogDamaged, match="key slot"):
        opened(tmp_path, ring, mark)
    with pytest.raises(LogDamaged, match="key slot"):
        Payloads(tmp_path).get(ring, "id-1", "input")


def test_a_changed_payload_does_not_open(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    store(blobs, [payload(1)])
    blobs.close()
    path = tmp_path / "blobs" / "00000000.seg"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LogDamaged):
        Payloads(tmp_path).get(ring, "id-1", "input")


def test_another_keyring_opens_nothing(tmp_path, ring):
    blobs = opened(tmp_path, ring)
    store(blobs, [payload(1)])
    blobs.close()
    other = Keyring.load_or_create(tmp_path / "other")
    with pytest.raises(PayloadDamaged):
        Payloads(tmp_path).get(other, "id-1", "input")


def test_a_slot_reads_back_as_it_was_written():
    slot = Slot(1, b"s" * 32, b"n" * 12, b"w" * 48)
    raw = format_slot(slot)
    assert len(raw) == SLOT_BYTES
    assert parse_slot(raw) == slot
    for offset in range(SLOT_BYTES):
        assert parse_slot(raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :]) is None
