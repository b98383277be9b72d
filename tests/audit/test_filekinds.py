"""What is no regular file is never opened: it is said, by whoever verifies and by fsck."""

import asyncio
import os
import shutil
import socket
from pathlib import Path

import pytest

from audit.complete import check_complete
from audit.errors import LogUnavailable
from audit.filekinds import misshapen
from audit.files import replace_file
from audit.fsck import inspect
from audit.index import Index
from audit.log import Log
from audit.verify import verify_log
from audit.writerlock import has_writer
from tests.audit.worlds import ORIGIN, World, build_world

EVIDENCE = {
    "checkpoint": 1,
    "wal/00000000000000000000.wal": 2,
    "wal/00000000000000000330.wal": 2,
    "wal": 2,
    "pruned": 2,
    "tile/0/000": 4,
    "tile/0/001.p/74": 4,
    "tile/entries/000": 4,
    "tile/0": 4,
    "tile/foreign": 4,
    "checkpoints/256": 5,
    "committed": 8,
    "blobs/00000000.seg": 9,
    "blobs/subjects.keys": 9,
    "blobs/seal.roots": 9,
    "blobs/seal/0000": 9,
    "cosigned/0000000000000000": 10,
}
DERIVED = ["lock", "index.sqlite", "outcomes.sqlite", "outcomes.sqlite-wal", "ids/00000000.run"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("shapes")
    world = asyncio.run(build_world(folder, [100, 130, 100]))
    with Index(world.directory) as index:
        index.catch_up()
    return world


@pytest.fixture
def world(made, tmp_path) -> World:
    return made.copy(tmp_path / "log")


def clear(world, name) -> Path:
    path = world.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def problems(world):
    return [(p.step, p.file) for p in verify_log(world.directory, world.key).problems]


def damage(world):
    report = inspect(world.directory, world.key)
    assert report.status == 2
    return {one.path for one in report.seen if one.level == "damage"}


def test_a_log_as_it_is_has_nothing_of_the_kind(world) -> None:
    assert misshapen(world.directory) == []
    assert verify_log(world.directory, world.key).ok


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_pipe_is_a_problem_and_nobody_waits_for_it(world, name) -> None:
    os.mkfifo(clear(world, name))
    assert problems(world) == [(EVIDENCE[name], name)]
    assert damage(world) == {name}
    assert not check_complete(world.directory, world.key).ok


@pytest.mark.parametrize("name", [n for n in EVIDENCE if n not in ("wal", "tile/0")])
def test_a_folder_in_place_of_a_file_is_a_problem(world, name) -> None:
    clear(world, name).mkdir()
    assert problems(world) == [(EVIDENCE[name], name)]
    assert damage(world) == {name}


OPENED = [
    *(name for name in EVIDENCE if not name.startswith(("tile", "checkpoints", "cosigned"))),
    "ids/00000000.run",
]


@pytest.mark.parametrize("name", OPENED)
def test_no_start_waits_for_a_pipe_in_place_of_what_it_opens(world, name) -> None:
    os.mkfifo(clear(world, name))
    with pytest.raises(LogUnavailable, match=f"{name}: it is a pipe in place of a f"):
        Log.open(world.directory, world.keyring, origin=ORIGIN)


def test_nor_does_it_wait_for_what_it_would_only_write(tmp_path) -> None:
    os.mkfifo(tmp_path / "name.tmp")
    with pytest.raises(OSError, match=r"name\.tmp"):
        replace_file(tmp_path / "name", b"bytes")


@pytest.mark.parametrize("name", DERIVED)
def test_what_proves_nothing_is_noted_and_fsck_calls_it_damage(world, name) -> None:
    os.mkfifo(clear(world, name))
    findings = verify_log(world.directory, world.key)
    assert findings.ok
    assert any(note.startswith(f"{name}: a pipe") for note in findings.notes)
    assert damage(world) == {name}
    assert not has_writer(world.directory)


@pytest.mark.parametrize("target", ["nowhere", "/dev/zero", "tile"])
def test_a_link_is_what_it_leads_to(world, target) -> None:
    kept = world.directory.parent / "kept"
    shutil.move(world.directory / "committed", kept)
    (world.directory / "committed").symlink_to(kept)
    assert verify_log(world.directory, world.key).ok
    clear(world, "committed").symlink_to(target)
    assert problems(world) == [(8, "committed")]


def test_a_folder_of_tiles_that_is_a_link_is_not_passed_over(world) -> None:
    outside = world.directory.parent / "outside"
    shutil.move(world.directory / "tile" / "0", outside)
    (outside / "000").write_bytes(b"other hashes")
    (world.directory / "tile" / "0").symlink_to(outside)
    assert problems(world) == [(4, "tile/0")]


def test_a_socket_and_other_names_are_nobodys_business(world, monkeypatch) -> None:
    monkeypatch.chdir(world.directory)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("mine.sock")
        (world.directory / "wal" / "notes").mkdir()
        assert verify_log(world.directory, world.key).ok
        os.link("mine.sock", "checkpoints")
        assert problems(world) == [(5, "checkpoints")]


@pytest.mark.parametrize("name", ["wal", "checkpoint", "blobs/subjects.keys", "tile/0/000"])
def test_what_may_not_be_read_is_not_called_lost(world, name, monkeypatch) -> None:
    path, really = str(world.directory / name), os.access

    def access(asked, mode, **options):
        return asked != path and really(asked, mode, **options)

    monkeypatch.setattr(os, "access", access)
    (found,) = verify_log(world.directory, world.key).problems
    assert (found.step, found.file) == (EVIDENCE[name], name)
    assert found.message == "could not read it: Permission denied"
    assert damage(world) == {name}


def test_a_read_that_fails_later_is_a_problem_too(world, monkeypatch) -> None:
    really = Path.open

    def fails(path, *args, **options):
        if path.suffix == ".seg":
            raise OSError(5, "Input/output error", str(path))
        return really(path, *args, **options)

    monkeypatch.setattr(Path, "open", fails)
    (found,) = verify_log(world.directory, world.key).problems
    assert (found.step, found.file) == (9, "blobs/00000000.seg")
    assert damage(world) == {"blobs/00000000.seg"}


def test_a_folder_that_is_not_there_is_said(tmp_path, world) -> None:
    (found,) = verify_log(tmp_path / "none", world.key).problems
    assert found.message == "could not read it: No such file or directory"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"])
def test_an_empty_boundary_is_reported_and_not_raised(world, data) -> None:
    (world.directory / "pruned").write_bytes(data)
    assert (2, "pruned") in problems(world)
    assert "pruned" in damage(world)


def test_what_is_derived_is_no_stranger_and_what_is_foreign_is_named(world) -> None:
    for name in ("standing", "followed", "outcomes.sqlite", "outcomes.sqlite-wal", "notes.txt"):
        (world.directory / name).write_bytes(b"x")
    notes = verify_log(world.directory, world.key).notes
    assert [note for note in notes if "not part of the log" in note] == [
        "notes.txt is not part of the log and was not checked"
    ]
    foreign = [
        one.path for one in inspect(world.directory, world.key).seen if "foreign" in one.what
    ]
    assert foreign == ["notes.txt"]
