"""Pruning: whole segments go, what is left proves itself, and a crash at any step is made good."""

import errno
import shutil
from itertools import count

import pytest

from audit import prunefiles, pruning
from audit.boundary import PRUNED_NAME, read_boundary
from audit.errors import (
    EventInvalid,
    HoldStands,
    LeafPruned,
    LogDamaged,
    LogUnavailable,
    NotFound,
    NotPrunable,
)
from audit.events import AssignmentConfig, Carried, Epoch, LegalHold, ModelRegistered, Pruned
from audit.index import Criteria, Index
from audit.keys import Keyring
from audit.prove import prove, verify_proof
from audit.prunefiles import prune_files
from audit.reader import LogReader
from audit.record import original
from audit.seals import Seals
from audit.snapshot import STANDING
from audit.subjects import LIVE, SLOT_BYTES, parse_slot, slots_path
from audit.testing import check_log
from audit.tiles import WIDTH, Tile, place_of
from audit.verify import verify_log
from tests.audit.pruneworld import WHY, config, epoch, hold, living, registered
from tests.audit.worlds import ORIGIN, decision, make_keyring

ALICE, BOB = "aa" * 16, "bb" * 16


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


def key_of(ring):
    return ring.verifier_key(ORIGIN)


async def old_and_new(log, *, old=700, new=400):
    """Decisions that may go, and later ones that must stay."""
    for event in (epoch(), registered(), config()):
        await log.notary.append(event)
    await log.decide(old, at=0, payload=b"old secret", unit_ref=ALICE)
    await log.pruning.roll()
    await log.decide(new, at=10, payload=b"new", unit_ref=BOB)
    await log.notary.checkpoint()
    log.hours = 10.5


