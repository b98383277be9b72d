"""A pruned log that lost its `checkpoint`: a kept one stands in for it, or nothing is signed."""

import shutil
from dataclasses import replace

import pytest

from audit.boundary import CHECKPOINTS_NAME, read_boundary, write_boundary
from audit.errors import LogDamaged
from audit.publish import CHECKPOINT_NAME
from audit.verify import verify_log
from tests.audit.pruneworld import living
from tests.audit.test_pruning import key_of, old_and_new
from tests.audit.worlds import make_keyring


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


async def test_a_lost_checkpoint_is_signed_anew_from_the_one_that_was_kept(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=300, new=50)
        await log.prune()
        last = log.seq
    (log.directory / CHECKPOINT_NAME).unlink()
    async with living(tmp_path, ring) as log:
        log.seq = last
        await log.decide(3, at=10)
    assert verify_log(log.directory, key_of(ring)).problems == ()


@pytest.mark.parametrize("kept", [None, b"other bytes\n", b"\xff"])
async def test_without_any_checkpoint_nothing_is_signed(tmp_path, ring, kept) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=300, new=50)
        await log.prune()
    (log.directory / CHECKPOINT_NAME).unlink()
    for path in (log.directory / CHECKPOINTS_NAME).iterdir():
        path.write_bytes(kept) if kept else path.unlink()
    with pytest.raises(LogDamaged, match="a signed checkpoint, as the log was pruned"):
        async with living(tmp_path, ring):
            pass
    assert not (log.directory / CHECKPOINT_NAME).exists()


async def test_a_log_that_lacks_what_a_kept_checkpoint_covers_is_not_signed(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log, old=300, new=50)
        await log.prune()
    (log.directory / CHECKPOINT_NAME).unlink()
    boundary = read_boundary(log.directory)
    changed = replace(
        boundary, rows={level: bytes(len(row)) for level, row in boundary.rows.items()}
    )
    write_boundary(log.directory, changed)
    shutil.rmtree(log.directory / "tile")
    with pytest.raises(LogDamaged, match="of the signed root"):
        async with living(tmp_path, ring):
            pass
