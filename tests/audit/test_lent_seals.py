"""Lent keys seal as the notary's own do, and none is used after its subject was erased."""

import pytest

from audit.errors import LogUnavailable
from audit.lent_seals import KeyAway, LentSeals
from audit.seals import Seals
from tests.audit.worlds import make_keyring, uuid

ALICE = "0123456789" + "ab" * 11
NEAR = "0123456889" + "ab" * 11  # below the same root
BOB = "9876543210" + "ab" * 11


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
def seals(tmp_path, ring):
    return Seals(tmp_path, ring, create=True)


@pytest.fixture
def lent(ring, seals):
    async def ask(whole):
        return seals.key(whole.hex())

    made = LentSeals(ring, ask)
    made.take(*seals.lend())
    return made


async def sealed(lent, unit):
    """Seal, and fetch the key first where it is not there."""
    try:
        return lent.seal(b"x", unit, "d")
    except KeyAway as away:
        await away.arrive()
        return lent.seal(b"x", unit, "d")


async def test_what_lent_keys_seal_the_owner_opens(lent, seals) -> None:
    for unit in (ALICE, NEAR, BOB, ALICE):
        assert seals.open(lent.seal(b"x", unit, "d"), unit, "d") == b"x"


async def test_after_each_erasure_a_key_is_asked_for_and_the_old_one_used_no_more(
    lent, seals
) -> None:
    for number in (1, 2):
        before = [await sealed(lent, unit) for unit in (ALICE, NEAR, BOB)]
        seals.puncture(ALICE, uuid(number))
        lent.erased_elsewhere(ALICE)
        with pytest.raises(KeyAway):
            lent.seal(b"x", ALICE, "d")
        opened = [seals.open(s, u, "d") for s, u in zip(before, (ALICE, NEAR, BOB), strict=True)]
        assert opened == [None, b"x", b"x"]
        for unit in (ALICE, NEAR, BOB):
            assert seals.open(await sealed(lent, unit), unit, "d") == b"x"


async def test_without_lent_keys_nothing_is_sealed(lent) -> None:
    lent.seal(b"x", ALICE, "d")
    lent.forget()
    with pytest.raises(LogUnavailable, match="lent"):
        lent.seal(b"x", ALICE, "d")
