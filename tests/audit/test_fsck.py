"""fsck: each state of a log's folder is named, explained, and judged; repair touches no truth."""

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from typing import get_type_hints

import orjson
import pytest

from audit import pruning
from audit.erasing import Erasing
from audit.errors import LogDamaged, LogLocked, ProofError
from audit.events import Erasure
from audit.fsck import inspect
from audit.index import Index
from audit.log import Log, Record
from audit.record import encode
from audit.repair import rebuild_derived
from audit.seals import Seals
from audit.snapshot import SNAPSHOTS
from audit.testing import check_log
from audit.verify import verify_log
from services.cli_fsck import fsck
from tests.audit.pruneworld import living
from tests.audit.test_pruning import Crash, dying_at, old_and_new
from tests.audit.worlds import ORIGIN, World, build_world, decision, make_keyring, open_log


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("fsck")
    world = asyncio.run(build_world(folder, [3] * 120, segment_bytes=100_000))
    with Index(world.directory) as index:
        index.catch_up()
    return world


@pytest.fixture
def world(made, tmp_path) -> World:
    return made.copy(tmp_path / "log")


def seen(world, level=None):
    report = inspect(world.directory, world.key)
    return {one.path: one for one in report.seen if level in (None, one.level)}, report.status


def last_segment(world):
    return max((world.directory / "wal").glob("*.wal"))


def test_a_closed_log_is_clean(world) -> None:
    found, status = seen(world)
    assert status == 0, found
    assert {one.level for one in found.values()} == {"fine"}
    assert found["committed"].what == "counts 360 records"
    assert "free" in found["lock"].what


def test_a_torn_tail_is_normal_and_the_next_start_cuts_it(world) -> None:
    path = last_segment(world)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xf5WB\xfe half a frame")
    found, status = seen(world, "mend")
    assert status == 1
    one = found[f"wal/{path.name}"]
    assert f"torn tail of 17 bytes at byte {len(whole)}" in one.what
    assert "never acknowledged" in one.means
    # So it is also without the marker, which a power cut may take.
    (world.directory / "committed").unlink()
    found, status = seen(world, "mend")
    assert status == 1, found
    assert "power cut" in found["committed"].means
    Log.open(world.directory, world.keyring, origin=ORIGIN).close()
    assert path.read_bytes() == whole
    assert seen(world)[1] == 0


def test_reserved_room_is_normal(world) -> None:
    path = last_segment(world)
    path.write_bytes(path.read_bytes() + bytes(5000))
    found, status = seen(world, "mend")
    assert status == 1
    assert "5000 bytes of reserved room" in found[f"wal/{path.name}"].what


def test_whole_groups_after_the_committed_end_are_kept(world) -> None:
    marker = (world.directory / "committed").read_bytes()
    log = Log.open(world.directory, world.keyring, origin=ORIGIN)
    log.append([Record(encode(decision(361)))])
    log.close()
    (world.directory / "committed").write_bytes(marker)
    found, status = seen(world, "mend")
    assert status == 1, found
    assert "1 whole record after the committed end" in str(found.values())
    assert "keeps them" in str(found.values())


def flipped(path, offset) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("wal/00000000000000000000.wal", "no crash does that"),
        ("committed", "contradicts the log"),
        ("checkpoint", "signed by another key"),
        ("blobs/00000000.seg", "payloads or their keys"),
    ],
)
def test_a_flipped_bit_is_damage(world, name, means) -> None:
    flipped(world.directory / name, 30)
    found, status = seen(world, "damage")
    assert status == 2
    assert means in found[name].means
    every = [one.path for one in inspect(world.directory, world.key).seen]
    assert every.count(name) == 1  # said once


def test_a_missing_segment_is_damage(world) -> None:
    sorted((world.directory / "wal").glob("*.wal"))[1].unlink()
    assert seen(world)[1] == 2


