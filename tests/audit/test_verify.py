"""Attacks on a log, one per test: each is found, and the place is named."""

import asyncio
import random
import shutil

import pytest

from audit.cosignature import Cosigner
from audit.findings import amount
from audit.frames import Frame, Watermark, format_frame, format_segment_header, scan
from audit.keys import Keyring
from audit.log import Log
from audit.marker import MARKER_NAME, Position, format_marker
from audit.notary import Notary
from audit.note import Checkpoint, Signer
from audit.record import encode
from audit.verify import verify_log
from tests.audit.worlds import (
    ORIGIN,
    append,
    decision,
    make_keyring,
    mixed_world,
    records,
)

SEGMENT = "wal/00000000000000000000.wal"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return mixed_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def victim(world, tmp_path):
    return world.copy(tmp_path / "log")


def problems(victim, **options):
    return verify_log(victim.directory, victim.key, **options).problems


def flip(path, offset, bit=1):
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def wal_entries(directory):
    entries = []
    for path in sorted((directory / "wal").glob("*.wal")):
        with path.open("rb") as file:
            for frame in scan(file, first=len(entries)):
                assert isinstance(frame, Frame)
                entries += frame.entries()
    return entries


def rewrite_wal(directory, entries):
    """What an operator who owns the disk can do: a log that is whole, but for the signature."""
    watermark = last_watermark(directory)
    shutil.rmtree(directory / "wal")
    (directory / "wal").mkdir()
    data = format_segment_header(0) + format_frame(0, entries, watermark)
    (directory / SEGMENT).write_bytes(data)
    marker = Position(len(entries), 0, len(data))
    (directory / MARKER_NAME).write_bytes(format_marker(marker))


def last_watermark(directory):
    watermark, first = Watermark(), 0
    for path in sorted((directory / "wal").glob("*.wal")):
        with path.open("rb") as file:
            for frame in scan(file, first=first):
                watermark, first = frame.watermark, frame.first + frame.leaf_count
    return watermark


def test_an_untouched_log_verifies_and_is_counted(world):
    findings = verify_log(world.directory, world.key)
    assert findings.problems == ()
    assert (findings.leaves, findings.signed_leaves) == (330, 330)
    assert findings.counts["decision events"] == 330
    assert findings.counts["payloads"] == 132
    assert findings.instances == {"0000000a": 330}
    assert findings.origin == ORIGIN
    assert "everything verifies" in findings.text()


def checked(findings):
    """The numbers of the steps that held, and of those that failed; each is printed as it is."""
    held, failed = (
        [int(step.split()[0]) for step in kind] for kind in (findings.steps, findings.failed)
    )
    lines = findings.text().splitlines()
    assert [line[11:] for line in lines if line.startswith("checked ")] == list(findings.steps)
    assert [line[11:] for line in lines if line.startswith("FAILED ")] == list(findings.failed)
    assert {problem.step for problem in findings.problems} == set(failed)
    return held, failed


def test_a_step_counts_as_checked_where_all_of_it_was_and_holds(world, victim):
    directory, key = victim.directory, victim.key
    kept = (directory / "checkpoint").read_text()
    assert checked(verify_log(directory, key)) == ([1, 2, 3, 4, 6, 7, 8, 9], [])
    whole = verify_log(directory, key, earlier_checkpoint=kept)
    assert checked(whole) == ([1, 2, 3, 4, 5, 6, 7, 8, 9], [])
    flip(directory / "tile/0/000", 40)
    assert checked(verify_log(directory, key)) == ([1, 2, 3, 6, 7, 8, 9], [4])
    flip(directory / "tile/0/000", 40)
    (directory / "checkpoint").unlink()
    unsigned = verify_log(directory, key)
    assert checked(unsigned) == ([2, 4, 6, 7, 8, 9], [1])
    assert "step 3 not checked: no checkpoint is signed by the given key" in unsigned.notes


def test_what_cannot_be_checked_is_not_said_to_hold(victim):
    directory, key = victim.directory, victim.key
    kept = (directory / "checkpoint").read_text()
    flip(directory / SEGMENT, 100)
    damaged = verify_log(directory, key, earlier_checkpoint=kept)
    assert checked(damaged) == ([1, 3, 4, 5, 6, 7, 8], [2])  # its leaves are in the bundles, too
    assert any("step 9 not checked in full" in note for note in damaged.notes)
    (directory / "tile/entries/000").unlink()
    lost = verify_log(directory, key, earlier_checkpoint=kept)
    assert checked(lost) == ([1, 8], [2, 3, 4, 7])
    assert "steps 4, 5, 6, 7 not checked in full: leaves are lost" in lost.notes
    (directory / "checkpoint").unlink()
    (directory / "checkpoint").mkdir()
    unread = verify_log(directory, key)
    assert (checked(unread), unread.read) == (([], [1]), False)


