"""Rotated keys: every public key of the log verifies it, and a swap without a record does not."""

import asyncio
import io
import shutil
import stat

import pytest

from audit import keyfiles
from audit.canonical import dumps
from audit.complete import check_complete
from audit.cosignature import Cosigner
from audit.cosigned import write_cosigned
from audit.errors import EventInvalid, KeyFileError, LogDamaged, LogUnavailable, NoteError
from audit.fsck import inspect
from audit.keys import Keyring
from audit.notary import Notary
from audit.note import Signer, VerifierKey, split_note
from audit.pack import write_pack
from audit.pack_range import Wanted, choose
from audit.prove import verify_proof
from audit.publish import read_checkpoint
from audit.reader import LogReader
from audit.record import KeyRotation, encode
from audit.rotating import Rotating
from audit.rotation import KeyChain, Rotation, read_rotations, rotation_path, rotation_text
from audit.testing import check_log
from audit.verify import verify_log
from tests.audit.packworld import members_of, packed, verify
from tests.audit.worlds import ORIGIN, START_US, decision

REASON = {"actor": "key officer", "reason": "every year"}


class Rotated:
    """A log of 300 records whose key was rotated twice, at about 100 and 200."""

    def __init__(self, folder):
        self.folder, self.log, self.keys = folder, folder / "log", folder / "keys"
        self.early = self.proof = ""

    async def make(self):
        ring = Keyring.load_or_create(self.keys)
        self.vkeys = [ring.verifier_key(ORIGIN)]
        notary = await Notary.open(self.log, ring, origin=ORIGIN)
        rotating = Rotating(notary, self.keys)
        for first in (1, 101, 201):
            await asyncio.gather(*[notary.append(decision(n)) for n in range(first, first + 100)])
            if first < 201:
                await notary.checkpoint()
                self.early = self.early or read_checkpoint(self.log)
                self.proof = self.proof or await notary.prove(7)
                done = await rotating.rotate(**REASON)
                self.vkeys.append(VerifierKey.parse(done.new_key))
        await notary.close()
        return self

    def ring(self):
        return Keyring.load(self.keys)

    def export(self, key, first=1, last=300):
        wanted = Wanted(
            from_us=START_US + first * 1000, to_us=START_US + last * 1000 + 1, log_key=key
        )
        reader, file = LogReader(self.log), io.BytesIO()
        write_pack(reader, wanted, choose(reader, wanted), file)
        return file.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return asyncio.run(Rotated(tmp_path_factory.mktemp("rotated")).make())


@pytest.fixture
def world(made, tmp_path):
    copy = Rotated(tmp_path)
    for name in ("log", "keys"):
        shutil.copytree(made.folder / name, tmp_path / name)
    copy.vkeys, copy.early, copy.proof = made.vkeys, made.early, made.proof
    return copy


def problems(world, key, **options):
    return [str(p) for p in verify_log(world.log, key, **options).problems]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_key_of_the_log_verifies_it(world, which):
    findings = check_log(world.log, world.vkeys[which])
    assert (findings.leaves, findings.counts["key rotations"]) == (302, 2)
    assert problems(world, world.vkeys[which].public) == []
    assert problems(world, world.vkeys[which], earlier_checkpoint=world.early) == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_key_counts_over_a_rotation(world, which):
    whole = check_complete(world.log, world.vkeys[which])
    assert whole.ok, whole.text()
    assert (whole.end, whole.records) == (302, {"decision": 300, "key_rotation": 2})
    later = check_complete(world.log, world.vkeys[which], since=world.early)
    assert later.ok, later.text()
    assert (later.first, later.records["decision"]) == (100, 200)


def test_the_checkpoint_is_the_newest_keys_alone_and_each_rotation_both_keys(world):
    assert VerifierKey.parse(str(world.vkeys[2])) == world.ring().verifier_key(ORIGIN)
    signed = KeyChain.build(world.vkeys[2], []).open(read_checkpoint(world.log))
    assert signed.size == 302
    with pytest.raises(NoteError):
        KeyChain.build(world.vkeys[0], []).open(read_checkpoint(world.log))
    for note, pair in zip(read_rotations(world.log), [(0, 1), (1, 2)], strict=True):
        found = Rotation.parse(note)
        assert (found.old, found.new) == tuple(world.vkeys[n] for n in pair)
        event = LogReader(world.log).entry(found.leaf).event
        assert isinstance(event, KeyRotation)
        assert (event.actor, event.reason) == ("key officer", "every year")


def test_a_foreign_key_verifies_nothing(world):
    stranger = Signer(ORIGIN, bytes(32)).verifier_key
    assert any("no rotation leads" in text for text in problems(world, stranger))


