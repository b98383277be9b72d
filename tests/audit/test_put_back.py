"""An older copy of a log, put back over a later one: what is left of that must not harm it."""

import shutil

import pytest

from audit.boundary import PRUNED_NAME
from audit.errors import LogDamaged
from audit.fsck import inspect
from audit.log import Log
from audit.publish import CHECKPOINT_NAME
from audit.rotating import Rotating
from audit.testing import check_log
from audit.verify import verify_log
from tests.audit.pruneworld import living
from tests.audit.test_pruning import key_of, old_and_new
from tests.audit.worlds import make_keyring


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [509, 700])  # with the rest, the boundary is a segment's, or within
async def test_no_start_removes_what_the_log_does_not_say_is_pruned(tmp_path, old) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=old, new=30)
    directory, copy = log.directory, tmp_path / "copy"
    shutil.copytree(directory, copy)
    async with living(tmp_path, ring) as log:
        log.hours = 10.5
        assert (await log.prune()).first_leaf == 512
    shutil.copytree(copy, directory, dirs_exist_ok=True)
    there = names(directory / "wal")
    with pytest.raises(LogDamaged, match=r"pruned: expected the record of it at leaf \d+"):
        async with living(tmp_path, ring):
            pass
    assert names(directory / "wal") == there
    report = inspect(directory, key_of(ring))
    assert {one.level for one in report.seen if one.path.startswith("wal/0")} == {"damage", "fine"}
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    async with living(tmp_path, ring):
        pass
    assert not (directory / PRUNED_NAME).exists()
    check_log(directory, key_of(ring))


@pytest.mark.parametrize("harm", ["an older one", "zeros"])
async def test_a_payload_segment_that_ends_too_early_is_not_called_whole(tmp_path, harm) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        path = log.directory / "blobs" / "00000000.seg"
        await log.decide(9, at=0, payload=b"kept")
        older = path.read_bytes().rstrip(b"\0")
        await log.decide(9, at=0, payload=b"kept")
        await log.notary.in_writer(Log.roll)
        await log.decide(3, at=0, payload=b"kept")
    check_log(log.directory, key_of(ring))
    size = path.stat().st_size
    path.write_bytes(older.ljust(size if harm == "zeros" else 0, b"\0"))
    (problem,) = verify_log(log.directory, key_of(ring)).problems
    said = "truncated: the log vouches for" if harm == "an older one" else "a payload is damaged"
    assert (problem.step, problem.file) == (9, "blobs/00000000.seg")
    assert problem.message.startswith(said)


@pytest.mark.parametrize("left", ["rotations", "checkpoints"])
async def test_a_log_is_not_signed_that_lacks_what_a_kept_checkpoint_of_later_covers(
    tmp_path, left
) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await log.decide(20, at=0)
    directory, copy = log.directory, tmp_path / "copy"
    shutil.copytree(directory, copy)
    async with living(tmp_path, ring) as log:
        log.seq = 20
        await log.decide(21, at=0)
        await log.notary.checkpoint()
        (directory / "checkpoints").mkdir()
        shutil.copy(directory / CHECKPOINT_NAME, directory / "checkpoints" / "41")
        if left == "rotations":
            await Rotating(log.notary, tmp_path / "keys").rotate(actor="operator", reason="yearly")
    shutil.copytree(directory / left, copy / left)
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    before = (directory / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(LogDamaged, match=r"expected 4[12] acknowledged records"):
        async with living(tmp_path, make_keyring(tmp_path / "keys")):
            pass
    assert (directory / CHECKPOINT_NAME).read_bytes() == before


@pytest.mark.parametrize("fault", ["lost", "older"])
async def test_a_start_signs_anew_what_only_a_rotation_signed(tmp_path, fault) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring) as log:
        await log.decide(20, at=0)
        await log.notary.checkpoint()
        path = log.directory / CHECKPOINT_NAME
        older = path.read_bytes()
        await Rotating(log.notary, tmp_path / "keys").rotate(actor="operator", reason="yearly")
    path.unlink() if fault == "lost" else path.write_bytes(older)
    ring = make_keyring(tmp_path / "keys")
    assert not verify_log(log.directory, key_of(ring)).ok
    async with living(tmp_path, ring):
        pass
    assert check_log(log.directory, key_of(ring)).signed_leaves == 21