def test_of_a_copy_without_its_write_ahead_log_the_tiles_are_checked(victim):
    shutil.rmtree(victim.directory / "wal")
    (victim.directory / MARKER_NAME).unlink()
    findings = verify_log(victim.directory, victim.key)
    assert checked(findings) == ([1, 3, 4, 6, 7], [])
    assert "steps 2, 8, 9 not checked: there is no write-ahead log" in findings.notes


def test_a_shorter_log_without_a_checkpoint_does_not_extend_the_one_of_before(victim):
    kept = (victim.directory / "checkpoint").read_text()
    rewrite_wal(victim.directory, wal_entries(victim.directory)[:300])
    shutil.rmtree(victim.directory / "tile")
    (victim.directory / "checkpoint").unlink()
    found = verify_log(victim.directory, victim.key, earlier_checkpoint=kept)
    assert "the log holds 300 leaves, fewer than the 330" in found.text()
    assert checked(found)[1] == [1, 5]


def test_that_no_cosignatures_are_kept_is_said_to_whom_asks_for_them(victim):
    witness = Cosigner("example.org/w", bytes(32)).key
    findings = verify_log(victim.directory, victim.key, witnesses=[witness])
    assert "step 10 not checked: no cosignatures are kept here" in findings.notes
    assert checked(findings) == ([1, 2, 3, 4, 6, 7, 8, 9], [])
    assert not verify_log(victim.directory, victim.key).notes


def test_one_of_a_thing_is_named_in_the_singular(victim):
    singular = {
        "key slots": "key slot", "pruned leaves": "pruned leaf", "access events": "access event",
        "witnesses that cosigned": "witness that cosigned", "things": "things",
        "checkpoints that witnesses cosigned": "checkpoint that witnesses cosigned",
    }  # fmt: skip
    for many, one in singular.items():
        assert (amount(1, many), amount(2, many)) == (f"1 {one}", f"2 {many}")
    # Whatever a whole log is counted by has a singular.
    counts = dict.fromkeys(verify_log(victim.directory, victim.key).counts, 1)
    assert all(amount(1, name) != f"1 {name}" for name in counts), counts


def test_the_key_may_come_in_any_form(world):
    for key in (world.key, str(world.key), world.keyring.public_key):
        assert verify_log(world.directory, key).ok


