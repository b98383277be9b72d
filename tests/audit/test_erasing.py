"""Erasure: what is gone is gone for everyone, is recorded, and stays gone; a hold forbids it."""

import asyncio
import shutil

import pytest

from audit import sealroots
from audit.erasing import Erasing
from audit.errors import EventInvalid, HoldStands, LogUnavailable, NotFound
from audit.events import Erasure, LegalHold
from audit.notary import Notary
from audit.reader import LogReader
from audit.sealfiles import is_erased
from audit.seals import Seals
from audit.socket_link import NotaryClient, serve
from audit.subjects import DESTROYED, LIVE, SLOT_BYTES, parse_slot, slots_path
from audit.testing import FaultyFiles, check_log
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, decision, make_keyring

ALICE, BOB = "aa" * 16, "bb" * 16
SECRET = b"alice told us a secret"
WHY = {"actor": "officer", "reason": "she asked"}


@pytest.fixture(autouse=True)
def keeps_often():
    """What the log says of subjects is written to its file whenever it was read, and small."""
    with pytest.MonkeyPatch.context() as patched:  # of its own: tests undo theirs
        patched.setattr("audit.standing._KEEP_AFTER", 1)
        patched.setattr("audit.mentions._BITS", 18)
        patched.setattr("audit.mentions._MASK", (1 << 18) - 1)
        yield


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


async def opened(tmp_path, ring, **options):
    return await Notary.open(tmp_path / "log", ring, origin=ORIGIN, **options)


async def fill(notary, *, first=1):
    """Two decisions with payloads, of alice and of bob."""
    for number, (unit, body) in enumerate(((ALICE, SECRET), (BOB, b"bob's own")), first):
        event = decision(number, unit_ref=unit)
        await notary.append(event, payloads={"input": body}, subject=unit)


def erasing_of(notary, ring):
    return Erasing(notary, Seals(notary.directory, ring, create=True))


def body_of(tmp_path, ring, number, name="input"):
    return LogReader(tmp_path / "log").payload(ring, decision(number).id, name)


def slots(tmp_path):
    raw = slots_path(tmp_path / "log").read_bytes()
    found = [parse_slot(raw[at : at + SLOT_BYTES]) for at in range(0, len(raw), SLOT_BYTES)]
    return [slot for slot in found if slot is not None]


