import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from audit.errors import KeyFileError, PayloadDamaged
from audit.keys import Keyring
from tests.audit.worlds import ORIGIN, make_keyring


@pytest.fixture
def folder(tmp_path):
    make_keyring(tmp_path / "keys")
    return tmp_path / "keys"


def test_a_keyring_is_made_once_and_then_the_same(folder):
    assert Keyring.load_or_create(folder) == Keyring.load_or_create(folder)


def test_many_processes_starting_at_once_share_one_keyring(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Keyring.load_or_create(tmp_path / "k"), range(8)))
    assert all(ring == made[0] for ring in made)


def test_key_files_are_private(folder):
    for path in folder.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["log.key", "master.key", "unit.key", "keyring.id"])
def test_a_key_that_others_may_read_is_refused(folder, name):
    (folder / name).chmod(0o640)
    with pytest.raises(KeyFileError, match=name):
        Keyring.load_or_create(folder)


@pytest.mark.parametrize("name", ["log.key", "master.key", "unit.key", "keyring.id"])
def test_every_flipped_byte_of_a_key_file_is_noticed(folder, name):
    path = folder / name
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(KeyFileError, match=name):
            Keyring.load(folder)


@pytest.mark.parametrize("name", ["log.key", "master.key", "unit.key"])
def test_a_lost_key_is_not_replaced_by_a_new_one(folder, name):
    (folder / name).unlink()
    with pytest.raises(KeyFileError, match=f"{name}.*missing"):
        Keyring.load_or_create(folder)


def test_a_key_of_another_keyring_is_refused(folder, tmp_path):
    Keyring.load_or_create(tmp_path / "other")
    (folder / "master.key").write_bytes((tmp_path / "other" / "master.key").read_bytes())
    with pytest.raises(KeyFileError, match="not the key this keyring was made with"):
        Keyring.load(folder)


def test_making_a_keyring_can_be_interrupted_and_finished(folder):
    before = Keyring.load(folder)
    (folder / "keyring.id").unlink()
    (folder / "unit.key").unlink()
    after = Keyring.load_or_create(folder)
    assert (after.log_seed, after.master) == (before.log_seed, before.master)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match="file/keys"):
        Keyring.load_or_create(tmp_path / "file" / "keys")


def test_a_process_without_the_signing_key_can_do_the_rest(folder):
    ring = Keyring.load(folder, signing=False)
    assert ring.unit_ref("alice") == Keyring.load(folder).unit_ref("alice")
    with pytest.raises(KeyFileError):
        ring.signer(ORIGIN)
    with pytest.raises(KeyFileError):
        _ = ring.public_key


def test_open_is_the_inverse_of_seal_for_the_same_record(folder):
    ring = Keyring.load(folder)
    sealed = ring.seal(b"private", "decision-1")
    assert ring.open(sealed, "decision-1") == b"private"
    for token, aad in [(sealed, "decision-2"), (sealed[:-8] + "AAAAAAA=", "decision-1"), ("?", "")]:
        with pytest.raises(PayloadDamaged):
            ring.open(token, aad)


def test_a_unit_reference_depends_on_the_key(folder, tmp_path):
    ring, other = Keyring.load(folder), Keyring.load_or_create(tmp_path / "other")
    assert ring.unit_ref("alice") != ring.unit_ref("bob")
    assert ring.unit_ref("alice") != other.unit_ref("alice")
    assert len(ring.unit_ref("alice")) == 32


def test_a_keyring_does_not_show_its_keys(folder):
    ring = Keyring.load(folder)
    assert ring.master.hex() not in repr(ring)
    assert str(ring.master) not in repr(ring)