def test_a_flipped_bit_anywhere_is_found_and_its_file_named(world, victim):
    source = random.Random(7)
    for name in world.files():
        path = victim.directory / name
        size = path.stat().st_size
        offsets = {0, size - 1, size // 2} | {source.randrange(size) for _ in range(9)}
        for offset in sorted(offsets):
            bit = 1 << source.randrange(8)
            flip(path, offset, bit)
            named = [p.file for p in problems(victim)]
            assert str(name) in named, f"{name} byte {offset} bit {bit}: {named}"
            flip(path, offset, bit)
    assert problems(victim) == ()


@pytest.mark.parametrize("name", ["checkpoint", MARKER_NAME])
def test_every_flipped_bit_of_the_small_files_is_found(victim, name):
    path = victim.directory / name
    for offset in range(path.stat().st_size):
        for bit in (1, 128):
            flip(path, offset, bit)
            assert name in [p.file for p in problems(victim)], (offset, bit)
            flip(path, offset, bit)


def test_damage_does_not_hide_other_damage(victim):
    segments = sorted((victim.directory / "wal").iterdir())
    flip(segments[0], 2000)
    flip(segments[1], 3000)
    flip(victim.directory / "tile/0/000", 40)
    found = [p.file for p in problems(victim)]
    assert f"wal/{segments[0].name}" in found
    assert f"wal/{segments[1].name}" in found
    assert "tile/0/000" in found


def test_a_damaged_group_is_named_with_its_file_offset_and_leaf(victim):
    flip(victim.directory / SEGMENT, 100)
    first = problems(victim)[0]
    assert (first.step, first.file, first.offset, first.leaf) == (2, SEGMENT, 20, 0)
    assert "checksum" in str(first)


def test_a_changed_leaf_is_named(victim):
    entries = wal_entries(victim.directory)
    entries[100] = encode(decision(101, label="<=50K"))
    rewrite_wal(victim.directory, entries)
    found = problems(victim)
    assert any(p.step == 3 and "changed" in p.message for p in found)
    assert any(p.step == 4 and p.leaf == 100 and p.file == "tile/0/000" for p in found)


def test_a_deleted_leaf_is_named(victim):
    entries = wal_entries(victim.directory)
    del entries[57]
    rewrite_wal(victim.directory, entries)
    found = problems(victim)
    assert any(p.step == 2 and "truncated" in p.message for p in found)
    assert any(p.step == 4 and p.leaf == 57 and "taken out" in p.message for p in found)
    assert any(p.step == 7 and "number 58 is missing" in p.message for p in found)


def test_swapped_leaves_are_named(victim):
    entries = wal_entries(victim.directory)
    entries[10], entries[20] = entries[20], entries[10]
    rewrite_wal(victim.directory, entries)
    found = problems(victim)
    assert any(p.step == 3 for p in found)
    assert any(p.step == 4 and p.leaf == 10 and "leaf 20 here" in p.message for p in found)


def test_an_inserted_leaf_is_found(victim):
    entries = wal_entries(victim.directory)
    entries.insert(200, encode(decision(1, instance="0000000b")))
    rewrite_wal(victim.directory, entries)
    assert {3, 4} <= {p.step for p in problems(victim)}


def test_a_segment_spliced_in_from_a_log_with_another_past_is_found(victim):
    path = sorted((victim.directory / "wal").iterdir())[1]
    first = int(path.stem)
    with path.open("rb") as file:
        frames = list(scan(file, first=first))
    other = [encode(decision(seq, label="<=50K")) for seq in range(first + 1, first + 400)]
    spliced = format_segment_header(first)
    for frame in frames:
        start = frame.first - first
        entries = other[start : start + frame.leaf_count]
        spliced += format_frame(frame.first, entries, frame.watermark)
    path.write_bytes(spliced)
    found = problems(victim)
    assert any(p.step == 3 for p in found)
    assert any(p.step == 4 and p.leaf == first for p in found)


def test_a_log_that_is_rewritten_with_its_tiles_does_not_match_the_signature(victim, tmp_path):
    forger = Keyring.load_or_create(tmp_path / "forger")
    shutil.rmtree(victim.directory)
    log = Log.open(victim.directory, forger, origin=ORIGIN)
    log.append(records(*range(1, 330)))
    log.publish()
    log.close()
    assert [p.file for p in problems(victim)] == ["checkpoint"]


@pytest.mark.parametrize("cut", [1, 700, 30_000])
def test_a_truncated_segment_is_named(victim, cut):
    path = sorted((victim.directory / "wal").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-cut])
    assert any(p.file == f"wal/{path.name}" for p in problems(victim))


def test_a_missing_segment_is_named(victim):
    path = sorted((victim.directory / "wal").iterdir())[1]
    path.unlink()
    assert any(p.file == f"wal/{path.name}" and "missing" in p.message for p in problems(victim))


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/000", "tile/1/000.p/1"])
def test_a_missing_tile_is_named(victim, name):
    (victim.directory / name).unlink()
    assert ("missing", name) in [(p.message, p.file) for p in problems(victim)]


def test_a_tile_that_belongs_to_no_leaf_is_named(victim):
    (victim.directory / "tile/0/007").write_bytes(bytes(8192))
    assert "tile/0/007" in [p.file for p in problems(victim)]


@pytest.mark.parametrize("name", ["blobs/00000000.seg", "blobs/subjects.keys"])
def test_a_truncated_or_missing_payload_file_is_named(victim, name):
    path = victim.directory / name
    path.write_bytes(path.read_bytes()[:-1])
    assert any(p.file == name and "truncated" in p.message for p in problems(victim))
    path.unlink()
    assert name in [p.file for p in problems(victim)]


def test_a_missing_checkpoint_is_named(victim):
    (victim.directory / "checkpoint").unlink()
    assert problems(victim)[0].file == "checkpoint"


def test_another_public_key_does_not_verify(victim, tmp_path):
    other = Keyring.load_or_create(tmp_path / "other")
    for key in (other.verifier_key(ORIGIN), other.public_key):
        assert verify_log(victim.directory, key).problems[0].file == "checkpoint"


def test_a_swapped_key_that_signs_the_same_tree_does_not_verify(victim, tmp_path):
    other = Keyring.load_or_create(tmp_path / "other")
    text = (victim.directory / "checkpoint").read_text(encoding="utf-8").split("\n\n")[0] + "\n"
    (victim.directory / "checkpoint").write_text(other.signer(ORIGIN).sign(text), encoding="utf-8")
    assert problems(victim)[0].file == "checkpoint"


