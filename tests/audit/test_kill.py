"""kill -9 under load, ten times on one directory: nothing acknowledged is ever lost."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.testing import check_log
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, make_keyring, payloads_for

WRITER = """
import asyncio, os, sys
from pathlib import Path
from audit.keys import Keyring
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
