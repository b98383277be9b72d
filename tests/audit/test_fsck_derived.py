"""fsck looks into derived files, too: whoever reads 0 may believe that the next start is quick."""

import pytest

from audit import standing
from audit.erasing import Erasing
from audit.notary import Notary
from audit.publish import CHECKPOINT_NAME
from audit.seals import Seals
from tests.audit.pruneworld import living
from tests.audit.test_fsck import seen
from tests.audit.test_pruning import old_and_new
from tests.audit.worlds import ORIGIN, World, decision, make_keyring


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
