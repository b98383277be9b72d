"""A key is rotated, and the leaves around it are pruned: every key still verifies the rest."""

import pytest

from audit.index import Index
from audit.keys import Keyring
from audit.notary import Notary
from audit.note import VerifierKey
from audit.prove import prove, verify_proof
from audit.reader import LogReader
from audit.rotating import Rotating
from audit.rotation import rotation_sizes
from audit.testing import check_log
from audit.verify import verify_log
from tests.audit.packworld import export as export_pack
from tests.audit.packworld import verify
from tests.audit.pruneworld import living
from tests.audit.worlds import ORIGIN, World, decision, make_keyring

REASON = {"actor": "key officer", "reason": "every year"}


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


async def rotated(log, tmp_path):
    """800 decisions, the key rotated after 100; then all but the last segments are pruned."""
    vkeys = [log.ring.verifier_key(ORIGIN)]
    for seq in range(1, 801):
        if seq == 101:
            done = await Rotating(log.notary, tmp_path / "keys").rotate(**REASON)
            vkeys.append(VerifierKey.parse(done.new_key))
        await log.notary.append(decision(seq))
    await log.notary.checkpoint()
    log.hours = 1e6  # later than the record of the rotation, which has the time of this test
    await log.prune()
    await log.notary.checkpoint()
    assert 256 <= LogReader(log.directory).first() <= 768
    return vkeys


async def test_every_key_verifies_the_rest_proves_it_and_a_restart_goes_on(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        vkeys = await rotated(log, tmp_path)
        for key in vkeys:
            found = check_log(log.directory, key)
            assert found.counts["key rotations"] == 1
        reader = LogReader(log.directory)
        (leaf, entry), *_ = reader.raw(790, 791)
        assert verify_proof(prove(reader, leaf), entry, str(vkeys[1])).index == leaf
        with Index(log.directory) as index:
            assert index.find(decision(790).id) is not None
    again = await Notary.open(log.directory, Keyring.load(tmp_path / "keys"), origin=ORIGIN)
    await again.append(decision(801))
    await again.close()
    for key in vkeys:
        check_log(log.directory, key)


@pytest.mark.parametrize("which", [0, 1])
async def test_packs_of_what_is_left_satisfy_the_verifier(tmp_path, ring, capsys, which) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        vkeys = await rotated(log, tmp_path)
        world = World(log.directory, ring, ())
        for first, last in ((780, 790), (770, 800)):
            pack = export_pack(world, first, last)
            said = verify(pack, tmp_path, capsys, "--key", vkeys[which])
            assert (said.status, said.problems) == (0, []), said.text


async def test_a_rotation_of_another_log_is_seen_although_its_leaves_are_gone(
    tmp_path, ring
) -> None:
    async with living(tmp_path, ring, "0s..") as log:
        vkeys = await rotated(log, tmp_path)
        size = rotation_sizes(log.directory)[0]
        (tile,) = (log.directory / "tile" / "0").glob("000")  # the leaves around it are gone
        assert size < 256
        assert not (log.directory / "tile" / "entries" / "000").exists()
        data = bytearray(tile.read_bytes())
        data[32 * size] ^= 1
        tile.write_bytes(data)
        problems = [str(problem) for problem in verify_log(log.directory, vkeys[0]).problems]
        assert any("key was rotated cannot be shown" in problem for problem in problems), problems
