import asyncio

import pytest

from audit.errors import (
    EntryTooLarge,
    EventConflict,
    LogLocked,
    LogOverloaded,
    LogUnavailable,
)
from audit.files import OsFiles
from audit.notary import Notary
from audit.prove import verify_proof
from audit.reader import LogReader
from audit.record import encode
from audit.testing import FaultyFiles, check_log
from tests.audit.worlds import ORIGIN, append, decision, leaf_of, make_keyring, payloads_for


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
async def notary(tmp_path, ring):
    opened = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    yield opened
    await opened.close()


async def test_a_receipt_names_the_log_the_leaf_and_its_hash(notary):
    receipt = await notary.append(decision(1))
    assert receipt == (ORIGIN, 0, leaf_of(decision(1)))
    assert (notary.origin, notary.size) == (ORIGIN, 1)


async def test_many_tasks_append_and_each_finds_its_own_record(notary, tmp_path):
    receipts = await asyncio.gather(*[append(notary, decision(n), 9) for n in range(1, 501)])
    entries = {entry.index: entry.event for entry in LogReader(tmp_path / "log").entries()}
    for seq, receipt in enumerate(receipts, start=1):
        assert entries[receipt.index] == decision(seq)
    assert len({receipt.index for receipt in receipts}) == 500


class Watched(OsFiles):
    """Notes what was written and what was durable, in order."""

    def __init__(self):
        self.events = []

    def write(self, fd, data, offset):
        self.events.append(("write", bytes(data)))
        return super().write(fd, data, offset)

    def fdatasync(self, fd):
        super().fdatasync(fd)
        self.events.append(("synced", fd))

    def fdatasync_soon(self, syncer, pieces, done):
        def told(error):
            self.events += [("synced", piece.fd) for piece in pieces]
            done(error)

        super().fdatasync_soon(syncer, pieces, told)


async def test_a_record_is_synced_before_its_append_returns(tmp_path, ring):
    files = Watched()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    for number in (1, 2, 3):  # the first makes room; the others go the way without a thread
        await notary.append(decision(number))
        written = [
            place
            for place, (what, data) in enumerate(files.events)
            if what == "write" and encode(decision(number)) in data
        ]
        assert len(written) == 1
        assert ("synced") in [what for what, _ in files.events[written[0] :]]
        assert LogReader(tmp_path / "log").size() == number
    await notary.close()


async def test_an_async_append_returns_before_the_sync(tmp_path, ring):
    order = []

    class Watched(OsFiles):
        def fdatasync(self, fd):
            order.append("sync")
            super().fdatasync(fd)

    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, files=Watched(), durability="async"
    )
    order.clear()
    await notary.append(decision(1))
    await notary.append(decision(2), durability="strict")
    await notary.close()
    assert "sync" in order
    assert "sync" in order
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_what_queues_while_the_disk_is_busy_becomes_one_group(tmp_path, ring):
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    before = files.calls
    await asyncio.gather(*[notary.append(decision(n)) for n in range(1, 201)])
    assert files.calls - before < 100
    await notary.close()


async def test_the_same_event_again_gives_the_same_receipt(notary):
    first = await notary.append(decision(1))
    assert await notary.append(decision(1)) == first
    together = await asyncio.gather(*[notary.append(decision(2)) for _ in range(5)])
    assert len(set(together)) == 1
    assert notary.size == 2


@pytest.mark.parametrize("durability", ["strict", "bounded", "async"])
async def test_an_event_that_comes_once_is_stored_told_and_not_remembered(
    notary, tmp_path, durability
):
    told = []
    for number in (1, 2):  # the second shows that the first was not remembered
        data = encode(decision(1, label=f"label {number}"))
        notary.submit(
            decision(1).id, data, lambda *how: told.append(how), durability=durability, once=True
        )
    await append(notary, decision(2))
    assert [error for _, error in told] == [None, None]
    assert {receipt.leaf_hash for receipt, _ in told} == {
        leaf_of(decision(1, label=f"label {number}")) for number in (1, 2)
    }
    assert len(list(LogReader(tmp_path / "log").raw())) == 3
    # Whoever does ask for the id is a first one, where a remembered id would be a conflict.
    await notary.append(decision(1, label="label 3"), durability="strict")


async def test_a_used_id_with_other_content_is_refused(notary):
    await notary.append(decision(1))
    with pytest.raises(EventConflict):
        await notary.append(decision(1, label="<=50K"))
    assert notary.size == 1


