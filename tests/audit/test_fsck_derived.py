"""fsck looks into derived files, too: whoever reads 0 may believe that the next start is quick."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial

import pytest

from audit import standing
from audit.erasing import Erasing
from audit.fsck_files import START
from audit.index import Index
from audit.notary import Notary
from audit.publish import CHECKPOINT_NAME
from audit.seals import Seals
from tests.audit.pruneworld import living
from tests.audit.test_fsck import seen
from tests.audit.test_pruning import old_and_new
from tests.audit.worlds import ORIGIN, World, build_world, decision, make_keyring


def damaged_snapshot(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("standing", lambda path: path.write_bytes(b"other bytes")),
        ("standing", damaged_snapshot),
        ("followed", lambda path: path.write_bytes(b"")),
        ("outcomes.sqlite", lambda path: path.write_bytes(b"x" * 10_000)),
        ("ids/00000000.run", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    ],
)
async def test_damage_of_a_derived_file_is_named_and_the_next_start_mends_it(
    tmp_path, monkeypatch, name, damage
) -> None:
    monkeypatch.setattr(standing, "_KEEP_AFTER", 1)
    ring = make_keyring(tmp_path / "keys")
    path = tmp_path / "log" / name
    for life in range(2):
        notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, remembered=4)
        erasing = Erasing(notary, Seals(notary.directory, ring, create=True))
        if life == 0:
            for seq in range(20):
                await notary.append(decision(seq + 1))
        await erasing.finish()
        await notary.close()
        found, status = seen(World(tmp_path / "log", ring, ()))
        assert (name in found, status) == (False, 0), found
        if life == 0:
            path.parent.mkdir(exist_ok=True)
            path.touch()
            damage(path)
            found, status = seen(World(tmp_path / "log", ring, ()))
            assert (found[name].level, status) == ("mend", 1)
            assert "damaged" in found[name].what
            if name in ("followed", "outcomes.sqlite"):
                return  # of other rooms, which open them


@pytest.mark.parametrize("name", ["standing", "followed"])
async def test_a_snapshot_of_another_version_is_not_called_damaged(tmp_path, name) -> None:
    world = await build_world(tmp_path, [5])
    (world.directory / name).write_bytes(b"WBSNAP1\n" + bytes(100))
    found, status = seen(world)
    assert (found[name].level, found[name].what, status) == ("mend", "of another version", 1)
    assert found[name].todo == START


async def test_a_lost_checkpoint_of_a_pruned_log_is_mended_while_another_one_is_kept(
    tmp_path,
) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=300, new=50)
        await log.prune()
    (log.directory / CHECKPOINT_NAME).unlink()
    found, status = seen(World(log.directory, ring, ()))
    assert (found[CHECKPOINT_NAME].level, status) == ("mend", 1), found
    for path in (log.directory / "checkpoints").iterdir():
        path.unlink()
    found, status = seen(World(log.directory, ring, ()))
    assert (found[CHECKPOINT_NAME].level, status) == ("damage", 2), found


@pytest.mark.parametrize("folder", ["a%20b", "a?b", "a#b"])
def test_the_index_is_found_below_a_folder_of_any_name(tmp_path, folder) -> None:
    world = asyncio.run(build_world(tmp_path / folder, [3]))
    with Index(world.directory) as index:
        index.catch_up()
    found, status = seen(world)
    assert (found["index.sqlite"].level, status) == ("fine", 0), found
    assert [path.name for path in tmp_path.iterdir()] == [folder]  # nothing else was made


@pytest.mark.parametrize("leaf", ["'abc'", "NULL", "1.5", "x'00'"])
def test_an_index_whose_last_leaf_is_no_number_is_damaged_and_made_anew(tmp_path, leaf) -> None:
    world = asyncio.run(build_world(tmp_path, [3]))
    with Index(world.directory) as index:
        index.catch_up()
    with closing(sqlite3.connect(world.directory / "index.sqlite")) as db:
        db.executescript(f"UPDATE tip SET leaf = {leaf}")
    found, status = seen(world)
    assert (found["index.sqlite"].what, status) == ("damaged", 1)
    with Index(world.directory) as index:
        assert index.find(world.events[2].id) == 2
    assert seen(world)[1] == 0


def test_an_index_that_another_process_has_to_itself_is_not_called_damaged(
    tmp_path, monkeypatch
) -> None:
    world = asyncio.run(build_world(tmp_path, [3]))
    with Index(world.directory) as index:
        index.catch_up()
    connect = partial(sqlite3.connect, timeout=0.1)
    with closing(sqlite3.connect(world.directory / "index.sqlite", isolation_level=None)) as db:
        db.executescript("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE tip SET one = 1;")
        monkeypatch.setattr(sqlite3, "connect", lambda path, **_: connect(path, uri=True))
        found, status = seen(world)
    assert (found["index.sqlite"].level, status) == ("note", 0)