def test_missing_tiles_are_mended_and_changed_ones_are_damage(world) -> None:
    (world.directory / "tile/0/000").unlink()
    found, status = seen(world, "mend")
    assert (status, found["tile/0/000"].what) == (1, "missing")
    flipped(world.directory / "tile/entries/000", 500)
    found, status = seen(world, "damage")
    assert (status, "--repair" in found["tile/entries/000"].todo) == (2, True)
    (world.directory / "tile/0/777").write_bytes(b"x")
    wal = {path: path.read_bytes() for path in (world.directory / "wal").iterdir()}
    done = rebuild_derived(world.directory, world.key, ["tile/0/777"])
    assert set(done) == {"tile/0/777", "tile/0/000", "tile/entries/000", "index.sqlite"}
    assert seen(world)[1] == 0
    assert wal == {path: path.read_bytes() for path in (world.directory / "wal").iterdir()}
    assert rebuild_derived(world.directory, world.key) == ["index.sqlite"]


def test_tiles_of_a_wrong_log_are_not_made(world) -> None:
    other = open_log(world.directory.parent / "other", world.keyring)
    for seq in range(1, 361):
        other.append([Record(encode(decision(seq, label="other")))])
    other.publish()
    other.close()
    shutil.rmtree(world.directory / "wal")
    shutil.copytree(world.directory.parent / "other" / "log" / "wal", world.directory / "wal")
    shutil.copy(world.directory.parent / "other" / "log" / "committed", world.directory)
    before = (world.directory / "tile/0/000").read_bytes()
    with pytest.raises(ProofError, match="do not give the signed root"):
        rebuild_derived(world.directory, world.key, ["tile/0/000"])
    assert (world.directory / "tile/0/000").read_bytes() == before


def test_a_missing_checkpoint_is_signed_anew_by_the_next_start(world) -> None:
    early = (world.directory / "checkpoint").read_text()
    (world.directory / "checkpoint").unlink()
    found, status = seen(world, "mend")
    assert (status, list(found)) == (1, ["checkpoint"])
    assert "--earlier" in found["checkpoint"].todo
    Log.open(world.directory, world.keyring, origin=ORIGIN).publish()
    assert seen(world)[1] == 0
    assert verify_log(world.directory, world.key, earlier_checkpoint=early).ok


def test_a_link_is_called_one_and_its_target_is_left_alone(world, tmp_path) -> None:
    for name, kind in ((f"wal/{last_segment(world).name}", "file"), ("blobs", "folder")):
        path, outside = world.directory / name, tmp_path / "elsewhere" / name
        outside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(outside)
        path.symlink_to(outside)
        found, status = seen(world, "mend")
        assert status == 1
        assert found[name].what == f"a link to {outside}"
        assert found[name].todo == f"put the {kind} itself in its place"
    assert "chmod" not in str(found)


def test_names_modes_and_leftovers_are_named(world) -> None:
    directory = world.directory
    (directory / "notes.txt").write_text("mine")
    (directory / "wal" / "x.bak").write_text("mine")
    (directory / "checkpoint.tmp").write_text("half")
    (directory / "blobs" / "subjects.keys").chmod(0o644)
    (directory / "checkpoint").chmod(0o666)
    found, status = seen(world)
    assert status == 1
    assert found["notes.txt"].what == found["wal/x.bak"].what == "a foreign file"
    assert found["notes.txt"].level == "note"
    assert "never got its name" in found["checkpoint.tmp"].what
    assert "chmod go-rwx" in found["blobs/subjects.keys"].todo
    assert "chmod go-w" in found["checkpoint"].todo


def test_the_outcomes_that_a_gateway_noted_are_no_foreign_files(world) -> None:
    with closing(sqlite3.connect(world.directory / "outcomes.sqlite")) as db:
        db.execute("CREATE TABLE derived (x)")
    for suffix in ("-wal", "-shm"):
        (world.directory / f"outcomes.sqlite{suffix}").write_bytes(b"derived")
    found, status = seen(world)
    assert status == 0
    assert {one.level for one in found.values()} == {"fine"}
    assert not verify_log(world.directory, world.key).notes


def test_a_stale_index_is_a_note_and_a_damaged_one_is_mended(world) -> None:
    log = Log.open(world.directory, world.keyring, origin=ORIGIN)
    log.append([Record(encode(decision(361)))])
    log.publish()
    log.close()
    found, status = seen(world)
    assert (status, found["index.sqlite"].what) == (0, "1 leaf behind")
    (world.directory / "index.sqlite").write_bytes(b"no database at all" * 1000)
    found, status = seen(world)
    assert (status, found["index.sqlite"].level) == (1, "mend")


