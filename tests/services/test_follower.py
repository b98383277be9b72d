"""The explainer at work: whatever one decision is, the next one has its turn."""

import asyncio

import pytest

from audit.errors import LogUnavailable
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import ExplanationSkipped
from audit.seals import Seals
from services import follower as followers
from services.follower import Follower
from services.settings import Settings
from tests.audit.worlds import ORIGIN, decision, make_keyring

SELECTED = {"rule": "base", "probability": "1", "selected": True}


class NoShelf:
    """Where every artefact is a fault that nobody foresaw."""

    def get(self, model, version):
        raise ZeroDivisionError(f"{model}:{version}")


@pytest.fixture
async def place(tmp_path, monkeypatch):
    """A follower of a log that a notary writes; its pauses are short."""
    monkeypatch.setattr(followers, "_RETRY_S", 0.01)
    monkeypatch.setattr(followers, "_POLL_S", 0.01)
    keyring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", keyring, origin=ORIGIN)
    seals = Seals(tmp_path / "log", keyring, create=True)
    made = Follower(
        LogReader(tmp_path / "log"),
        notary,
        keyring,
        NoShelf(),
        Settings(home=tmp_path),
        seals=seals,
    )
    yield notary, made
    await made.close()
    await notary.close()


async def skipped(notary, count):
    """Decision and reason of each explanation that was not made, when there are so many."""
    async with asyncio.timeout(30):
        while True:
            found = [e.event for e in notary.reader().others()]
            done = [(e.decision, e.reason) for e in found if isinstance(e, ExplanationSkipped)]
            if len(done) >= count:
                return done
            await asyncio.sleep(0.01)


async def test_what_it_writes_is_on_disk_before_it_is_done(place, monkeypatch) -> None:
    notary, made = place
    append, modes = notary.append, []

    async def noted(event, *, durability=None, **beside):
        modes.append(durability)
        return await append(event, durability=durability, **beside)

    monkeypatch.setattr(notary, "append", noted)
    await made._skip(decision(1).id, "failed", "")
    made._following.unsent.append(decision(2))
    await made._write_windows(final=False)
    assert modes == ["strict", "strict"]  # whatever WEIGHBRIDGE_DURABILITY says


async def test_each_that_cannot_be_explained_is_skipped_with_its_reason(place, tmp_path) -> None:
    notary, made = place
    tensors = b"\x05\x00\x00\x00[]   "
    bodies = [b"not tensors", None, b"to be damaged", tensors]
    for seq, body in enumerate(bodies, 1):
        kept = {} if body is None else {"input": body}
        await notary.append(decision(seq, sampling=SELECTED), payloads=kept, subject=f"user {seq}")
    blobs = tmp_path / "log" / "blobs" / "00000000.seg"
    with blobs.open("r+b") as file:
        data = file.read()
        place_of = data.index(decision(3).id.encode())
        file.seek(place_of + 100)
        byte = data[place_of + 100]
        file.seek(place_of + 100)
        file.write(bytes([byte ^ 1]))
    await made.start()
    done = dict(await skipped(notary, 4))
    assert [done[decision(seq).id] for seq in range(1, 5)] == [
        "model_unavailable",
        "payload_missing",
        "payload_damaged",
        "failed",
    ]
    assert not made._following.pending
    await notary.append(decision(5, sampling=SELECTED))
    assert (decision(5).id, "payload_missing") in await skipped(notary, 5)
    assert len(await skipped(notary, 5)) == 5


def overwrite(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def test_a_decision_in_a_damaged_group_keeps_no_other_waiting(
    place, tmp_path, caplog
) -> None:
    notary, made = place
    for seq in (1, 2, 3):
        await notary.append(decision(seq, sampling=SELECTED))
    while made._following.read():
        pass
    assert list(made._following.pending) == [decision(seq).id for seq in (1, 2, 3)]
    segment = tmp_path / "log" / "wal" / "00000000000000000000.wal"
    at = segment.read_bytes().index(decision(1).id.encode())
    overwrite(segment, at, b"x")
    await made.start()
    async with asyncio.timeout(30):
        while len(made._following.pending) > 1:  # noqa: ASYNC110  its own task works
            await asyncio.sleep(0.01)
    assert list(made._following.pending) == [decision(1).id]
    overwrite(segment, at, decision(1).id[:1].encode())
    assert [one for one, _ in await skipped(notary, 3)] == [decision(seq).id for seq in (2, 3, 1)]
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if text.startswith("could not read a decision")]) == 1


async def test_each_time_that_the_explainer_waits_is_said_once(place, monkeypatch, caplog) -> None:
    notary, made = place
    read, faults = made._following.read, [1, 1, 1, 0, 1, 1]

    def fails():
        if faults and faults.pop(0):
            raise LogUnavailable("the notary is away")
        return read()

    monkeypatch.setattr(made._following, "read", fails)
    await made.start()
    async with asyncio.timeout(30):
        while faults:  # noqa: ASYNC110  its own task works
            await asyncio.sleep(0.01)
    await notary.append(decision(1, sampling=SELECTED))
    await skipped(notary, 1)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("the explainer waits: the notary is away") == 2


async def test_a_fault_that_nobody_foresaw_is_said_and_the_work_goes_on(
    place, monkeypatch, caplog
) -> None:
    notary, made = place
    await made.start()
    read = made._following.read
    faults = [KeyError("alice"), RuntimeError("alice")]

    def fails():
        if faults:
            raise faults.pop()
        return read()

    monkeypatch.setattr(made._following, "read", fails)
    await notary.append(decision(1, sampling=SELECTED))
    assert await skipped(notary, 1) == [(decision(1).id, "payload_missing")]
    assert "the explainer met a KeyError" in caplog.text
    assert "alice" not in caplog.text