async def test_one_subject_is_erased_and_nobody_else(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    key = notary._log._blobs._subjects.key(0)
    wrapped = slots(tmp_path)[0].wrapped
    assert body_of(tmp_path, ring, 1) == SECRET
    erased = await erasing_of(notary, ring).erase(ALICE, **WHY)
    assert (erased.keys, erased.again) == (1, False)
    assert body_of(tmp_path, ring, 1) is None
    assert body_of(tmp_path, ring, 2) == b"bob's own"
    await notary.close()
    event = LogReader(tmp_path / "log").entry(erased.leaf).event
    assert isinstance(event, Erasure)
    assert (event.unit_ref, event.actor, event.reason, event.key_slots) == (
        ALICE, "officer", "she asked", [0],
    )  # fmt: skip
    found = check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert (found.counts["erased payloads"], found.counts["erased key slots"]) == (1, 1)
    everything = b"".join(p.read_bytes() for p in (tmp_path / "log").rglob("*") if p.is_file())
    for gone in (SECRET, key, wrapped, key.hex().encode()):
        assert gone not in everything


async def test_where_the_log_is_lost_no_destroyed_key_is_said_to_be_there(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    await erasing_of(notary, ring).erase(ALICE, **WHY)
    await notary.close()
    log, key = tmp_path / "log", ring.verifier_key(ORIGIN)
    shutil.rmtree(log / "wal")
    assert "keys are there" not in verify_log(log, key).text()
    # What was put back is seen all the same.
    path = slots_path(log)
    path.write_bytes(path.read_bytes()[SLOT_BYTES:] * 2)
    assert "keys are there (again): slot 0" in verify_log(log, key).text()
    # Nor where the slots themselves are cut off or damaged: that is another matter.
    path.write_bytes(b"")
    assert "keys are there" not in verify_log(log, key).text()


async def test_erasing_again_changes_nothing_until_the_subject_comes_back(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    erasing = erasing_of(notary, ring)
    first = await erasing.erase(ALICE, **WHY)
    size = notary.size
    assert await erasing.erase(ALICE, **WHY) == first._replace(keys=0, again=True)
    assert notary.size == size
    await fill(notary, first=3)
    assert body_of(tmp_path, ring, 3) == SECRET  # a new key
    assert body_of(tmp_path, ring, 1) is None  # and what was lost stays lost
    assert [slot.state for slot in slots(tmp_path)] == [DESTROYED, LIVE, LIVE]
    second = await erasing.erase(ALICE, **WHY)
    assert (second.keys, second.again) == (1, False)
    assert body_of(tmp_path, ring, 3) is None
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_an_unknown_subject_and_an_empty_reason_are_refused_in_words(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    erasing = erasing_of(notary, ring)
    with pytest.raises(NotFound, match="holds nothing about it"):
        await erasing.erase("cc" * 16, **WHY)
    with pytest.raises(NotFound, match="no legal hold"):
        await erasing.hold(ALICE, **WHY, release=True)
    for said in ({"actor": "x", "reason": " "}, {"actor": "", "reason": "x"}):
        with pytest.raises(EventInvalid, match="must have"):
            await erasing.erase(ALICE, **said)
    assert notary.size == 2
    await notary.close()


async def test_a_hold_forbids_erasure_also_after_a_restart_until_it_is_released(
    tmp_path, ring
) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    await erasing_of(notary, ring).hold(ALICE, actor="court", reason="case 12")
    await notary.close()
    notary = await opened(tmp_path, ring)
    erasing = erasing_of(notary, ring)
    with pytest.raises(HoldStands, match=r"a legal hold by court stands on it \(case 12\)"):
        await erasing.erase(ALICE, **WHY)
    assert body_of(tmp_path, ring, 1) == SECRET
    await erasing.erase(BOB, **WHY)
    # Whoever may append may hold, by the event alone.
    await notary.append(
        LegalHold(
            id=decision(90).id,
            time_us=1,
            unit_ref=ALICE,
            action="hold",
            actor="second court",
            reason="case 13",
        )
    )
    with pytest.raises(HoldStands, match="second court"):
        await erasing.erase(ALICE, **WHY)
    one = await erasing.hold(ALICE, actor="court", reason="closed", release=True)
    assert (one.holds, one.known) == (1, True)  # each matter ends by itself
    with pytest.raises(HoldStands, match="a legal hold by"):
        await erasing.erase(ALICE, **WHY)
    assert (await erasing.hold(ALICE, actor="court", reason="too", release=True)).holds == 0
    assert (await erasing.erase(ALICE, **WHY)).keys == 1
    nobody = await erasing.hold("00" * 16, actor="court", reason="case 14")
    assert (nobody.holds, nobody.known) == (1, False)
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_hold_is_kept_although_the_marker_was_replaced(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    erasing = erasing_of(notary, ring)
    marker = tmp_path / "log" / "committed"
    shutil.copy(marker, tmp_path / "copy")
    (tmp_path / "copy").replace(marker)  # the writer goes on with the file that was there
    await erasing.hold(ALICE, actor="court", reason="case 12")
    with pytest.raises(HoldStands):
        await erasing.erase(ALICE, **WHY)
    assert body_of(tmp_path, ring, 1) == SECRET
    await notary.close()


async def test_a_key_file_from_before_is_found_and_its_keys_are_destroyed_again(
    tmp_path, ring
) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    await notary.close()
    path, kept = slots_path(tmp_path / "log"), tmp_path / "kept"
    shutil.copy(path, kept)
    notary = await opened(tmp_path, ring)
    await erasing_of(notary, ring).erase(ALICE, **WHY)
    await notary.close()
    shutil.copy(kept, path)
    assert body_of(tmp_path, ring, 1) == SECRET  # the attack works
    found = verify_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert ["again" in problem.message for problem in found.problems] == [True]
    notary = await opened(tmp_path, ring)
    assert await erasing_of(notary, ring).finish() == 1
    assert await erasing_of(notary, ring).finish() == 0
    await notary.close()
    assert body_of(tmp_path, ring, 1) is None
    assert body_of(tmp_path, ring, 2) == b"bob's own"
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_copied_payload_segment_brings_nothing_back(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    await notary.close()
    segment = tmp_path / "log" / "blobs" / "00000000.seg"
    shutil.copy(segment, tmp_path / "kept")
    notary = await opened(tmp_path, ring)
    await erasing_of(notary, ring).erase(ALICE, **WHY)
    await notary.close()
    shutil.copy(tmp_path / "kept", segment)
    notary = await opened(tmp_path, ring)
    await fill(notary, first=3)
    assert body_of(tmp_path, ring, 1) is None
    assert body_of(tmp_path, ring, 3) == SECRET
    await notary.close()


def fail_after_the_record(notary, files):
    """Let the disk take an erasure's record, and refuse the deed."""
    append = notary._log.append

    def then_the_disk_fails(stored):
        first = append(stored)
        files.fault = "not-stored"
        return first

    notary._log.append = then_the_disk_fails


async def test_an_interrupted_erasure_is_finished_at_the_next_start(tmp_path, ring) -> None:
    files = FaultyFiles()
    notary = await opened(tmp_path, ring, files=files)
    await fill(notary)
    fail_after_the_record(notary, files)
    with pytest.raises(LogUnavailable):
        await erasing_of(notary, ring).erase(ALICE, **WHY)
    files.fault = None
    await notary.close()
    assert body_of(tmp_path, ring, 1) == SECRET
    notary = await opened(tmp_path, ring)
    assert await erasing_of(notary, ring).finish() == 2  # a data key, and that of sealed parts
    await notary.close()
    assert body_of(tmp_path, ring, 1) is None
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("fails", ["data key", "data key's sync", "new keys", "root"])
async def test_asked_again_it_finishes_what_failed_before_it_says_that_it_is_done(
    tmp_path, ring, monkeypatch, fails
) -> None:
    files = FaultyFiles()
    notary = await opened(tmp_path, ring, files=files)
    await fill(notary)
    erasing, told = erasing_of(notary, ring), []
    erasing.on_erased = told.append
    sealed = erasing._seals.seal(b"private", ALICE, "d1")
    append = notary._log.append

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "no space left on device")

    def then_the_disk_fails(stored):
        first = append(stored)
        if fails == "data key":
            files.fault = "not-stored"
        elif fails == "data key's sync":
            files.fault = "stored"
        elif fails == "new keys":
            monkeypatch.setattr(sealroots, "replace_file", refuse)
        else:
            monkeypatch.setattr(sealroots.SealRoots, "zero", refuse)
        return first

    notary._log.append = then_the_disk_fails
    with pytest.raises(LogUnavailable):
        await erasing.erase(ALICE, **WHY)
    with pytest.raises(LogUnavailable):  # and again, while it fails
        await erasing.erase(ALICE, **WHY)
    assert told == []
    files.fault, notary._log.append = None, append
    monkeypatch.undo()
    size = notary.size
    done = await erasing.erase(ALICE, **WHY)
    assert (done.again, notary.size) == (True, size)  # one record says it
    assert told == [ALICE]
    assert is_erased(notary.directory, ALICE, decoded_id(tmp_path, done.leaf))
    assert erasing._seals.open(sealed, ALICE, "d1") is None
    assert body_of(tmp_path, ring, 1) is None
    await erasing.erase(ALICE, **WHY)
    assert told == [ALICE]
    await fill(notary, first=3)  # and may come back
    assert body_of(tmp_path, ring, 3) == SECRET
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_subject_that_came_back_meanwhile_is_erased_with_both_records(
    tmp_path, ring, monkeypatch
) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    erasing = erasing_of(notary, ring)

    def refuse(*_: object) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Seals, "puncture", refuse)
        with pytest.raises(LogUnavailable):
            await erasing.erase(ALICE, **WHY)
    await fill(notary, first=3)
    done = await erasing.erase(ALICE, **WHY)
    assert (done.keys, done.again) == (1, False)
    assert await erasing.finish() == 0
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_payload_stays_or_goes_as_its_record_lies_after_or_before_the_erasure(
    tmp_path, ring
) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    erasing = erasing_of(notary, ring)
    run, under_way = notary._groups.run, []

    async def beside(work):
        """Everything that the writer does between groups has appends before and after it."""
        for when in ("before", "after"):
            number = 10 + len(under_way)
            event = decision(number, unit_ref=ALICE)
            body = f"{when} {number}".encode()
            append = notary.append(event, payloads={"input": body}, subject=ALICE)
            under_way.append(asyncio.create_task(append))
            if when == "before":
                await asyncio.sleep(0)  # so that it is queued first
                work = asyncio.ensure_future(run(work))
                await asyncio.sleep(0)
        return await work

    notary._groups.run = beside
    leaf = (await erasing.erase(ALICE, **WHY)).leaf
    notary._groups.run = run
    receipts = await asyncio.gather(*under_way)
    later = 0
    for number, receipt in enumerate(receipts, 10):
        body = body_of(tmp_path, ring, number)
        assert (body is not None) == (receipt.index > leaf)
        later += receipt.index > leaf
    assert 0 < later < len(receipts)
    await notary.close()
    assert not [one for one in verify_problems(tmp_path, ring) if "key" in one]


def verify_problems(tmp_path, ring):
    return [p.message for p in verify_log(tmp_path / "log", ring.verifier_key(ORIGIN)).problems]


async def test_where_the_deed_fails_a_payload_that_comes_meanwhile_has_a_key_of_its_own(
    tmp_path, ring
) -> None:
    files = FaultyFiles()
    notary = await opened(tmp_path, ring, files=files)
    await fill(notary)
    erasing = erasing_of(notary, ring)
    fail_after_the_record(notary, files)
    with pytest.raises(LogUnavailable):
        await erasing.erase(ALICE, **WHY)
    files.fault = None
    await fill(notary, first=3)
    assert await erasing.finish() == 2  # the old data key, and that of sealed parts
    assert body_of(tmp_path, ring, 1) is None
    assert body_of(tmp_path, ring, 3) == SECRET
    await fill(notary, first=5)
    assert [slot.state for slot in slots(tmp_path)] == [DESTROYED, LIVE, LIVE]  # one of each
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


def decoded_id(tmp_path, leaf):
    return LogReader(tmp_path / "log").entry(leaf).event.id


async def test_the_socket_erases_holds_and_refuses_as_the_notary_does(tmp_path, ring) -> None:
    notary = await opened(tmp_path, ring)
    await fill(notary)
    path = tmp_path / "s"
    server = await serve(notary, path, erasing_of(notary, ring))
    client = NotaryClient(path)
    assert (await client.manage("hold", ALICE, **WHY))["leaf"] == 2
    with pytest.raises(HoldStands, match="officer"):
        await client.manage("erase", ALICE, **WHY)
    await client.manage("release", ALICE, **WHY)
    # Asked many times at once, it is done once.
    done = await asyncio.gather(*(client.manage("erase", ALICE, **WHY) for _ in range(5)))
    assert sorted(found["keys"] for found in done) == [0, 0, 0, 0, 1]
    assert len({found["leaf"] for found in done}) == 1
    with pytest.raises(NotFound):
        await client.manage("erase", "cc" * 16, **WHY)
    with pytest.raises(EventInvalid):
        await client.manage("forget", BOB, **WHY)
    await client.close()
    await server.close()
    server = await serve(notary, path)
    client = NotaryClient(path)
    with pytest.raises(EventInvalid, match="does not offer"):
        await client.manage("erase", BOB, **WHY)
    await client.close()
    await server.close()
    await notary.close()