async def test_a_restart_remembers_the_ids_at_the_tail(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    first = await notary.append(decision(1))
    await notary.close()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    assert await notary.append(decision(1)) == first
    assert notary.size == 1
    await notary.close()


async def test_a_cancelled_append_is_still_written_and_leaves_no_gap(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    tasks = [asyncio.create_task(notary.append(decision(n))) for n in range(1, 11)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in done) == 5
    await notary.close()
    assert check_log(tmp_path / "log", ring.verifier_key(ORIGIN)).leaves == 10


async def test_an_entry_that_is_too_large_is_refused_and_harms_nobody(notary):
    with pytest.raises(EntryTooLarge):
        await notary.append(decision(1, label="x" * 70_000))
    assert (await notary.append(decision(1))).index == 0


async def test_more_waiting_appends_than_allowed_are_refused_at_once(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, max_pending=10)
    tries = [notary.append(decision(n)) for n in range(1, 41)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    refused = [result for result in done if isinstance(result, Exception)]
    assert refused
    assert all(isinstance(result, LogOverloaded) for result in refused)
    assert notary.size == 40 - len(refused)
    await notary.close()


async def test_a_closed_notary_refuses_and_closing_twice_is_harmless(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    await notary.close()
    await notary.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await notary.append(decision(1))


async def test_closing_waits_for_what_is_queued_and_signs_it(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=3600)
    tasks = [asyncio.create_task(notary.append(decision(n))) for n in range(1, 101)]
    await asyncio.sleep(0)
    await notary.close()
    await asyncio.gather(*tasks)
    findings = check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert (findings.leaves, findings.signed_leaves) == (100, 100)


async def test_a_second_notary_is_locked_out(notary, tmp_path, ring):
    with pytest.raises(LogLocked):
        await Notary.open(tmp_path / "log", ring, origin=ORIGIN)


async def test_checkpoints_are_signed_by_number_of_records(tmp_path, ring):
    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=3600, checkpoint_entries=20
    )
    for seq in range(1, 2000):
        await notary.append(decision(seq))
        if notary.signed.size >= 20:
            break
    assert notary.signed.size >= 20
    await notary.close()


async def test_checkpoints_are_signed_by_time(tmp_path, ring):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=0.01)
    await notary.append(decision(1))
    async with asyncio.timeout(30):
        while notary.signed.size < 1:  # noqa: ASYNC110 - the claim is that it happens by itself
            await asyncio.sleep(0.01)
    await notary.close()


async def test_a_checkpoint_that_cannot_be_signed_is_said_once_and_so_is_its_end(
    tmp_path, ring, monkeypatch, caplog
):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=0.01)
    publish, tried = notary._log.publish, []

    def full():
        tried.append(1)
        if len(tried) <= 5:
            raise LogUnavailable("no space left on device")
        return publish()

    monkeypatch.setattr(notary._log, "publish", full)
    await notary.append(decision(1))
    async with asyncio.timeout(30):
        while notary.signed.size < 1:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    await notary.close()
    assert [record.getMessage() for record in caplog.records] == [
        "could not sign a checkpoint: no space left on device",
        "checkpoints are signed again",
    ]


async def test_whatever_goes_wrong_in_preparing_the_log_is_signed_all_the_same(
    tmp_path, ring, monkeypatch
):
    notary = await Notary.open(
        tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=0.2, checkpoint_entries=20
    )
    failed = []

    def fails():
        failed.append(1)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(notary._log, "prepare", fails)
    async with asyncio.timeout(30):
        for seq in range(1, 100_000):
            await notary.append(decision(seq))
            if failed and notary.signed.size > 100:
                break
    assert notary.signed.size > 100
    await notary.close()


async def test_any_durable_leaf_can_be_proved_at_once(notary, ring):
    for seq in range(1, 30):
        receipt = await notary.append(decision(seq))
        text = await notary.prove(receipt.index)
        proven = verify_proof(text, encode(decision(seq)), ring.verifier_key(ORIGIN))
        assert proven.index == receipt.index
        assert proven.checkpoint.origin == ORIGIN


async def test_payloads_come_back_and_go_with_their_subject(notary, tmp_path, ring):
    await notary.append(decision(1), payloads=payloads_for(1), subject="alice")
    await notary.append(decision(2), payloads=payloads_for(2), subject="bob")
    await notary.append(decision(3), payloads=payloads_for(3))
    reader = LogReader(tmp_path / "log")
    assert reader.payload(ring, decision(1).id, "input") == b"the input of 1"
    assert await notary.in_writer(lambda log: log.destroy("alice"))
    assert not await notary.in_writer(lambda log: log.destroy("alice"))
    assert reader.payload(ring, decision(1).id, "input") is None
    assert reader.payload(ring, decision(2).id, "output") == b"the output of 2"
    assert reader.payload(ring, decision(3).id, "output") == b"the output of 3"
    await notary.append(decision(4), payloads=payloads_for(4), subject="alice")
    assert reader.payload(ring, decision(4).id, "input") == b"the input of 4"
    assert reader.payload(ring, decision(1).id, "input") is None


async def test_a_failed_checkpoint_is_reported_and_made_up_for(tmp_path, ring, monkeypatch):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=3600)
    await notary.append(decision(1))

    def full(*_args, **_options):
        raise OSError(28, "injected")

    with monkeypatch.context() as patch:
        patch.setattr("audit.publish.replace_file", full)
        with pytest.raises(LogUnavailable):
            await notary.checkpoint()
    assert (await notary.append(decision(2))).index == 1
    assert (await notary.checkpoint()).size == 2
    await notary.close()
