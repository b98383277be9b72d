"""Sealed parts: each subject's key can be destroyed alone, and nobody can compute it again."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.contents import Erased
from audit.errors import LogDamaged, PayloadDamaged
from audit.events import Decision, DecisionV1
from audit.findings import Collector
from audit.frames import Watermark
from audit.keys import Keyring
from audit.keytree import ROOTS
from audit.payloadcheck import check_payload_files
from audit.record import as_mapping, decode, encode
from audit.sealfiles import damaged_keys, is_erased, roots_path, zero_entries
from audit.seals import Seals
from audit.verify import verify_log
from tests.audit.pruneworld import living
from tests.audit.worlds import ORIGIN, decision, make_keyring, uuid

ALICE = "0123456789" + "ab" * 11
NEAR = [  # they part from alice at each depth: root, and the three bytes below
    "0124456789" + "ab" * 11,
    "0123466789" + "ab" * 11,
    "0123456889" + "ab" * 11,
    "012345678a" + "ab" * 11,
]
TWIN = "0123456789" + "cd" * 11


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
def seals(tmp_path, ring):
    return Seals(tmp_path, ring, create=True)


def files(tmp_path):
    return b"".join(p.read_bytes() for p in (tmp_path / "blobs").rglob("*") if p.is_file())


def test_what_is_sealed_opens_for_the_same_subject_and_record_only(tmp_path, ring, seals) -> None:
    sealed = seals.seal(b"private", ALICE, "d1")
    assert Seals(tmp_path, ring).open(sealed, ALICE, "d1") == b"private"
    for unit, record in ((NEAR[3], "d1"), (ALICE, "d2")):
        with pytest.raises(PayloadDamaged):
            seals.open(sealed, unit, record)
    with pytest.raises(PayloadDamaged):
        seals.open("AAAA" + sealed[4:], ALICE, "d1")
    other = Keyring.load_or_create(tmp_path / "other")
    with pytest.raises(PayloadDamaged):
        Seals(tmp_path, other).open(sealed, ALICE, "d1")


def test_one_subject_is_erased_and_its_neighbours_at_every_depth_are_not(
    tmp_path, ring, seals
) -> None:
    sealed = {unit: seals.seal(b"x", unit, "d") for unit in (ALICE, *NEAR, TWIN)}
    keys = {unit: seals.key(unit) for unit in sealed}
    nonce = seals.nonce(ALICE, "explanation/d")
    seals.puncture(ALICE, uuid(1))
    for found in (seals, Seals(tmp_path, ring)):
        assert found.open(sealed[ALICE], ALICE, "d") is None
        assert found.open(sealed[TWIN], TWIN, "d") is None  # 40 bits are told apart, no more
        for unit in NEAR:
            assert found.key(unit) == keys[unit]
            assert found.open(sealed[unit], unit, "d") == b"x"
        assert found.nonce(ALICE, "explanation/d") != nonce
    assert is_erased(tmp_path, ALICE, uuid(1))
    assert not is_erased(tmp_path, ALICE, uuid(2))
    assert keys[ALICE] not in files(tmp_path)


def test_no_key_above_the_erased_one_is_left_even_for_who_has_the_master_key(
    tmp_path, ring, seals
) -> None:
    lost = seals.key(ALICE)
    kept = [Seals(tmp_path, ring)]
    for number, unit in enumerate((ALICE, NEAR[3], NEAR[1], ALICE), 1):
        kept.append(Seals(tmp_path, ring))
        seals.puncture(unit, uuid(number))
    nodes = seals._files.nodes(0x0123)
    path = bytes.fromhex("456789")
    assert all(prefix not in nodes for prefix in (b"", path[:1], path[:2]))
    assert nodes[path] != lost
    assert len(nodes) == 3 * 255 + 1 + 2 * 0 + 2 * 255  # siblings along two paths, fresh leaves
    # A process that held the keys in memory forgets them at its next look.
    for reader in kept:
        assert reader.open(Seals(tmp_path, ring).seal(b"new", ALICE, "d"), ALICE, "d") == b"new"
        assert reader.key(ALICE) != lost


def test_a_subject_that_comes_back_gets_a_new_key_and_what_was_lost_stays_lost(
    tmp_path, ring, seals
) -> None:
    old = seals.seal(b"old", ALICE, "d1")
    seals.puncture(ALICE, uuid(1))
    new = seals.seal(b"new", ALICE, "d2")
    assert seals.open(new, ALICE, "d2") == b"new"
    assert seals.open(old, ALICE, "d1") is None
    seals.puncture(ALICE, uuid(1))  # the same erasure again: nothing more is lost
    assert seals.open(new, ALICE, "d2") == b"new"
    seals.puncture(ALICE, uuid(2))
    assert seals.open(new, ALICE, "d2") is None
    assert Seals(tmp_path, ring).open(seals.seal(b"newer", ALICE, "d3"), ALICE, "d3") == b"newer"


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_puncture_that_was_interrupted_anywhere_is_finished_by_the_next(
    tmp_path, ring, seals, step, second
) -> None:
    class Crash(Exception):
        pass

    if second:
        seals.puncture(NEAR[1], uuid(9))
    sealed = {unit: seals.seal(b"x", unit, "d") for unit in (ALICE, *NEAR)}
    lost, left = seals.key(ALICE), [step]

    def crash() -> None:
        left[0] -= 1
        if not left[0]:
            raise Crash

    with pytest.raises(Crash):
        seals.puncture(ALICE, uuid(1), crash=crash)
    for unit in NEAR:  # nobody else lost anything meanwhile
        assert Seals(tmp_path, ring).open(sealed[unit], unit, "d") == b"x"
    again = Seals(tmp_path, ring)
    again.puncture(ALICE, uuid(1))
    assert is_erased(tmp_path, ALICE, uuid(1))
    assert again.open(sealed[ALICE], ALICE, "d") is None
    for unit in NEAR:
        assert Seals(tmp_path, ring).open(sealed[unit], unit, "d") == b"x"
    assert lost not in files(tmp_path)
    assert not list((tmp_path / "blobs").rglob("*.new"))
    if second:
        assert is_erased(tmp_path, NEAR[1], uuid(9))


def test_roots_from_before_are_seen_and_the_erasure_can_be_done_again(
    tmp_path, ring, seals
) -> None:
    sealed = seals.seal(b"x", ALICE, "d")
    shutil.copytree(tmp_path / "blobs", tmp_path / "kept")
    seals.puncture(ALICE, uuid(1))
    shutil.rmtree(tmp_path / "blobs")
    shutil.copytree(tmp_path / "kept", tmp_path / "blobs")
    assert Seals(tmp_path, ring).open(sealed, ALICE, "d") == b"x"  # the attack works
    assert not is_erased(tmp_path, ALICE, uuid(1))  # and shows, without any key
    Seals(tmp_path, ring).puncture(ALICE, uuid(1))
    assert Seals(tmp_path, ring).open(sealed, ALICE, "d") is None


def test_damaged_and_missing_files_are_refused(tmp_path, ring, seals) -> None:
    with pytest.raises(LogDamaged):
        Seals(tmp_path / "elsewhere", ring).key(ALICE)  # never a key that anyone could guess
    seals.puncture(ALICE, uuid(1))
    file = tmp_path / "blobs" / "seal" / "0123"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(LogDamaged, match="0123"):
        Seals(tmp_path, ring).key(ALICE)
    with roots_path(tmp_path).open("r+b") as roots:
        roots.truncate(100)
    with pytest.raises(LogDamaged, match="roots"):
        Seals(tmp_path, ring)


@given(st.sets(st.integers(0, 63)), st.lists(st.integers(0, 31), min_size=64, max_size=64))
def test_entries_of_zeros_are_found_wherever_they_stand(gone, ones) -> None:
    entries = [bytes(one) + b"\1" + bytes(31 - one) for one in ones]
    for place in gone:
        entries[place] = bytes(32)
    assert zero_entries(b"".join(entries)) == gone


def test_records_of_the_first_schema_are_still_opened(tmp_path, ring, seals) -> None:
    sealed = ring.seal(b'{"groups":[],"nonce":"00"}', uuid(7))
    fields = {**as_mapping(decision(7)), "sealed": sealed, "id": uuid(7)}
    del fields["type"], fields["schema"]
    old = decode(encode(DecisionV1(**fields)))
    assert type(old) is DecisionV1
    assert isinstance(old, Decision)
    assert as_mapping(old)["schema"] == 1
    assert seals.secret(old) == {"groups": [], "nonce": "00"}
    assert ROOTS == 65_536


@pytest.mark.parametrize("place", [3, 8, 70_000, 8 + 32 * ROOTS + 9, -1])
@pytest.mark.parametrize("name", ["seal.roots", "seal/0123"])
def test_a_changed_byte_of_the_key_files_shows_without_any_key(
    tmp_path, seals, name, place
) -> None:
    seals.puncture(ALICE, uuid(1))
    assert not list(damaged_keys(tmp_path))
    file = tmp_path / "blobs" / name
    raw = bytearray(file.read_bytes())
    raw[place if place < len(raw) else len(raw) // 2] ^= 4
    file.write_bytes(raw)
    ((found, _),) = damaged_keys(tmp_path)
    assert found == file


@pytest.mark.parametrize("harm", ["emptied roots", "lost file", "lost folder"])
def test_lost_and_emptied_key_files_are_named_and_not_taken_for_a_key_that_is_back(
    tmp_path, seals, harm
) -> None:
    seals.puncture(ALICE, uuid(1))
    file = next((tmp_path / "blobs" / "seal").iterdir())
    if harm == "emptied roots":
        file = roots_path(tmp_path)
        file.write_bytes(b"")
    else:
        file.unlink()
        if harm == "lost folder":
            file.parent.rmdir()
    assert list(damaged_keys(tmp_path)) == [(file, 0)]
    found = Collector()
    erased = Erased(1, 0, uuid(1), ALICE, [])
    check_payload_files(tmp_path, Watermark(), found, [erased])
    said = "damaged" if file.exists() else "missing"
    assert [one.message for one in found.problems] == [f"the keys of sealed parts are {said}"]


def test_lost_roots_are_not_made_anew(tmp_path, ring, seals) -> None:
    sealed = seals.seal(b"secret", ALICE, "d")
    kept = roots_path(tmp_path).read_bytes()
    roots_path(tmp_path).unlink()
    with pytest.raises(LogDamaged, match="backup"):
        Seals(tmp_path, ring, create=True)
    assert not roots_path(tmp_path).exists()
    roots_path(tmp_path).write_bytes(kept)
    assert Seals(tmp_path, ring, create=True).open(sealed, ALICE, "d") == b"secret"


@pytest.mark.parametrize("kind", [Decision, DecisionV1])
async def test_a_record_says_that_there_were_keys_when_all_of_them_are_gone(
    tmp_path, ring, kind
) -> None:
    async with living(tmp_path, ring) as log:
        sealed = Seals(log.directory, ring).seal(b"{}", ALICE, uuid(1))
        fields = {**as_mapping(decision(1, sealed=sealed, unit_ref=ALICE))}
        del fields["type"], fields["schema"]
        await log.notary.append(kind(**fields))
    folder, key = tmp_path / "log", ring.verifier_key(ORIGIN)
    assert verify_log(folder, key).ok
    roots_path(folder).unlink()
    (folder / "blobs" / "seal").rmdir()
    found = [(one.step, one.file) for one in verify_log(folder, key).problems]
    if kind is DecisionV1:  # its key follows from the master key
        assert found == []
        Seals(folder, ring, create=True)
        return
    assert found == [(9, "blobs/seal.roots")]
    with pytest.raises(LogDamaged, match="backup"):
        Seals(folder, ring, create=True)
    assert not roots_path(folder).exists()


def test_two_logs_of_one_keyring_share_no_key_stream(tmp_path, ring) -> None:
    made = [tmp_path / "a", tmp_path / "b"]
    for folder in made:
        Seals(folder, ring, create=True)
    nonces = {roots_path(folder).read_bytes()[8:20] for folder in made}
    assert len(nonces) == 2
