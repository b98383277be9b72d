"""An id is stored once, however old its record is: from memory, from runs, and after a restart."""

import asyncio
import errno
import os
import random
import shutil
import threading
from array import array
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import idruns, olderids
from audit.errors import EventConflict, LogUnavailable
from audit.fsck import inspect
from audit.idrun import _in_order, key_of, write_run
from audit.idruns import IdRuns
from audit.notary import Notary
from audit.olderids import OlderIds
from audit.record import encode, new_id, now_us
from audit.testing import check_log
from tests.audit.worlds import ORIGIN, decision, leaf_of, make_keyring

SMALL = {"remembered": 64, "max_pending": 16}


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


async def opened(tmp_path, ring, **options):
    return await Notary.open(tmp_path / "log", ring, origin=ORIGIN, **(SMALL | options))


async def fill(notary, count, first=1):
    for start in range(first, first + count, 16):
        group = range(start, min(start + 16, first + count))
        await asyncio.gather(*[notary.append(decision(seq)) for seq in group])


async def answered(notary, seq):
    """The leaf of a retry, however often it is told to try again."""
    while True:
        with suppress(LogUnavailable):
            return (await notary.append(decision(seq))).index
        await asyncio.sleep(0.01)


async def test_a_retry_finds_its_record_however_old_it_is(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    await fill(notary, 1000)
    for seq in (1, 2, 500, 900, 935, 937, 1000):
        receipt = await notary.append(decision(seq))
        assert receipt == (ORIGIN, seq - 1, leaf_of(decision(seq)))
        with pytest.raises(EventConflict):
            await notary.append(decision(seq, label="<=50K"))
    assert notary.size == 1000
    late = decision(1001, id=decision(0).id)
    assert (await notary.append(late)).index == 1000  # older than all, and new
    assert list((tmp_path / "log" / "ids").glob("*.run"))
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("fault", ["emptied", "cut", "removed", "all removed"])
async def test_a_run_may_be_lost_under_a_living_notary(tmp_path, ring, fault):
    notary = await opened(tmp_path, ring)
    await fill(notary, 1000)
    assert (await notary.append(decision(300))).index == 299  # what was forgotten is in runs now
    runs = sorted((tmp_path / "log" / "ids").glob("*.run"))
    if fault == "emptied":
        os.truncate(runs[4], 0)
    elif fault == "cut":
        os.truncate(runs[4], 100)
    else:
        for path in runs if fault == "all removed" else [runs[4]]:
            path.unlink()
    for seq in (1, 140, 150, 160, 170, 500, 700, 1000):
        assert await answered(notary, seq) == seq - 1
    await fill(notary, 100, first=1001)
    assert await answered(notary, 150) == 149
    assert notary.size == 1100
    await notary.close()
    notary = await opened(tmp_path, ring)
    assert (await notary.append(decision(150))).index == 149
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_a_lost_run_takes_no_id_with_it_that_no_run_vouched_for(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    await fill(notary, 1000)
    assert (await notary.append(decision(300))).index == 299
    os.truncate(max((tmp_path / "log" / "ids").glob("*.run")), 0)
    for seq in range(1000, 800, -1):
        assert await answered(notary, seq) == seq - 1
    assert notary.size == 1000
    await notary.close()


@pytest.mark.parametrize("restarts", [1, 2])
async def test_an_id_that_was_never_remembered_is_known_after_a_restart(tmp_path, ring, restarts):
    notary = await opened(tmp_path, ring)
    await fill(notary, 20)
    stored = asyncio.get_running_loop().create_future()
    own = decision(21)
    notary.submit(own.id, encode(own), lambda *told: stored.set_result(told), once=True)
    receipt = (await stored)[0]
    await fill(notary, 800, first=22)
    for _ in range(restarts):
        await notary.close()
        notary = await opened(tmp_path, ring)
        await fill(notary, 200, first=notary.size + 1)
    assert await notary.append(own) == receipt
    with pytest.raises(EventConflict):
        await notary.append(decision(21, label="<=50K"))
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


@pytest.mark.parametrize("restarts", [1, 2])
async def test_a_run_of_an_earlier_version_vouches_for_no_leaf_of_the_log(tmp_path, ring, restarts):
    notary = await opened(tmp_path, ring)
    await fill(notary, 400)
    await notary.close()
    as_earlier_versions(tmp_path / "log", {decision(seq).id: seq - 1 for seq in range(22, 301)})
    for _ in range(restarts):
        notary = await opened(tmp_path, ring)
        assert (await notary.append(decision(21))).index == 20
        assert (await notary.append(decision(250))).index == 249
        with pytest.raises(EventConflict):
            await notary.append(decision(20, label="<=50K"))
        await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert not [one for one in ids_seen(tmp_path, ring) if one.level != "note"]


def as_earlier_versions(log, ids):
    """One run; it says that the ids of all leaves before its last one are in it."""
    shutil.rmtree(log / "ids")
    (log / "ids").mkdir()
    path = write_run(log / "ids" / "00000000.run", ids, max(ids.values()) + 1).path
    path.write_bytes(path.read_bytes().replace(b"WBIDS2", b"WBIDS1", 1))


def ids_seen(tmp_path, ring):
    report = inspect(tmp_path / "log", ring.verifier_key(ORIGIN))
    return [one for one in report.seen if one.path.startswith("ids")]


async def test_a_run_that_cannot_be_opened_now_is_not_thrown_away(tmp_path, ring, monkeypatch):
    notary = await opened(tmp_path, ring)
    await fill(notary, 400)
    await notary.close()
    runs = sorted((tmp_path / "log" / "ids").glob("*.run"))

    def too_many(path):
        raise OSError(errno.EMFILE, "injected", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(idruns, "read_run", too_many)
        with pytest.raises(LogUnavailable, match="ids of older records"):
            await opened(tmp_path, ring)
    assert sorted((tmp_path / "log" / "ids").glob("*.run")) == runs
    await (await opened(tmp_path, ring)).close()


async def test_other_files_beside_the_runs_are_left_alone(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    await fill(notary, 400)
    await notary.close()
    ids = tmp_path / "log" / "ids"
    runs = {path.name: path.read_bytes() for path in ids.glob("*.run")}
    others = {"00000000-old.run": runs["00000000.run"], "notes.run": b"of others"}
    for name, data in others.items():
        (ids / name).write_bytes(data)
    report = inspect(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert {one.path: one.level for one in report.seen if one.path.startswith("ids/")} == {
        f"ids/{name}": "note" for name in others
    }
    await (await opened(tmp_path, ring)).close()
    found = {path.name: path.read_bytes() for path in ids.iterdir()}
    assert found.items() >= (runs | others).items()


async def test_the_runs_of_another_log_are_not_believed(tmp_path, ring):
    other = await opened(tmp_path / "other", ring)
    await fill(other, 300, first=1001)
    await other.close()
    notary = await opened(tmp_path, ring)
    await fill(notary, 500)
    await notary.close()
    shutil.rmtree(tmp_path / "log" / "ids")
    shutil.copytree(tmp_path / "other" / "log" / "ids", tmp_path / "log" / "ids")
    notary = await opened(tmp_path, ring)
    for seq in (1, 10, 300, 500):
        assert await answered(notary, seq) == seq - 1
    assert notary.size == 500
    await notary.close()


@pytest.mark.parametrize("lost", ["nothing", "all", "the last", "half of one", "a byte"])
async def test_after_a_restart_too_whatever_became_of_the_files(tmp_path, ring, lost):
    notary = await opened(tmp_path, ring)
    await fill(notary, 700)
    await notary.close()
    runs = sorted((tmp_path / "log" / "ids").glob("*.run"))
    if lost == "all":
        for path in runs:
            path.unlink()
    elif lost == "the last":
        runs[-1].unlink()
    elif lost == "half of one":
        runs[3].write_bytes(runs[3].read_bytes()[:200])
    elif lost == "a byte":
        data = bytearray(runs[3].read_bytes())
        data[-9] ^= 1
        runs[3].write_bytes(data)
    notary = await opened(tmp_path, ring)
    for seq in (1, 100, 350, 640, 700):
        assert (await notary.append(decision(seq))).index == seq - 1
    await fill(notary, 300, first=701)
    for seq in (1, 350, 699, 701, 930):
        assert (await notary.append(decision(seq))).index == seq - 1
    assert notary.size == 1000
    await notary.close()


async def test_two_retries_at_once_get_one_receipt_and_a_new_id_among_old_ones_is_stored(
    tmp_path, ring
):
    notary = await opened(tmp_path, ring)
    await fill(notary, 300)
    twice = await asyncio.gather(*[notary.append(decision(5)) for _ in range(5)])
    assert {receipt.index for receipt in twice} == {4}
    late = decision(3, id="01994f00-0000-7000-9000-000000000003")
    assert late.id > decision(3).id
    assert (await notary.append(late)).index == 300
    assert (await notary.append(late)).index == 300
    await notary.close()


async def test_the_same_key_of_another_id_is_no_retry(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    await fill(notary, 300)
    other = decision(2, id="01994eff-ffff-7000" + decision(2).id[18:])
    assert key_of(other.id) == key_of(decision(2).id)
    mixed = decision(7, id="01994f00-0000-7001" + decision(2).id[18:])
    for event in (other, mixed):
        found = await asyncio.gather(notary.append(event), notary.append(event))
        assert len({receipt.index for receipt in found}) == 1
    assert notary.size == 302
    await notary.close()


async def test_a_retry_finds_its_record_although_the_marker_was_replaced(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    await fill(notary, 100)
    marker = tmp_path / "log" / "committed"
    (tmp_path / "copy").write_bytes(marker.read_bytes())
    (tmp_path / "copy").replace(marker)
    await fill(notary, 300, first=101)
    assert (await notary.append(decision(150))).index == 149
    assert notary.size == 400
    await notary.close()


async def test_clocks_that_differ_make_no_second_record(tmp_path, ring):
    notary = await opened(tmp_path, ring)
    source, events = random.Random(7), []
    for seq in range(1, 601):
        skew = source.randrange(-3_600_000_000, 3_600_000_000)
        name = new_id(clock=lambda seq=seq, skew=skew: 1_790_000_000_000_000 + seq + skew)
        events.append(decision(seq, id=name))
        await notary.append(events[-1])
    for event in source.sample(events, 100):
        assert (await notary.append(event)).index == event.seq - 1
    await notary.close()


def read_slowly(log, monkeypatch):
    """Have the next start read all ids again, which goes on when this event is set."""
    for path in (log / "ids").glob("*.run"):
        path.unlink()
    go_on, real = threading.Event(), OlderIds._take

    def slow(self, start, end):
        go_on.wait(30)
        real(self, start, end)

    monkeypatch.setattr(olderids, "_AT_ONCE", 100)
    monkeypatch.setattr(OlderIds, "_take", slow)
    return go_on


async def test_while_a_large_log_is_read_an_old_id_is_refused_and_a_new_one_stored(
    tmp_path, ring, monkeypatch
):
    notary = await opened(tmp_path, ring)
    await fill(notary, 500)
    await notary.close()
    go_on = read_slowly(tmp_path / "log", monkeypatch)
    notary = await opened(tmp_path, ring)
    with pytest.raises(LogUnavailable, match="being read"):
        await notary.append(decision(3))
    assert (await notary.append(decision(501, id=new_id()))).index == 500
    assert (await notary.append(decision(499))).index == 498
    go_on.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await notary.append(decision(3))).index == 2
                break
            except LogUnavailable:
                await asyncio.sleep(0.01)
    await notary.close()


YEAR_US = 365 * 86_400 * 1_000_000


@pytest.mark.parametrize("ahead_us", [0, YEAR_US])
@pytest.mark.parametrize("place", ["far back", "last"])
async def test_while_a_large_log_is_read_no_clock_makes_an_id_twice_or_a_new_one_old(
    tmp_path, ring, monkeypatch, ahead_us, place
):
    """The other records are of a clock that was set back."""
    notary = await opened(tmp_path, ring)
    odd = decision(501, id=new_id(clock=lambda: now_us() + ahead_us))
    await fill(notary, 250)
    if place == "far back":
        await notary.append(odd)
    await fill(notary, 250, first=251)
    if place == "last":
        await notary.append(odd)
    await notary.close()
    go_on = read_slowly(tmp_path / "log", monkeypatch)
    notary = await opened(tmp_path, ring)
    try:
        assert (await notary.append(decision(502, id=new_id()))).index == 501
        with suppress(LogUnavailable):  # better late than twice
            await notary.append(odd)
        with pytest.raises(LogUnavailable, match="being read"):
            await notary.append(decision(503, id=new_id(clock=lambda: now_us() + YEAR_US)))
        assert notary.size == 502
    finally:
        go_on.set()
        await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_what_could_not_be_read_is_read_later_and_never_taken_for_known(
    tmp_path, ring, monkeypatch
):
    notary = await opened(tmp_path, ring)
    await fill(notary, 500)
    await notary.close()
    for path in (tmp_path / "log" / "ids").glob("*.run"):
        path.unlink()
    tried, real = [], OlderIds._take

    def fails_at_first(self, start, end):
        tried.append(start)
        if len(tried) < 3:
            raise OSError(24, "too many open files")
        real(self, start, end)

    monkeypatch.setattr(olderids, "_AT_ONCE", 100)
    monkeypatch.setattr(OlderIds, "_take", fails_at_first)
    notary = await opened(tmp_path, ring)
    since = {seq: decision(seq, id=new_id()) for seq in range(501, 901)}
    for event in since.values():
        await notary.append(event)
    await notary.close()
    assert len(tried) >= 3
    notary = await opened(tmp_path, ring)
    for seq in (1, 3, 300, 500):
        assert await answered(notary, seq) == seq - 1
    for seq in (501, 900):
        assert (await notary.append(since[seq])).index == seq - 1
    await notary.close()


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), RuntimeError("a fault")])
async def test_where_the_log_cannot_be_looked_at_all_learn_of_it_and_may_try_again(
    tmp_path, ring, monkeypatch, error
):
    notary = await opened(tmp_path, ring)
    await fill(notary, 300)

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(OlderIds, "_confirm", fails)
        async with asyncio.timeout(10):
            late = [notary.append(decision(5)) for _ in range(3)]
            found = await asyncio.gather(*late, return_exceptions=True)
    assert [type(refused) for refused in found] == [LogUnavailable] * 3
    assert (await notary.append(decision(5))).index == 4
    await notary.close()


async def test_a_late_retry_is_answered_when_the_notary_closes(tmp_path, ring, monkeypatch):
    notary = await opened(tmp_path, ring)
    await fill(notary, 300)
    go_on, real = threading.Event(), OlderIds._confirm

    def slow(self, leaves, event_id):
        go_on.wait(30)
        return real(self, leaves, event_id)

    monkeypatch.setattr(OlderIds, "_confirm", slow)
    late = [asyncio.ensure_future(notary.append(decision(seq))) for seq in (5, 6)]
    await asyncio.sleep(0.05)
    closing = asyncio.ensure_future(notary.close())
    await asyncio.sleep(0.05)
    go_on.set()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*late, return_exceptions=True)
        await closing
    for seq, one in zip((5, 6), found, strict=True):
        assert isinstance(one, LogUnavailable) or one.index == seq - 1


async def test_a_full_disk_costs_memory_and_no_second_record(tmp_path, ring, monkeypatch):
    notary = await opened(tmp_path, ring)

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(IdRuns, "write", full)
    await fill(notary, 400)
    assert (await notary.append(decision(3))).index == 2
    monkeypatch.undo()
    await fill(notary, 100, first=401)
    assert (await notary.append(decision(3))).index == 2
    await notary.close()
    assert (tmp_path / "log" / "ids").exists()


async def test_a_pruned_record_is_named_and_not_stored_again(tmp_path, ring, monkeypatch):
    notary = await opened(tmp_path, ring)
    await fill(notary, 400)
    monkeypatch.setattr(olderids, "first_kept", lambda _: 100)
    with pytest.raises(EventConflict, match="leaf 2, which was pruned"):
        await notary.append(decision(3))
    assert (await notary.append(decision(200))).index == 199
    await notary.close()


names = st.one_of(st.uuids().map(str), st.text(max_size=40).filter(lambda t: "\x00" not in t))


@settings(max_examples=50)
@given(st.dictionaries(names, st.integers(0, 2**40), min_size=1, max_size=40), st.data())
def test_a_run_finds_what_was_written_and_reads_back_the_same(tmp_path_factory, ids, data):
    folder = tmp_path_factory.mktemp("runs")
    runs = IdRuns(folder)
    some = dict(list(ids.items())[: len(ids) // 2 + 1])
    runs.write(some, 10)
    runs.write(ids, 20)
    again = IdRuns(folder)
    again.load(20)
    assert again.covered == 20
    assert again.greatest() == max(ids)
    for name, leaf in ids.items():
        assert leaf in runs.find(name)
        assert leaf in again.find(name)
    strange = data.draw(names)
    if all(key_of(strange) != key_of(name) for name in ids):
        assert again.find(strange) == []
    again.load(19)  # the second run is of a longer log
    assert again.covered == 10
    assert all(leaf in again.find(name) for name, leaf in some.items())
    again.load(9)
    assert (again.covered, again.find(next(iter(ids)))) == (0, [])
    assert not list((folder / "ids").iterdir())


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(2**63, 2**63 + 9), max_size=300))
def test_keys_are_put_in_order_in_pieces(keys):
    order = _in_order(array("Q", keys))
    assert sorted(order) == list(range(len(keys)))
    assert [keys[place] for place in order] == sorted(keys)
