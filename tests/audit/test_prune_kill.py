"""kill -9 of a writer that always prunes: what is kept is whole, what went is on record."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from audit.complete import check_complete
from audit.errors import NotPrunable
from audit.index import Index
from audit.prove import prove, verify_proof
from audit.reader import LogReader
from audit.testing import check_log
from audit.verify import verify_log
from tests.audit.pruneworld import epoch, living
from tests.audit.worlds import ORIGIN, make_keyring

WRITER = """
import asyncio, os, sys
from contextlib import suppress
from pathlib import Path
from audit.errors import NotPrunable
from audit.keys import Keyring
from tests.audit.pruneworld import living
from tests.audit.worlds import append, decision

async def main(folder, run):
    async with living(folder, Keyring.load(folder / "keys"), "0s..") as log:
        await log.pruning.finish()
        log.hours = 1
        async def client(first):
            seq = first
            while True:
                event = decision(seq, instance=f"{run:08x}")
                receipt = await append(log.notary, event, 5)
                os.write(1, f"{event.id} {receipt.index}\\n".encode())
                seq += 4
        async def pruner():
            while True:
                await log.pruning.roll()
                await log.notary.checkpoint()
                with suppress(NotPrunable):
                    await log.prune()
        await asyncio.gather(pruner(), *[client(first) for first in range(1, 5)])

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def killed_pruner(folder, run, *, after):
    """Start it, kill it once it acknowledged `after` records; all that it acknowledged."""
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", WRITER, str(folder), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        lines = []
        while len(lines) < after:
            line = process.stdout.readline()
            assert line, "the writer died by itself"
            lines.append(line.decode().split())
        process.kill()
        rest = process.stdout.read().decode()
    lines += [line.split() for line in rest.splitlines() if rest.endswith("\n") or line]
    return [(words[0], int(words[1])) for words in lines if len(words) == 2 and words[1].isdigit()]


def test_five_kills_while_it_is_pruned(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    source, acknowledged = random.Random(16), dict[str, int]()
    for run in range(1, 6):
        found = killed_pruner(tmp_path, run, after=source.randrange(300, 1200))
        acknowledged.update(found[:-1])  # the last line may be cut short
        findings = verify_log(tmp_path / "log", ring.verifier_key(ORIGIN))
        # Before any recovery: only what a crash leaves, and numbers without an answer.
        odd = [str(p) for p in findings.problems if p.step not in (7, 8)]
        assert odd == [], findings.text()
    asyncio.run(finished(tmp_path, ring))
    findings = verify_log(tmp_path / "log", ring.verifier_key(ORIGIN))
    assert [str(p) for p in findings.problems if p.step != 7] == []
    first = LogReader(tmp_path / "log").first()
    assert first >= 256
    stored = {entry.event.id: entry.index for entry in LogReader(tmp_path / "log").entries()}
    for event, index in acknowledged.items():
        assert stored.get(event, -1) == (index if index >= first else -1)


async def finished(folder, ring) -> None:
    async with living(folder, ring) as log:
        await log.pruning.finish()


@pytest.mark.parametrize("seed", [2, 5, 8])
async def test_any_order_of_writing_ending_and_pruning_leaves_a_whole_log(tmp_path, seed) -> None:
    source, ring = random.Random(seed), make_keyring(tmp_path / "keys")
    key, directory = ring.verifier_key(ORIGIN), tmp_path / "log"
    seq, hours = 0, 0.0
    for _ in range(5):
        async with living(tmp_path, ring, "5h..") as log:
            log.seq, log.hours = seq, hours
            await log.notary.append(epoch())
            for _ in range(source.randint(1, 4)):
                if source.random() < 0.7:
                    unit = source.choice(["aa", "bb", "cc"]) * 16
                    await log.decide(
                        source.randint(1, 300), at=log.hours, payload=b"x", unit_ref=unit
                    )
                    log.hours += source.random() * 4
                else:
                    await log.pruning.roll()
                await log.notary.checkpoint()
                try:
                    await log.prune()
                except NotPrunable:
                    continue
            seq, hours = log.seq, log.hours
        check_log(directory, key)
        counted = check_complete(directory, key)
        assert counted.ok, counted.text()
        reader = LogReader(directory)
        first, size = reader.first(), reader.size()
        for leaf in {first, source.randrange(first, size), size - 1}:
            verify_proof(prove(reader, leaf), reader.entry(leaf).data, key)
        with Index(directory) as index:
            assert index.catch_up() == size
    assert first > 0