def test_repair_removes_no_file_of_somebody_else(world, tmp_path) -> None:
    directory, outside = world.directory, tmp_path / "outside"
    outside.mkdir()
    (directory / "linked").symlink_to(outside)
    own = ["checkpoint.tmp", "wal/00000000000000000360.wal.tmp", "tile/0/001.p/104.tmp"]
    theirs = ["mynotes.tmp", "wal/notes.wal.tmp", "tile/notes.txt", "tile/0/notes.tmp"]
    theirs += ["linked/checkpoint.tmp", "wal/00000000000000000360.tmp"]
    for name in [*own, *theirs]:
        (directory / name).write_text("half")
    done = rebuild_derived(directory, world.key, [*theirs, "tile/../checkpoint"])
    assert sorted(name for name in done if name.endswith(".tmp")) == sorted(own)
    assert all((directory / name).exists() for name in theirs)
    assert not any((directory / name).exists() for name in own)
    assert "you know" in seen(world, "damage")[0]["tile/notes.txt"].todo
    found, _ = seen(world, "note")
    assert found["mynotes.tmp"].what == "a foreign file"


def test_repair_does_not_follow_a_link_to_tiles(world, tmp_path) -> None:
    outside = tmp_path / "outside"
    (world.directory / "tile").rename(outside)
    (world.directory / "tile").symlink_to(outside)
    (outside / "0" / "000").write_bytes(b"somebody else's")
    (outside / "0" / "000.tmp").write_bytes(b"somebody else's")
    with pytest.raises(LogDamaged, match="a link"):
        rebuild_derived(world.directory, world.key, ["tile/0/000"])
    assert (outside / "0" / "000").read_bytes() == b"somebody else's"
    assert (outside / "0" / "000.tmp").exists()


def test_repair_reads_nothing_that_is_no_file(world) -> None:
    (world.directory / "tile" / "linked").symlink_to(world.directory / "wal")
    with pytest.raises(LogDamaged, match="a folder in place of a file"):
        rebuild_derived(world.directory, world.key, ["tile/linked/00000000000000000000.wal"])
    (world.directory / "checkpoint").unlink()
    os.mkfifo(world.directory / "checkpoint")
    with pytest.raises(LogDamaged, match="a pipe"):
        rebuild_derived(world.directory, world.key)


def test_lost_keys_of_sealed_parts_are_damage(world) -> None:
    (world.directory / "blobs" / "seal").mkdir(mode=0o700)
    (found,) = verify_log(world.directory, world.key).problems
    assert (found.step, found.file) == (9, "blobs/seal.roots")
    with pytest.raises(LogDamaged):
        Seals(world.directory, world.keyring, create=True)
    by_name, status = seen(world, "damage")
    assert (list(by_name), status) == (["blobs/seal.roots"], 2)


def test_the_names_of_files_write_no_lines_and_colours(world) -> None:
    evil = b"\x1b[31mred\nPROBLEM \xff \xe2\x80\xae"
    for folder in (b"", b"wal/", b"tile/", b"checkpoints/"):
        path = world.directory / os.fsdecode(folder + evil)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    findings = verify_log(world.directory, world.key)
    assert any(p.file == r"tile/\x1b[31mred\nPROBLEM \udcff \u202e" for p in findings.problems)
    assert all(line.isprintable() for line in findings.text().splitlines())
    orjson.dumps([str(p) for p in findings.problems] + list(findings.notes))
    report = inspect(world.directory, world.key)
    assert sum("PROBLEM" in one.path for one in report.seen) >= 4
    for one in report.seen:
        assert all(text.isprintable() for text in one)
    orjson.dumps([one._asdict() for one in report.seen])
    os.mkfifo(os.fsencode(world.directory) + b"/tile/pipe\n\xff")
    assert [one.path for one in inspect(world.directory, world.key).seen] == [r"tile/pipe\n\udcff"]


