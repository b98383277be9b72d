"""Random changes of a log's files: each is found, and its file named."""

import random

import pytest

from audit.verify import verify_log
from tests.audit.worlds import build_world, mixed_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return mixed_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def victim(world, tmp_path):
    return world.copy(tmp_path / "log")


def problems(victim):
    return verify_log(victim.directory, victim.key).problems


def changed(source, data):
    """The bytes with one random change: a flip, a cut, a hole, an insertion, a copy, a swap."""
    start = source.randrange(len(data))
    end = min(len(data), start + source.choice((1, 1, 2, 8, 40, 300)))
    piece, other = data[start:end], source.randrange(len(data))
    return source.choice(
        [
            data[:start] + bytes([data[start] ^ 1 << source.randrange(8)]) + data[start + 1 :],
            data[:start],
            data[:start] + data[end:],
            data[:start] + bytes(len(piece)) + data[end:],
            data[:start] + source.randbytes(len(piece)) + data[start:],
            data[:start] + source.randbytes(len(piece)) + data[end:],
            data[:start] + data[other : other + len(piece)] + data[end:],
            data[:start] + piece[::-1] + data[end:],
        ]
    )


def mutate(world, victim, count, *, seed):
    """Make changes one after the other, each to one file; each must be found there."""
    source, names, made = random.Random(seed), world.files(), 0
    while made < count:
        name = source.choice(names)
        path = victim.directory / name
        whole = path.read_bytes()
        data = changed(source, whole)
        if data == whole:
            continue
        path.write_bytes(data)
        found = problems(victim)
        assert str(name) in [p.file for p in found], f"{name}, change {made}: {found}"
        path.write_bytes(whole)
        made += 1
    assert problems(victim) == ()


def test_three_hundred_random_changes_are_all_found(world, victim):
    mutate(world, victim, 300, seed=11)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_random_changes_are_all_found(world, victim, seed):
    mutate(world, victim, 2500, seed=seed)


@pytest.mark.slow
async def test_every_byte_of_every_file_of_a_small_log_matters(tmp_path):
    world = await build_world(tmp_path / "world", [3, 4])
    for name in world.files():
        path = world.directory / name
        for offset in range(path.stat().st_size):
            whole = path.read_bytes()
            data = bytearray(whole)
            data[offset] ^= 1 << offset % 8
            path.write_bytes(data)
            assert str(name) in [p.file for p in problems(world)], (name, offset)
            path.write_bytes(whole)