def test_without_its_rotations_a_swap_is_refused(world):
    shutil.rmtree(world.log / "rotations")
    assert any("no signature by" in text for text in problems(world, world.vkeys[0]))
    said = problems(world, world.vkeys[2])
    assert any("2 records say" in text for text in said)
    with pytest.raises(NoteError):
        world.export(world.vkeys[0])


def test_a_rotation_without_its_record_is_found(world):
    note = read_rotations(world.log)[1]
    found, seeds = Rotation.parse(note), [bytes([n]) * 32 for n in (1, 2)]
    new = [Signer(ORIGIN, seed) for seed in seeds]
    path = rotation_path(world.log, found.tree.size)
    # Whoever holds the newest key adds a rotation that no record tells of.
    held = world.ring().signer(ORIGIN)
    tree = KeyChain.build(world.vkeys[2], []).open(read_checkpoint(world.log))
    text = rotation_text(tree, 7, held.verifier_key, new[0].verifier_key)
    forged = held.sign(text) + new[0].sign(text).rpartition("\n\n")[2]
    path.with_name(f"{tree.size:020d}").write_text(forged)
    assert any("leaf 7" in text and "no record" in text for text in problems(world, world.vkeys[0]))


@pytest.mark.parametrize("emptied", [True, False])
def test_a_power_cut_that_takes_the_marker_accuses_no_rotation(world, emptied):
    marker = world.log / "committed"
    marker.write_bytes(b"") if emptied else marker.unlink()
    for key in world.vkeys:
        assert problems(world, key) == ["step 8: committed: missing or empty"]
        report = inspect(world.log, key)
        assert report.status == 1
        assert [one.path for one in report.seen if one.level == "mend"] == ["committed"]


def test_without_a_checkpoint_its_rotations_are_there_all_the_same(world):
    (world.log / "checkpoint").unlink()
    for key in world.vkeys:
        assert problems(world, key) == ["step 1: checkpoint: there is no signed checkpoint"]
        early = problems(world, key, earlier_checkpoint=world.early)
        assert early == ["step 1: checkpoint: there is no signed checkpoint"]
        assert inspect(world.log, key).status == 1
    stranger = Signer(ORIGIN, bytes(32)).verifier_key
    assert not any("rotations are there" in text for text in problems(world, stranger))


def test_without_its_leaves_nothing_is_said_of_a_rotation_s_record(world):
    shutil.rmtree(world.log / "wal")
    assert not [text for text in problems(world, world.vkeys[0]) if text.startswith("step 1")]
    shutil.rmtree(world.log / "tile")
    found = verify_log(world.log, world.vkeys[0])
    assert not [problem for problem in found.problems if problem.step == 1]
    assert sum("is lost and was not checked" in note for note in found.notes) == 2


def test_signed_by_one_key_only_it_is_no_rotation(world):
    path = rotation_path(world.log, Rotation.parse(read_rotations(world.log)[0]).tree.size)
    text, lines = split_note(path.read_text())
    for kept in lines:
        path.write_text(f"{text}\n{kept}\n")
        for key in world.vkeys:
            assert problems(world, key) != []


def test_a_replaced_key_signs_nothing_larger(world, made):
    """The thief of an old key cannot sign a longer log for those who know of the rotation."""
    chain = KeyChain.build(world.vkeys[0], read_rotations(world.log))
    first = chain.trees[0].size
    assert chain.at(first - 1) == [world.vkeys[0]]
    assert chain.at(first) == [world.vkeys[0], world.vkeys[1]]
    assert chain.at(first + 1) == [world.vkeys[1]]
    assert chain.at(10_000) == [world.vkeys[2]]
    stolen = Signer(ORIGIN, bytes(32))
    other = Signer(ORIGIN, bytes([9]) * 32)
    tree = KeyChain.build(world.vkeys[2], []).open(read_checkpoint(world.log))
    small = tree._replace(size=10)
    text = rotation_text(small, 3, stolen.verifier_key, other.verifier_key)
    note = stolen.sign(text) + other.sign(text).rpartition("\n\n")[2]
    forged = KeyChain.build(stolen.verifier_key, [note])
    assert forged.open(other.sign(tree.text())) == tree
    with pytest.raises(NoteError, match="no signature by"):
        forged.open(stolen.sign(tree.text()))
    with pytest.raises(NoteError, match="do not follow on"):
        KeyChain.build(world.vkeys[0], [*read_rotations(world.log), note])
    back = rotation_text(tree, 3, other.verifier_key, stolen.verifier_key)
    again = other.sign(back) + stolen.sign(back).rpartition("\n\n")[2]
    with pytest.raises(NoteError, match="came back"):
        KeyChain.build(stolen.verifier_key, [note, again])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("leaf", [0, 99, 100, 150, 301])