def test_an_export_that_was_interrupted_is_named(world, tmp_path) -> None:
    def told(text):
        (tmp_path / "parquet").mkdir(exist_ok=True)
        (tmp_path / "parquet" / "_manifest.json").write_text(text)
        report = inspect(world.directory, world.key, parquet=tmp_path / "parquet")
        return {one.path: one for one in report.seen}["parquet/_manifest.json"]

    assert told('{"announced":null,"steps":[1,2]}').level == "fine"
    found = told('{"announced":[0,65536],"steps":[]}')
    assert (found.level, "0 to 65535 are announced" in found.what) == ("mend", True)
    for odd in ("{", "[1]", '{"announced":5,"steps":[]}', '{"announced":["a",2],"steps":[]}'):
        assert told(odd).what == "damaged"
    (tmp_path / "parquet" / "_manifest.json").unlink()
    os.mkfifo(tmp_path / "parquet" / "_manifest.json")
    report = inspect(world.directory, world.key, parquet=tmp_path / "parquet")
    assert [one.what for one in report.seen if one.path.startswith("parquet")] == ["damaged"]


def test_payloads_without_records_are_cut_at_the_next_start(world) -> None:
    path = world.directory / "blobs" / "00000000.seg"
    path.write_bytes(path.read_bytes() + b"an orphan")
    later = world.directory / "blobs" / "00000001.seg"
    later.write_bytes(b"orphans")
    later.chmod(0o600)
    found, status = seen(world, "mend")
    assert status == 1
    assert "9 bytes of payloads without records" in found["blobs/00000000.seg"].what
    assert found["blobs/00000001.seg"].what == "payloads without records"
    Log.open(world.directory, world.keyring, origin=ORIGIN).close()
    assert seen(world)[1] == 0


async def test_segments_that_were_ended_and_begun_are_no_leftovers(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await log.decide(20, at=0, payload=b"x")
        await log.notary.checkpoint()
        await log.pruning.roll()
    assert (log.directory / "blobs" / "00000001.seg").exists()
    assert seen(World(log.directory, ring, ()))[1] == 0


async def test_an_interrupted_erasure_and_a_living_writer_are_no_damage(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await log.decide(20, at=0, payload=b"x")
        event = Erasure(
            id=decision(77).id,
            time_us=decision(1).time_us,
            unit_ref="ab" * 16,
            actor="a",
            reason="b",
            key_slots=[0],
        )
        await log.notary.append(event)
        await log.notary.checkpoint()
        await log.decide(5, at=1)  # not signed yet
        world = World(log.directory, ring, ())
        found, status = await asyncio.to_thread(seen, world)
        assert status == 1, found
        assert f"process {os.getpid()}" in found["lock"].what
        assert [path for path, one in found.items() if one.level == "mend"] == ["blobs"]
        assert "an erasure was interrupted" in found["blobs"].means
        await Erasing(log.notary, Seals(log.directory, ring)).finish()
        found, status = await asyncio.to_thread(seen, world)
        assert status == 0, found
        with pytest.raises(LogLocked):
            rebuild_derived(log.directory, world.key)


@pytest.mark.parametrize("step", [2, 3, 4, 8])
async def test_an_interrupted_pruning_is_named(tmp_path, monkeypatch, step) -> None:
    ring = make_keyring(tmp_path / "keys")
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "prune_files", dying_at(step))
        async with living(tmp_path, ring) as log:
            await old_and_new(log)
            with pytest.raises(Crash):
                await log.prune()
    world = World(tmp_path / "log", ring, ())
    found, status = seen(world, "mend")
    assert status == 1, seen(world, "damage")
    assert "pruning" in str([one.means for one in found.values()])
    async with living(tmp_path, ring) as log:
        await log.pruning.finish()
    found, status = seen(world)
    assert status == 0, found
    shutil.rmtree(world.directory / "tile")
    rebuild_derived(world.directory, world.key)
    check_log(world.directory, world.key)


def test_repair_says_that_it_removes_what_it_removes() -> None:
    option = get_type_hints(fsck, include_extras=True)["repair"].__metadata__[0]
    assert all(name in option.help for name in ("tiles", "index", *SNAPSHOTS))


def test_repair_removes_snapshots_and_the_next_start_reads_the_log(world) -> None:
    for name in SNAPSHOTS:
        (world.directory / name).write_bytes(b"of another log")
    assert seen(world)[1] == 1
    assert rebuild_derived(world.directory, world.key) == ["index.sqlite", *SNAPSHOTS]
    assert not any((world.directory / name).exists() for name in SNAPSHOTS)
    assert seen(world)[1] == 0
