"""Segments that do not follow: whoever verifies says so, as whoever opens refuses."""

import asyncio
import shutil

import pytest

from audit.errors import LogDamaged
from audit.frames import format_segment_header, segments
from audit.fsck import inspect
from audit.log import Log
from audit.marker import MARKER_NAME, Position, format_marker, read_marker
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, World, build_world


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    """330 decisions in three segments or more."""
    folder = tmp_path_factory.mktemp("order")
    groups = [1, 2, 3, 50, 100, 44, 60, 70]
    return asyncio.run(build_world(folder, groups, segment_bytes=100_000))


@pytest.fixture
def world(made, tmp_path) -> World:
    return made.copy(tmp_path / "log")


def add(world, first, data):
    path = world.directory / "wal" / f"{first:020d}.wal"
    path.write_bytes(data)
    return f"wal/{path.name}"


def reopen(world):
    Log.open(world.directory, world.keyring, origin=ORIGIN).close()


def problems(world):
    return verify_log(world.directory, world.key).problems


def refused_by_all(world, name):
    found = problems(world)
    assert [p.step for p in found if p.file == name] == [2], found
    report = inspect(world.directory, world.key)
    assert report.status == 2
    assert any("wal/" in one.path for one in report.seen if one.level == "damage")
    with pytest.raises(LogDamaged):
        reopen(world)


@pytest.mark.parametrize("first", [331, 330 + (1 << 40)])
@pytest.mark.parametrize("header", [False, True])
def test_a_segment_behind_the_end_that_does_not_follow_is_a_problem(world, first, header) -> None:
    name = add(world, first, format_segment_header(first) if header else b"")
    refused_by_all(world, name)


def test_an_empty_file_at_the_committed_end_is_a_problem(world) -> None:
    refused_by_all(world, add(world, 330, b""))


def test_a_first_leaf_that_no_header_can_hold_is_a_problem(world) -> None:
    refused_by_all(world, add(world, 10**20 - 1, b""))
    (world.directory / MARKER_NAME).unlink()
    assert {2, 8} <= {p.step for p in problems(world)}


@pytest.mark.parametrize("first", [5, 100])
@pytest.mark.parametrize("header", [False, True])
def test_a_segment_between_others_is_a_problem(world, first, header) -> None:
    assert len(segments(world.directory)) > 2
    refused_by_all(world, add(world, first, format_segment_header(first) if header else b""))
    assert len(problems(world)) == 1


@pytest.mark.parametrize("first", [7, 330, 400])
def test_a_copy_of_a_segment_under_a_later_number_is_a_problem(world, first) -> None:
    refused_by_all(world, add(world, first, segments(world.directory)[1][1].read_bytes()))


def test_the_segment_that_a_writer_began_at_the_committed_end_is_none(world) -> None:
    add(world, 330, format_segment_header(330))
    assert problems(world) == ()
    assert inspect(world.directory, world.key).status == 0
    reopen(world)


def test_a_marker_from_before_a_power_cut_condemns_no_segment_that_follows(world) -> None:
    """Nothing was signed since, so the marker alone said how far; opening takes all."""
    first, path = segments(world.directory)[-2]
    old = World(world.directory, world.keyring, world.events)
    end = read_marker(world.directory)
    (world.directory / "checkpoint").unlink()
    shutil.rmtree(world.directory / "tile")
    whole = first + (segments(world.directory)[-1][0] - first)
    marker = Position(whole, first, path.stat().st_size)
    (world.directory / MARKER_NAME).write_bytes(format_marker(marker))
    assert not [p for p in problems(old) if p.step == 2]
    reopen(old)
    assert read_marker(world.directory).leaves == end.leaves


@pytest.mark.parametrize("stem", ["9" * 23, "0" * 19, "٣" * 20, "notes"])
def test_a_name_that_is_not_twenty_digits_is_foreign_to_all(world, stem) -> None:
    (world.directory / "wal" / f"{stem}.wal").write_bytes(b"")
    found = verify_log(world.directory, world.key)
    assert found.ok
    assert f"wal/{stem}.wal is not part of the log and was not checked" in found.notes
    report = inspect(world.directory, world.key)
    assert [one.level for one in report.seen if one.path == f"wal/{stem}.wal"] == ["note"]
    assert report.status == 0
    reopen(world)


def test_a_marker_that_counts_more_than_can_be_is_answered_at_once(world) -> None:
    path = segments(world.directory)[-1][1]
    path.unlink()
    (world.directory / MARKER_NAME).write_bytes(format_marker(Position(1 << 60, 0, 20)))
    assert any(p.message.startswith("truncated") for p in problems(world))