async def test_proofs_verify_under_every_key(world, which, leaf):
    notary = await Notary.open(world.log, world.ring(), origin=ORIGIN)
    proof = await notary.prove(leaf)
    entry = LogReader(world.log).entry(leaf).data
    await notary.close()
    assert verify_proof(proof, entry, str(world.vkeys[which])).index == leaf
    assert verify_proof(proof, entry, world.vkeys[which].public).checkpoint.size == 302
    with pytest.raises(NoteError):
        verify_proof(proof, entry, Signer(ORIGIN, bytes(32)).verifier_key)
    bare = "\n".join(line for line in proof.split("\n") if not line.startswith("extra "))
    if which < 2:
        with pytest.raises(NoteError):
            verify_proof(bare, entry, world.vkeys[which])


def test_a_proof_of_before_a_rotation_needs_a_key_of_then_and_says_so(world):
    entry = LogReader(world.log).entry(7).data
    assert verify_proof(world.proof, entry, world.vkeys[0]).checkpoint.size == 100
    with pytest.raises(NoteError, match="take a key of that time"):
        verify_proof(world.proof, entry, world.vkeys[2])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(("first", "last"), [(1, 300), (90, 110), (250, 260)])
def test_packs_verify_under_every_key(world, tmp_path, capsys, which, first, last):
    pack = world.export(world.vkeys[which], first, last)
    assert pack == world.export(world.vkeys[2], first, last)
    said = verify(pack, tmp_path, capsys, "--key", world.vkeys[which])
    assert said.status == 0, said.text
    assert len([line for line in said.lines("found") if line.startswith("rotations/")]) == 2
    kept = tmp_path / "kept"
    kept.write_text(world.early)
    later = verify(pack, tmp_path, capsys, "--key", world.vkeys[which], "--earlier", kept)
    assert "cannot be compared" in later.text or later.status == 0
    stranger = Signer(ORIGIN, bytes(32)).verifier_key
    refused = verify(pack, tmp_path, capsys, "--key", stranger)
    assert (refused.status, "none of its keys" in refused.text) == (1, True)


@pytest.mark.parametrize("attack", ["without", "one signature", "mark", "order"])
def test_a_pack_with_a_forged_rotation_is_refused(world, tmp_path, capsys, attack):
    members = members_of(world.export(world.vkeys[0]))
    names = sorted(name for name in members if name.startswith("rotations/"))
    if attack == "without":
        for name in names:
            del members[name]
    elif attack == "order":
        del members[names[0]]
    else:
        text, lines = split_note(members[names[0]].decode())
        if attack == "mark":
            text = text.replace("weighbridge-key-rotation/1", "weighbridge-key-rotation/2")
        members[names[0]] = f"{text}\n{lines[0]}\n".encode()
    said = verify(packed(members), tmp_path, capsys, "--key", world.vkeys[0])
    assert said.status == 1, said.text
    assert said.lines("result") == [f"problems: {len(said.problems)}"]


# --- the deed, interrupted ---------------------------------------------------------------------


class Crash(Exception):
    pass


@pytest.mark.parametrize(
    "at", ["write_next", "append", "replace_signer", "promote_next", "in promote_next"]
)
@pytest.mark.parametrize("after", [False, True])
async def test_an_interrupted_rotation_is_finished_or_undone(tmp_path, monkeypatch, at, after):
    keys, log = tmp_path / "keys", tmp_path / "log"
    ring = Keyring.load_or_create(keys)
    first = ring.verifier_key(ORIGIN)
    notary = await Notary.open(log, ring, origin=ORIGIN)
    await asyncio.gather(*[notary.append(decision(n)) for n in range(1, 51)])

    def failing(real):
        def fails(*args, **options):
            if after:
                real(*args, **options)
            raise Crash

        async def fails_later(*args, **options):
            if after:
                await real(*args, **options)
            raise Crash

        return fails_later if asyncio.iscoroutinefunction(real) else fails

    if at in ("append", "replace_signer"):
        monkeypatch.setattr(notary, at, failing(getattr(notary, at)))
    elif at == "in promote_next":
        monkeypatch.setattr(keyfiles, "_overwrite", failing(keyfiles._overwrite))
    else:
        monkeypatch.setattr(f"audit.rotating.{at}", failing(getattr(keyfiles, at)))
    with pytest.raises(Crash):
        await Rotating(notary, keys).rotate(**REASON)
    monkeypatch.undo()
    await notary.close()
    recorded = at not in ("write_next",) and not (at == "append" and not after)
    ring = Keyring.load(keys)
    notary = await Notary.open(log, ring, origin=ORIGIN)
    await notary.append(decision(51))
    await Rotating(notary, keys).finish()
    await notary.append(decision(52))
    signs = notary.verifier_key
    await notary.close()
    assert (signs != first) == recorded
    assert Keyring.load(keys).verifier_key(ORIGIN) == signs
    assert not (keys / "log.key.next").exists()
    for key in {first, signs}:
        assert check_log(log, key).counts.get("key rotations", 0) == recorded
    # And once more, from here.
    notary = await Notary.open(log, Keyring.load(keys), origin=ORIGIN)
    done = await Rotating(notary, keys).rotate(**REASON)
    await notary.close()
    assert done.old_key == str(signs)
    check_log(log, first)
    check_log(log, done.new_key)