def test_a_checkpoint_for_another_log_name_does_not_verify(victim):
    signer = Signer("example.com/other", victim.keyring.log_seed)
    old = (victim.directory / "checkpoint").read_text(encoding="utf-8").split("\n")
    text = "\n".join(["example.com/other", *old[1:3], ""])
    (victim.directory / "checkpoint").write_text(signer.sign(text), encoding="utf-8")
    assert problems(victim)[0].file == "checkpoint"


async def grown(folder, count, **changes):
    notary = await Notary.open(folder / "log", make_keyring(folder / "keys"), origin=ORIGIN)
    for seq in range(notary.size + 1, count + 1):
        await notary.append(decision(seq, **changes))
    await notary.close()
    return (folder / "log" / "checkpoint").read_text(encoding="utf-8")


async def test_an_earlier_checkpoint_of_the_same_log_is_a_prefix(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    earlier = await grown(tmp_path, 10)
    await grown(tmp_path, 20)
    key = ring.verifier_key(ORIGIN)
    assert verify_log(tmp_path / "log", key, earlier_checkpoint=earlier).ok


async def test_a_forked_log_is_found_with_an_earlier_checkpoint(tmp_path):
    earlier = await grown(tmp_path / "a", 10)
    shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
    await grown(tmp_path / "b", 20, label="<=50K")
    key = make_keyring(tmp_path / "b" / "keys").verifier_key(ORIGIN)
    assert verify_log(tmp_path / "b" / "log", key).ok
    found = verify_log(tmp_path / "b" / "log", key, earlier_checkpoint=earlier).problems
    assert [(p.step, "forked" in p.message) for p in found] == [(5, True)]


async def test_a_rolled_back_log_is_found_with_a_later_checkpoint(tmp_path):
    await grown(tmp_path, 10)
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    later = await grown(tmp_path, 20)
    key = make_keyring(tmp_path / "keys").verifier_key(ORIGIN)
    found = verify_log(tmp_path / "old", key, earlier_checkpoint=later).problems
    assert [(p.step, "rolled back" in p.message) for p in found] == [(5, True)]


async def test_a_replayed_checkpoint_is_found_with_the_later_one(tmp_path):
    old = await grown(tmp_path, 10)
    new = await grown(tmp_path, 20)
    (tmp_path / "log" / "checkpoint").write_text(old, encoding="utf-8")
    key = make_keyring(tmp_path / "keys").verifier_key(ORIGIN)
    found = verify_log(tmp_path / "log", key, earlier_checkpoint=new).problems
    assert any("replayed" in p.message and p.file == "checkpoint" for p in found)


def test_an_earlier_checkpoint_that_nobody_signed_is_said_to_be_so(victim):
    text = Checkpoint(ORIGIN, 5, bytes(32)).text()
    note = Signer(ORIGIN, bytes(32)).sign(text)
    assert [p.step for p in problems(victim, earlier_checkpoint=note)] == [5]


def test_the_leaves_alone_can_be_verified_from_the_public_tiles(victim):
    """An auditor who has only what is served: checkpoint and tile/."""
    for name in ("wal", "blobs"):
        shutil.rmtree(victim.directory / name)
    (victim.directory / MARKER_NAME).unlink()
    found = verify_log(victim.directory, victim.key)
    assert found.leaves == 330
    assert found.problems == ()
    flip(victim.directory / "tile/entries/000", 500)
    assert not verify_log(victim.directory, victim.key).ok


def test_bytes_after_the_committed_end_are_noted(victim):
    path = sorted((victim.directory / "wal").iterdir())[-1]
    path.write_bytes(path.read_bytes() + b"torn")
    findings = verify_log(victim.directory, victim.key)
    assert findings.ok
    assert any("4 bytes after the committed end" in note for note in findings.notes)


def test_a_foreign_file_is_noted(victim):
    (victim.directory / "notes.txt").write_text("hello", encoding="utf-8")
    assert any("notes.txt" in note for note in verify_log(victim.directory, victim.key).notes)


async def test_a_log_can_be_verified_while_it_is_written(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, segment_bytes=100_000, checkpoint_interval_s=0.005
    )
    stop = asyncio.Event()

    async def client(first):
        seq = first
        while not stop.is_set():
            await append(notary, decision(seq), 7)
            seq += 4

    load = asyncio.gather(*[client(first) for first in range(1, 5)])
    seen = []
    while len(seen) < 12 or seen[-1].leaves < 600:
        findings = await asyncio.to_thread(
            verify_log, tmp_path / "log", ring.verifier_key(ORIGIN), in_flight_s=3600
        )
        assert findings.ok, findings.text()
        seen.append(findings)
    stop.set()
    await load
    await notary.close()
    assert verify_log(tmp_path / "log", ring.verifier_key(ORIGIN)).ok
