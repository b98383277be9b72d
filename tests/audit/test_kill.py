"""kill -9 under load, again and again: nothing acknowledged is ever lost or there twice."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from audit.keys import Keyring
from audit.log import Log
from audit.notary import Notary
from audit.reader import LogReader
from audit.testing import check_log
from audit.verify import verify_log
from bench.kills import ORIGIN as KILLED
from bench.kills import compare, kill_round
from tests.audit.worlds import ORIGIN, make_keyring, payloads_for, records, uuid

WRITER = """
import asyncio, os, sys
from pathlib import Path
import pytest

from audit.keys import Keyring
from audit.log import Log
from audit.notary import Notary
from tests.audit.worlds import ORIGIN, append, decision

async def main(folder, run):
    keyring = Keyring.load(folder / "keys")
    notary = await Notary.open(
        folder / "log", keyring, origin=ORIGIN, segment_bytes=200_000, checkpoint_interval_s=0.02
    )
    async def client(first):
        seq = first
        while True:
            event = decision(seq, instance=f"{run:08x}")
            receipt = await append(notary, event, 10)
            os.write(1, f"{event.id} {receipt.index}\\n".encode())
            seq += 8
    await asyncio.gather(*[client(first) for first in range(1, 9)])

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_ten_kills_under_load_lose_no_acknowledged_record(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    source = random.Random(2025)
    acknowledged = {}
    for run in range(1, 11):
        lines = await killed_writer(tmp_path, run, after=source.randrange(1, 400))
        acknowledged.update((event, int(index)) for event, index in lines)
    assert len(acknowledged) >= 10
    await reopen(tmp_path, ring)
    stored = {entry.event.id: entry for entry in LogReader(tmp_path / "log").entries()}
    assert {event: stored[event].index for event in acknowledged} == acknowledged
    findings = check_after_kills(tmp_path / "log", ring)
    assert findings.leaves == findings.signed_leaves >= len(acknowledged)
    reader = LogReader(tmp_path / "log")
    for event in acknowledged:
        seq = stored[event].event.seq
        if seq % 10 == 0:
            assert reader.payload(ring, event, "input") == payloads_for(seq)["input"]


async def killed_writer(folder, run, *, after):
    """Start a writer, kill it once it acknowledged `after` records; all that it acknowledged."""
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(folder), str(run),
        stdout=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    output = b""
    while output.count(b"\n") < after:
        chunk = await process.stdout.read(4096)
        assert chunk, "the writer died by itself"
        output += chunk
    process.kill()
    output += await process.stdout.read()
    await process.wait()
    whole = output[: output.rindex(b"\n")].decode()
    return [line.split() for line in whole.split("\n")]


async def reopen(folder, ring: Keyring):
    """The next start: recovery, and a checkpoint over what was found."""
    notary = await Notary.open(folder / "log", ring, origin=ORIGIN)
    await notary.close()


def check_after_kills(directory, ring):
    """Everything holds; only numbers that no answer left with may be missing."""
    findings = verify_log(directory, ring.verifier_key(ORIGIN))
    assert [str(p) for p in findings.problems if p.step != 7] == []
    return findings


def test_the_check_used_above_is_not_blind(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    asyncio.run(reopen(tmp_path, ring))
    assert check_log(tmp_path / "log", ring.verifier_key(ORIGIN)).leaves == 0


async def test_kills_of_the_notary_and_of_writers_lose_nothing_and_double_nothing(tmp_path):
    tally = await kill_round(tmp_path / "round", 8, seed=4)
    assert (tally.lost, tally.twice, tally.problems) == ([], [], [])
    assert min(tally.kills) >= 2
    assert tally.acknowledged > 300


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [101, 102])
async def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path, seed):
    tally = await kill_round(tmp_path / "round", 50, seed=seed)
    assert (tally.lost, tally.twice, tally.problems) == ([], [], [])


async def test_a_lost_and_a_doubled_record_would_be_counted(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    log = Log.open(tmp_path / "log", ring, origin=KILLED)
    log.append(records(1, 2, 2, 3))
    log.publish()
    log.close()
    said = {uuid(seq + (10 << 24)): leaf for seq, leaf in ((1, 0), (2, 2), (3, 2), (4, 4))}
    tally = await compare(tmp_path, said, (0, 0))
    assert tally.lost == [uuid(seq + (10 << 24)) for seq in (3, 4)]
    assert tally.twice == [uuid(2 + (10 << 24))]
    assert any("already recorded" in problem for problem in tally.problems)