async def test_a_rotation_that_waits_for_the_next_start_is_no_damage(tmp_path, monkeypatch):
    keys, log = tmp_path / "keys", tmp_path / "log"
    ring = Keyring.load_or_create(keys)
    notary = await Notary.open(log, ring, origin=ORIGIN)
    await notary.append(decision(1))

    async def dies(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(notary, "replace_signer", dies)
    with pytest.raises(Crash):
        await Rotating(notary, keys).rotate(**REASON)
    await notary.close()
    report = inspect(log, ring.verifier_key(ORIGIN))
    mends = [one for one in report.seen if one.level == "mend"]
    assert (report.status, [one.path for one in mends]) == (1, ["rotations"])
    assert "leaf 1: a key rotation was interrupted" in mends[0].what


def test_rotations_that_were_removed_are_damage(world):
    shutil.rmtree(world.log / "rotations")
    report = inspect(world.log, world.vkeys[2])
    found = {one.path: one.what for one in report.seen if one.level == "damage"}
    assert report.status == 2
    assert "2 records say that the log's key was rotated, and 0 rotations" in found["rotations"]


async def test_the_key_folder_of_before_cannot_continue_the_log(world, made, tmp_path):
    old = tmp_path / "old"
    ring = Keyring.load_or_create(old)
    with pytest.raises((KeyFileError, LogDamaged)):
        await Notary.open(world.log, ring, origin=ORIGIN)
    assert stat.S_IMODE((world.keys / "log.key").stat().st_mode) == 0o600


async def test_old_private_keys_are_gone_and_words_are_asked_for(tmp_path):
    keys = tmp_path / "keys"
    ring = Keyring.load_or_create(keys)
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    rotating = Rotating(notary, keys)
    for wrong in ({"actor": "", "reason": "x"}, {"actor": "x", "reason": " "}):
        with pytest.raises(EventInvalid):
            await rotating.rotate(**wrong)
    before = ring.log_seed.hex().encode()
    await rotating.rotate(**REASON)
    await notary.close()
    assert before not in b"".join(path.read_bytes() for path in keys.iterdir())
    again = await Notary.open(tmp_path / "log", Keyring.load(keys), origin=ORIGIN)
    assert again.signed.size == 1
    await again.close()


async def test_a_full_disk_leaves_the_old_key_in_force(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    ring = Keyring.load_or_create(keys)
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    await notary.append(decision(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("audit.rotating.write_next", full)
    with pytest.raises(KeyFileError, match="the old one goes on"):
        await Rotating(notary, keys).rotate(**REASON)
    monkeypatch.undo()
    monkeypatch.setattr("audit.publish.make_directory", full)
    with pytest.raises(LogUnavailable):
        await Rotating(notary, keys).rotate(**REASON)
    assert notary.verifier_key == ring.verifier_key(ORIGIN)
    monkeypatch.undo()
    await notary.append(decision(2))
    done = await Rotating(notary, keys).rotate(**REASON)  # finishes that one, then makes another
    await notary.close()
    assert check_log(tmp_path / "log", done.new_key).counts["key rotations"] == 2


async def test_witness_signatures_under_an_old_key_stay_good(tmp_path):
    keys, witness = tmp_path / "keys", Cosigner("example.org/w", bytes(32))
    ring = Keyring.load_or_create(keys)
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    await notary.append(decision(1))
    await notary.checkpoint()
    note = read_checkpoint(tmp_path / "log")
    line = witness.cosign(split_note(note)[0], 1_790_000_000)
    write_cosigned(tmp_path / "log", witness.key, note + line)
    done = await Rotating(notary, keys).rotate(**REASON)
    await notary.append(decision(2))
    await notary.close()
    for key in (ring.verifier_key(ORIGIN), done.new_key):
        findings = verify_log(tmp_path / "log", key, witnesses=[witness.key])
        assert findings.ok, findings.text()
        assert any("example.org/w cosigned 1 leaf at" in note for note in findings.notes)


def test_the_record_holds_public_keys_only(world):
    entries = [e for e in LogReader(world.log).entries() if isinstance(e.event, KeyRotation)]
    assert [dumps(entry.event.purpose) for entry in entries] == [b'"log"'] * 2
    assert all(world.ring().log_seed.hex().encode() not in encode(e.event) for e in entries)
