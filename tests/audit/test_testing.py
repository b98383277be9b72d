import pytest

from audit.errors import EventConflict, LeafPruned, LogUnavailable
from audit.reader import LogReader
from audit.testing import MemoryNotary, MemoryReader
from tests.audit.worlds import append, build_world, decision, leaf_of, payloads_for


async def test_the_double_gives_the_receipts_of_the_real_one():
    notary = MemoryNotary("example.com/double")
    receipt = await append(notary, decision(5), 5)
    assert receipt == ("example.com/double", 0, leaf_of(decision(5)))
    assert await append(notary, decision(5), 5) == receipt
    assert notary.entries[0].event == decision(5)
    assert notary.payloads[decision(5).id, "input"] == payloads_for(5)["input"]
    with pytest.raises(EventConflict):
        await notary.append(decision(5, label="other"))
    await notary.close()


@pytest.mark.parametrize(("fault", "stored"), [("not-stored", 0), ("stored", 1)])
async def test_the_double_fails_in_pairs(fault, stored):
    notary = MemoryNotary()
    notary.fault = fault
    with pytest.raises(LogUnavailable):
        await notary.append(decision(1))
    assert notary.size == stored
    notary.fault = None
    assert (await notary.append(decision(1))).index == 0
    assert notary.size == 1


@pytest.mark.parametrize(("start", "end"), [(None, None), (0, 3), (5, 6), (7, 50), (9, 9)])
async def test_the_double_of_a_reader_gives_what_the_real_one_does(tmp_path, start, end):
    world = await build_world(tmp_path, [4, 4, 2])
    real = LogReader(world.directory)
    double = MemoryReader(list(real.entries()), group=4)
    assert (double.size(), double.first()) == (real.size(), real.first())
    assert list(double.raw(start, end)) == list(real.raw(start, end))
    assert double.given == len(list(real.raw(start, end)))
    with pytest.raises(LeafPruned):
        next(MemoryReader(list(real.entries()), begins=5).raw(4))