async def test_old_segments_go_and_the_rest_proves_itself(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        reader = LogReader(log.directory)
        before = [entry.data for entry in reader.entries()]
        earlier = reader.checkpoint()
        (log.directory / STANDING).write_bytes(b"why somebody was held")
        found = await log.prune()
        assert not (log.directory / STANDING).exists()  # it repeats what was pruned
        assert found.first_leaf == 703 // WIDTH * WIDTH == reader.first()
        with pytest.raises(LeafPruned, match=f"leaf {found.leaf} says"):
            reader.entry(3)
        assert [entry.data for entry in reader.entries()][: len(before) - 512] == before[512:]
        for leaf in (512, 600, 702, 703, 1000, found.leaf):
            data = reader.entry(leaf).data
            assert verify_proof(prove(reader, leaf), data, key_of(ring)).index == leaf
        with pytest.raises(LeafPruned):
            prove(reader, 5)
        # It goes on, is closed and opened, and verifies, also against a checkpoint of before.
        await log.decide(300, at=11)
        await log.notary.checkpoint()
    async with living(tmp_path, ring) as log:
        assert log.notary.recovery.first_leaf == 512
        log.seq = 1400
        await log.decide(5, at=12)
    findings = check_log(tmp_path / "log", key_of(ring))
    assert findings.counts["pruned leaves"] == 512
    assert any("checked from leaf 512 on" in note for note in findings.notes)
    again = verify_log(tmp_path / "log", key_of(ring), earlier_checkpoint=earlier)
    assert again.ok, again.text()


async def test_what_ends_before_the_boundary_is_gone_from_the_disk(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        await log.prune()
        names = [p.relative_to(log.directory) for p in log.directory.rglob("*") if p.is_file()]
        tiles = [place_of(str(name)) for name in names if name.parts[0] == "tile"]
        assert min(index for level, index in tiles if level in (-1, 0)) == 2
        assert (log.directory / Tile(1, 0, 4).path()).exists() or (1, 0) in tiles
        # Ids stay taken (test_pruned_ids.py); of what the records said nothing is left.
        rest = [name for name in names if name.parts[0] != "ids"]
        disk = b"".join((log.directory / name).read_bytes() for name in rest)
        assert decision(1).id.encode() not in disk
        assert decision(509).id.encode() not in disk  # leaf 511
        assert decision(510).id.encode() in disk
        # Payloads and the data key of whom nothing else is kept.
        assert not (log.directory / "blobs" / "00000000.seg").exists()
        raw = slots_path(log.directory).read_bytes()
        slots = [parse_slot(raw[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES)]
        assert [slot.state == LIVE for slot in slots] == [False, True]
        reader = LogReader(log.directory)
        assert reader.payload(ring, decision(900).id, "input") == b"new"
        assert reader.payload(ring, decision(600).id, "input") is None


async def test_what_is_in_force_is_carried_over_with_proof(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        for event in (hold("cc", "case 12"), hold("dd", "case 13"), hold("dd", "over", "release")):
            await log.notary.append(event)
        await old_and_new(log)
        await log.prune()
        await log.decide(600, at=20)
        await log.pruning.roll()
        await log.decide(1, at=40)
        await log.notary.checkpoint()
        log.hours = 41
        found = await log.prune()
        assert found.first_leaf > 1024
        entries = list(LogReader(log.directory).entries())
        carried = [entry.event for entry in entries if isinstance(entry.event, Carried)]
        kinds = {type(original(event)) for event in carried}
        assert kinds == {Epoch, ModelRegistered, AssignmentConfig, LegalHold}
        assert {event.was_leaf for event in carried} == {0, 3, 4, 5}  # as when they were recorded
        with pytest.raises(HoldStands, match="case 12"):
            await log.erasing.erase("cc" * 16, **WHY)
    async with living(tmp_path, ring) as log:
        with pytest.raises(HoldStands, match="case 12"):
            await log.erasing.erase("cc" * 16, **WHY)
        with pytest.raises(NotFound):
            await log.erasing.hold("dd" * 16, **WHY, release=True)
    findings = check_log(tmp_path / "log", key_of(ring))
    assert findings.counts["records carried over, with proof"] == 4
    assert findings.instances == {"0000000a": 1701}


async def test_floors_holds_checkpoints_and_witnesses_forbid_it(tmp_path, ring) -> None:
    sizes = {"example.org/w": 100}
    policy = "1h..,digits=100h.."
    async with living(tmp_path, ring, policy, cosigned=lambda: sizes) as log:
        await old_and_new(log)
        with pytest.raises(NotPrunable, match=r"witness example\.org/w has cosigned 100"):
            await log.prune()
        sizes["example.org/w"] = 1100
        log.hours = 0.5
        with pytest.raises(NotPrunable, match="must be kept for 30 minutes more"):
            await log.prune()
        log.hours = 10.5
        await log.erasing.hold(ALICE, actor="court", reason="case 1")
        with pytest.raises(NotPrunable, match=f"legal hold stands on {ALICE}, who is in leaf 3"):
            await log.prune()
        await log.erasing.hold(ALICE, actor="court", reason="over", release=True)
        with pytest.raises(EventInvalid, match="reason"):
            await log.pruning.prune(actor="x", reason=" ")
        await log.prune()
        with pytest.raises(NotPrunable):
            await log.prune()
    async with living(tmp_path / "other", ring, policy) as log:
        await log.decide(300, at=0, model="digits")
        await log.pruning.roll()
        await log.decide(1, at=10)
        log.hours = 20
        with pytest.raises(NotPrunable, match="signed checkpoint covers 0 leaves"):
            await log.prune()
        await log.notary.checkpoint()
        with pytest.raises(NotPrunable, match="digits must be kept for 3 days more"):
            await log.prune()
    async with living(tmp_path / "third", ring, "") as log:
        await old_and_new(log)
        log.hours = 1e6
        with pytest.raises(NotPrunable, match="no retention is set"):
            await log.prune()


async def test_a_ceiling_makes_it_due_and_ends_the_segment_in_time(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "2h..10h") as log:
        await log.decide(300, at=0)
        await log.notary.checkpoint()
        log.hours = 3
        assert await log.pruning.keep_to_ceilings(within_us=0) is None
        log.hours = 5  # half-way between floor and ceiling: the segment is ended
        assert await log.pruning.keep_to_ceilings(within_us=0) is None
        await log.decide(1, at=5)
        await log.notary.checkpoint()
        log.hours = 9.5
        assert await log.pruning.keep_to_ceilings(within_us=0) is None
        found = await log.pruning.keep_to_ceilings(within_us=3600 * 1_000_000)
        assert found is not None
        assert found.first_leaf == 256
        event = LogReader(log.directory).entry(found.leaf).event
        assert isinstance(event, Pruned)
        assert event.actor == "weighbridge"


async def test_the_index_forgets_and_is_built_anew_from_what_is_left(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        with Index(log.directory) as index:
            assert index.find(decision(1).id) == 3
            await log.prune()
            assert index.find(decision(1).id) is None
            assert index.find(decision(600).id) == 602
            assert min(index.search(Criteria(model="income"), limit=5000)) == 512
        (log.directory / "index.sqlite").unlink()
        with Index(log.directory) as index:
            assert index.find(decision(600).id) == 602
        # An index that saw nothing of what is left is made anew.
        (log.directory / "index.sqlite").unlink()


class Crash(Exception):
    pass


def dying_at(step):
    """The deed, for a process that dies at its n-th step."""

    def deed(*words, **options):
        calls = count()

        def crash() -> None:
            if next(calls) >= step:
                raise Crash

        return prune_files(*words, crash=crash, **options)

    return deed


async def test_a_crash_at_any_step_is_made_good_at_the_next_start(
    tmp_path, ring, monkeypatch
) -> None:
    async with living(tmp_path / "made", ring) as log:
        await old_and_new(log)
    for step in count():
        folder, crashed = tmp_path / f"step{step}", False
        shutil.copytree(tmp_path / "made", folder)
        with monkeypatch.context() as patch:
            patch.setattr(pruning, "prune_files", dying_at(step))
            async with living(folder, ring) as log:
                log.hours = 10.5
                try:
                    await log.prune()
                except Crash:
                    crashed = True
        findings = verify_log(folder / "log", key_of(ring))
        assert findings.ok, (step, findings.text())
        async with living(folder, ring) as log:
            log.seq = 1100
            await log.decide(3, at=11)
            assert await log.pruning.finish() == crashed
            assert LogReader(log.directory).first() == 512
            assert not await log.pruning.finish()
        findings = check_log(folder / "log", key_of(ring))
        assert findings.counts["pruned leaves"] == 512
        assert not any("next start" in note for note in findings.notes), findings.text()
        boundary = read_boundary(folder / "log")
        assert boundary is not None
        assert boundary.done
        shutil.rmtree(folder)
        if not crashed:
            break
    assert step > 10


@pytest.mark.parametrize("name", ["replace_file", "settle", "write_boundary", "fsync_directory"])
async def test_a_disk_that_refuses_half_way_is_asked_again(
    tmp_path, ring, monkeypatch, name
) -> None:
    def refuse(*words, **options):
        raise OSError(errno.ENOSPC, "injected")

    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        with monkeypatch.context() as patch:
            patch.setattr(prunefiles, name, refuse)
            with pytest.raises(LogUnavailable, match="the next pruning or start goes on"):
                await log.prune()
        await log.decide(3, at=10.5)  # it goes on serving meanwhile
        with pytest.raises(NotPrunable):  # what was begun is finished first
            await log.prune()
        assert LogReader(log.directory).first() == 512
        await log.notary.checkpoint()
    check_log(tmp_path / "log", key_of(ring))


async def test_a_regular_look_reads_nothing_while_nothing_can_be_due(tmp_path, ring) -> None:
    async with living(tmp_path, ring, "1h..100h") as log:
        await old_and_new(log)
        assert (await log.pruning.plan(due_only=True)).segments == ()
        log.hours = 101
        assert (await log.pruning.plan(due_only=True)).first_leaf == 512


async def test_a_lost_boundary_is_found_again_and_lost_tiles_are_made_again(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        await log.prune()
    directory = tmp_path / "log"
    whole = read_boundary(directory)
    (directory / PRUNED_NAME).unlink()
    assert not verify_log(directory, key_of(ring)).ok
    async with living(tmp_path, ring):
        pass
    assert read_boundary(directory).rows == whole.rows
    check_log(directory, key_of(ring))
    shutil.rmtree(directory / "tile")
    async with living(tmp_path, ring) as log:
        assert log.notary.recovery.tiles_rebuilt
    check_log(directory, key_of(ring))


async def test_the_checkpoint_of_that_moment_is_kept_and_compared(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        note = LogReader(log.directory).checkpoint()
        await log.prune()
    directory = tmp_path / "log"
    (path,) = (directory / "checkpoints").iterdir()
    assert path.read_text() == note
    body, _, signature = note.rpartition("\n\n")
    lines = body.split("\n")
    forged = {
        "signature": note.replace(signature[-12:-4], "AAAAAAAA"),
        "root": "\n".join([*lines[:2], "A" * 43 + "=", "", signature]),
        "nothing": "no note",
    }
    for text in forged.values():
        path.write_text(text)
        assert [p.step for p in verify_log(directory, key_of(ring)).problems] == [5], text


def make_keyring_of(folder, seed):
    return Keyring.load_or_create(folder, random=lambda count: (seed * 32)[:count])


@pytest.mark.parametrize("forgery", ["segment", "state", "rows", "record"])
async def test_a_pruning_that_nobody_recorded_is_found(tmp_path, ring, forgery) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        await log.prune()
    directory = tmp_path / "log"
    first, second, *_ = sorted((directory / "wal").glob("*.wal"))
    if forgery == "segment":
        first.unlink()
        second.unlink()
        with pytest.raises(LogDamaged):
            async with living(tmp_path, ring):
                pass
    elif forgery == "state":
        (directory / PRUNED_NAME).unlink()
    else:
        path = directory / PRUNED_NAME
        raw = path.read_bytes()
        boundary = read_boundary(directory)
        old, new = boundary.rows[1].hex()[:8].encode(), b"00000000"
        if forgery == "record":
            old, new = b'"actor":"operator"', b'"actor":"somebody"'
        assert old in raw
        path.write_bytes(raw.replace(old, new))
    assert not verify_log(directory, key_of(ring)).ok


async def test_a_reader_follows_while_the_log_is_pruned(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await old_and_new(log)
        reader = LogReader(log.directory)
        slow = reader.raw(0)
        assert [next(slow)[0] for _ in range(3)] == [0, 1, 2]
        behind = LogReader(log.directory)
        list(behind.raw(0, 600))
        await log.prune()
        assert next(behind.raw(600, 601))[0] == 600  # its segment has another name now
        with pytest.raises(LeafPruned):
            list(reader.raw(100, 200))


async def test_a_release_whose_hold_could_go_does_not_end_another_one_by_that(tmp_path, ring):
    async with living(tmp_path, ring) as log:
        await log.notary.append(hold("aa", "one"))
        await log.decide(600, at=0, unit_ref=BOB)
        await log.pruning.roll()
        await log.erasing.hold(ALICE, actor="court", reason="two")
        await log.erasing.hold(ALICE, actor="court", reason="one is over", release=True)
        await log.decide(1, at=0, unit_ref=BOB)
        await log.notary.checkpoint()
        log.hours = 10.5
        with pytest.raises(NotPrunable, match="that one would seem to be released"):
            await log.prune()
    async with living(tmp_path, ring) as log:
        with pytest.raises(HoldStands, match=r"\(two\)"):
            await log.erasing.erase(ALICE, **WHY)
        await log.erasing.hold(ALICE, actor="court", reason="two is over", release=True)
        log.hours = 10.5
        assert (await log.prune()).first_leaf == 512
    async with living(tmp_path, ring) as log, log.erasing.standing() as standing:
        assert standing.holds == {}
    check_log(tmp_path / "log", key_of(ring))


async def test_a_hold_and_its_release_go_together(tmp_path, ring):
    async with living(tmp_path, ring) as log:
        await log.notary.append(hold("aa", "one"))
        await log.decide(300, at=0, unit_ref=BOB)
        await log.notary.append(hold("aa", "two"))
        await log.notary.append(hold("aa", "one is over", "release"))
        await log.decide(300, at=0, unit_ref=BOB)
        await log.pruning.roll()
        await log.decide(1, at=10, unit_ref=BOB)
        await log.notary.checkpoint()
        log.hours = 10.5
        assert (await log.prune()).first_leaf == 512
    async with living(tmp_path, ring) as log, log.erasing.standing() as standing:
        assert [held.reason for held in standing.holds[ALICE].values()] == ["two"]
    check_log(tmp_path / "log", key_of(ring))


@pytest.mark.parametrize("restarted", [False, True])
async def test_who_came_back_before_an_erasure_was_carried_over_is_erased_again(
    tmp_path, ring, restarted
) -> None:
    async with living(tmp_path, ring) as log:
        await log.decide(3, at=0, payload=b"secret", unit_ref=BOB)
        await log.erasing.erase(BOB, **WHY)
        await log.decide(600, at=0, unit_ref=ALICE)
        sealed = Seals(log.directory, ring).seal(b"new", BOB, "a decision")
        await log.decide(1, at=0, unit_ref=BOB, sealed=sealed)
        await log.notary.checkpoint()
        log.hours = 1_000_000
        assert (await log.prune()).first_leaf == 512
        carried = [entry.event for entry in LogReader(log.directory).others()]
        assert "erasure" in [original(one).type for one in carried if isinstance(one, Carried)]
        if not restarted:
            assert not (await log.erasing.erase(BOB, **WHY)).again
            assert (await log.erasing.erase(BOB, **WHY)).again
    async with living(tmp_path, ring) as log:
        found = await log.erasing.erase(BOB, **WHY)
        assert found.again is not restarted
        assert (await log.erasing.erase(BOB, **WHY)).again
        assert Seals(log.directory, ring).open(sealed, BOB, "a decision") is None


async def test_an_erasure_that_was_carried_over_is_not_made_again_for_that(tmp_path, ring) -> None:
    async with living(tmp_path, ring) as log:
        await log.decide(3, at=0, payload=b"secret", unit_ref=BOB)
        await log.erasing.erase(BOB, **WHY)
        await log.decide(600, at=0, unit_ref=ALICE)
        await log.notary.checkpoint()
        log.hours = 1_000_000
        assert (await log.prune()).first_leaf == 512
        assert (await log.erasing.erase(BOB, **WHY)).again
