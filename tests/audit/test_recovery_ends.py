"""Opening a long log: what is signed is looked at where its segments begin and end, and no more."""

import shutil
from itertools import pairwise

import pytest

from audit.errors import LogDamaged
from audit.frames import FRAME_MAGIC, segments
from audit.recovery import recover
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, make_keyring, open_log, records


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Thirty groups in several segments, of which all but the last few records are signed."""
    folder = tmp_path_factory.mktemp("ends")
    ring = make_keyring(folder / "keys")
    log = open_log(folder, ring, segment_bytes=8_000)
    for first in range(1, 91, 3):
        log.append(records(first, first + 1, first + 2))
        if first == 61:
            log.publish()
    log.close()
    return folder / "log", ring.verifier_key(ORIGIN)


SIGNED = 63


@pytest.fixture
def directory(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "log")


def end_of(directory, signed):
    tail = recover(directory, 0, segments(directory), signed_leaves=signed)
    return tail.position, tail.watermark, tail.last_frame, tail.cut, tail.segments


def test_the_end_is_the_same_however_much_is_signed(directory):
    (directory / "committed").unlink()
    whole = end_of(directory, 0)
    assert len(segments(directory)) > 4
    assert whole[0].leaves == 90
    assert all(end_of(directory, signed) == whole for signed in range(91))


def segments_signed(directory):
    """Those that are wholly signed and followed by another one."""
    found = pairwise(segments(directory))
    return [path for (_, path), (end, _) in found if end <= SIGNED]


def test_what_lies_between_the_ends_is_not_even_read(directory):
    path = segments_signed(directory)[1]
    whole = path.read_bytes()
    last = whole.rfind(FRAME_MAGIC)
    path.write_bytes(whole[:20] + bytes(last - 20) + whole[last:])
    assert end_of(directory, SIGNED)[0].leaves == 90


@pytest.mark.parametrize("how", ["a bit", "everything twice"])
def test_damage_within_what_is_signed_does_not_keep_a_start_and_is_found_by_whoever_verifies(
    directory, made, how
):
    path = segments_signed(directory)[1]
    data = bytearray(path.read_bytes())
    if how == "a bit":
        data[len(data) // 3] ^= 0x10
    else:
        data += data[20:]
    path.write_bytes(data)
    assert end_of(directory, SIGNED)[0].leaves == 90
    with pytest.raises(LogDamaged, match=path.name):
        end_of(directory, 0)
    found = verify_log(directory, made[1])
    assert any(problem.file == f"wal/{path.name}" for problem in found.problems)


def test_the_ends_of_what_is_signed_must_be_whole(directory):
    path = segments_signed(directory)[1]
    whole = path.read_bytes()
    changed = [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(20)
    ]
    changed += [whole[:-length] for length in (1, 20, 1000, 5000, len(whole) - 20, len(whole))]
    changed += [whole + tail for tail in (b"x", bytes(100) + b"x", whole[20:400])]
    changed += [whole[:-500] + b"?" + whole[-499:]]
    for data in changed:
        path.write_bytes(data)
        with pytest.raises(LogDamaged):
            end_of(directory, SIGNED)
    path.write_bytes(whole + bytes(5000))  # room that was reserved
    assert end_of(directory, SIGNED)[0].leaves == 90


def test_segments_that_are_missing_or_change_places_are_refused(directory):
    paths = segments_signed(directory)
    one, other = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes(other)
    paths[2].write_bytes(one)
    with pytest.raises(LogDamaged):
        end_of(directory, SIGNED)
    paths[2].write_bytes(other)
    paths[1].unlink()
    with pytest.raises(LogDamaged, match=paths[1].name):
        end_of(directory, SIGNED)


def test_what_is_not_signed_is_read_whole(directory):
    first, path = next((first, path) for first, path in segments(directory) if first >= SIGNED)
    assert first < segments(directory)[-1][0]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(LogDamaged, match=path.name):
        end_of(directory, SIGNED)
