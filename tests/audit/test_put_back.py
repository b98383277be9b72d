"""An older copy of a log, put back over a later one: what is left of that must not harm it."""

import shutil

import pytest

from audit.boundary import PRUNED_NAME
from audit.errors import LogDamaged
from audit.fsck import inspect
from audit.log import Log
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
