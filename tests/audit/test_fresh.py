"""What the writer hands over: the same tree, whatever of it is taken, missed or thrown away."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import fresh as module
from audit.bundle import format_bundle
from audit.fresh import Fresh, Stored
from audit.merkle import leaf_hashes
from audit.notary import Notary
from audit.publish import Publisher
from audit.testing import check_log
from tests.audit.worlds import ORIGIN, append, decision, make_keyring


def stored(first, count):
    entries = [b"entry %d" % (first + n) for n in range(count)]
    return Stored(first, entries, leaf_hashes(entries), format_bundle(entries))


def test_groups_are_taken_in_order_and_once():
    fresh = Fresh()
    fresh.add(stored(0, 3))
    fresh.add(stored(3, 2))
    assert fresh.take(0, 2) is None, "it ends behind what may be believed"
    assert fresh.take(0, 5).first == 0
    assert fresh.take(3, 5).first == 3
    assert fresh.take(5, 9) is None


def test_what_was_read_elsewhere_is_passed_over_and_a_hole_is_not():
    fresh = Fresh()
    for first in (0, 2, 4, 8):
        fresh.add(stored(first, 2))
    assert fresh.take(4, 10).first == 4
    assert fresh.take(6, 10) is None, "leaves 6 and 7 are not here"
    assert fresh.take(8, 10).first == 8
    assert fresh.take(10, 20) is None


@given(st.lists(st.integers(1, 9), max_size=30), st.data())
def test_taken_groups_follow_one_another(sizes, data):
    fresh, first, groups = Fresh(), 0, []
    for size in sizes:
        groups.append(stored(first, size))
        first += size
        if data.draw(st.booleans()):
            fresh.add(groups[-1])
    size, upto = 0, data.draw(st.integers(0, first))
    while size < upto:
        group = fresh.take(size, upto)
        if group is None:  # the log is read
            size = next(g.first + len(g.entries) for g in groups if g.first >= size)
        else:
            assert group in groups
            assert group.first == size
            size += len(group.entries)
            assert size <= upto


def test_memory_is_bounded_when_nobody_takes(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    fresh = Fresh()
    for first in range(0, 10_000, 10):
        fresh.add(stored(first, 10))
        assert sum(len(group.bundle) for group in fresh._groups) <= 1000 + 2 * 150
    taken = fresh.take(9_990, 10_000)
    assert taken is None or taken.first == 9_990


@pytest.mark.parametrize("most", [0, 3_000, 16 << 20])
async def test_tiles_and_checkpoint_are_the_same_however_much_was_handed_over(
    tmp_path, monkeypatch, most
):
    monkeypatch.setattr(module, "_MOST_BYTES", most)
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, checkpoint_interval_s=0.05)
    for first in range(1, 1500, 100):
        await asyncio.gather(
            *(append(notary, decision(seq), 5) for seq in range(first, first + 100))
        )
    await notary.close()
    assert check_log(tmp_path / "log", ring.verifier_key(ORIGIN)).signed_leaves == 1500


async def test_nothing_is_read_back_that_was_handed_over(tmp_path, monkeypatch):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    publisher: Publisher = notary._log._publisher
    read = []
    monkeypatch.setattr(publisher._cursor, "seek", read.append)
    await asyncio.gather(*(append(notary, decision(seq)) for seq in range(1, 700)))
    await notary.checkpoint()
    assert read == []
    assert notary.signed.size == 699
    await notary.close()


async def test_the_signer_pauses_between_pieces_of_work(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    paused = []
    notary._log.pause_with(lambda: paused.append(threading.current_thread().name))
    await asyncio.gather(*(append(notary, decision(seq)) for seq in range(1, 1025)))
    await notary.close()
    assert len(paused) >= 16
    assert {name.rpartition("_")[0] for name in paused} == {"audit-signer"}
