"""kill -9 under load, again and again: is anything that was acknowledged missing, or there twice?

A round is a fresh log. A notary process owns it and listens on its socket; several writer processes
append through that, eight appends at a time each, and say on a pipe what was acknowledged. One of
them all is killed whenever a random number of acknowledgements has come, and started again: the
notary recovers, the writers that live send again what was not answered, a new writer begins a
series of its own. After the last kill of a round the log is opened once more and compared.
Rule: an acknowledgement counts as soon as the pipe has it, which is after the append returned. A
record that was written but never acknowledged may be there, once.
Read next: records.py.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import decode
from audit.seals import Seals
from audit.socket_link import NotaryClient, serve
from audit.verify import verify_log

from .figures import Figures
from .records import Maker

__all__ = ["ORIGIN", "Tally", "compare", "kill_round", "measure"]

ORIGIN = "example.com/bench"
_ROUND = 50
_WRITERS = 3
_APPENDS = 8
_KEPT = 10
_MOST_BETWEEN = 300
_ROOT = Path(__file__).resolve().parents[1]


class Tally(NamedTuple):
    """What a round of kills found.

    Attributes:
        kills: of the notary, and of writers.
        acknowledged: how many records were.
        lost: acknowledged, and not there, or at another leaf than was said.
        twice: ids that are there more than once.
        problems: what verifying found beside numbers that no answer left with.
    """

    kills: tuple[int, int]
    acknowledged: int
    lost: list[str]
    twice: list[str]
    problems: list[str]


def measure(found: Figures, directory: Path, *, kills: int) -> None:
    """`lost`: over so many kills, what was acknowledged and is missing, wrong or there twice."""
    bad, acknowledged, killed = 0, 0, [0, 0]
    for number in range(-(-kills // _ROUND)):
        folder = directory / f"{number}"
        count = min(_ROUND, kills - number * _ROUND)
        tally = asyncio.run(kill_round(folder, count, seed=number))
        bad += len(tally.lost) + len(tally.twice) + len(tally.problems)
        acknowledged += tally.acknowledged
        killed = [before + now for before, now in zip(killed, tally.kills, strict=True)]
        if tally.lost or tally.twice or tally.problems:
            print(f"kept for a look: {folder}", tally)
        else:
            shutil.rmtree(folder)
    found.note(
        "lost",
        bad,
        f"{killed[0]} kills of the notary, {killed[1]} of writers; {acknowledged:,} acknowledged",
    )


async def kill_round(folder: Path, kills: int, *, seed: int, writers: int = _WRITERS) -> Tally:
    """Kill one process after the other; then open the log and compare.

    Args:
        folder: made; holds keys, log and socket.
        kills: how many.
        seed: of what is killed, and when.
        writers: how many processes append.
    """
    draw = random.Random(seed)
    Keyring.load_or_create(folder / "keys")
    heard = _Heard()
    notary = await _start("notary", folder)
    series = iter(range(1, 1 << 30))
    alive = [await _start("writer", folder, next(series), heard) for _ in range(writers)]
    killed = [0, 0]
    for _ in range(kills):
        await heard.more(draw.randrange(1, _MOST_BETWEEN))
        if draw.random() < 0.5:
            await notary.kill()
            notary = await _start("notary", folder)
            killed[0] += 1
        else:
            place = draw.randrange(writers)
            await alive[place].kill()
            alive[place] = await _start("writer", folder, next(series), heard)
            killed[1] += 1
    await heard.more(_MOST_BETWEEN)  # what was under way at the last kill is answered by now
    for process in (notary, *alive):
        await process.kill()
    return await compare(folder, heard.acknowledged, (killed[0], killed[1]))


async def compare(folder: Path, acknowledged: dict[str, int], kills: tuple[int, int]) -> Tally:
    """Open the log of a round once more, and say what became of what was acknowledged."""
    keyring = Keyring.load(folder / "keys")
    notary = await Notary.open(folder / "log", keyring, origin=ORIGIN)
    await notary.close()
    reader, stored, numbers = LogReader(folder / "log"), {}, Counter[str]()
    for index, data in reader.raw():
        event = decode(data)
        stored[event.id] = index
        numbers[event.id] += 1
        kept = event.id in acknowledged and getattr(event, "seq", 1) % _KEPT == 0
        if kept and reader.payload(keyring, event.id, "input") is None:
            stored[event.id] = -1  # its payload is part of what was acknowledged
    findings = verify_log(folder / "log", keyring.verifier_key(ORIGIN))
    return Tally(
        kills,
        len(acknowledged),
        [event for event, index in acknowledged.items() if stored.get(event) != index],
        [event for event, count in numbers.items() if count > 1],
        # A killed process leaves holes: numbers whose answers never left.
        [str(problem) for problem in findings.problems if problem.step != 7],
    )


class _Heard:
    """What writers said was acknowledged: ids and leaves."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self._changed = asyncio.Event()

    def line(self, text: str) -> None:
        event, index = text.split()
        self.acknowledged[event] = int(index)
        self._changed.set()

    async def more(self, count: int) -> None:
        """Wait until so many more have come."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            self._changed.clear()
            async with asyncio.timeout(60):
                await self._changed.wait()


class _Started:
    """A process of ours, and who reads what it says."""

    def __init__(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        self._process, self._reading = process, reading

    async def kill(self) -> None:
        """SIGKILL, and read what it said before."""
        if self._process.returncode is not None:
            raise SystemExit("a process under test ended by itself")
        self._process.kill()
        await self._process.wait()
        await self._reading


async def _start(
    role: str, folder: Path, instance: int = 0, heard: _Heard | None = None
) -> _Started:
    """A notary that listens, or a writer that has begun."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.kills", role, str(folder), str(instance),
        stdout=subprocess.PIPE, cwd=_ROOT, env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )  # fmt: skip
    out = process.stdout
    if out is None or await out.readline() != b"ready\n":
        raise SystemExit(f"the {role} did not start")

    async def read() -> None:
        while (line := await out.readline()).endswith(b"\n"):
            if heard is not None:
                heard.line(line.decode())

    return _Started(process, asyncio.create_task(read()))


# --- the processes that are killed ------------------------------------------------------------


async def _be_notary(folder: Path) -> None:
    keyring = Keyring.load(folder / "keys")
    # Small segments and frequent checkpoints, so that kills meet every kind of step.
    notary = await Notary.open(
        folder / "log",
        keyring,
        origin=ORIGIN,
        segment_bytes=300_000,
        checkpoint_interval_s=0.02,
    )
    Seals(folder / "log", keyring, create=True)
    await serve(notary, folder / "socket")
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


async def _be_writer(folder: Path, instance: int) -> None:
    keyring = Keyring.load(folder / "keys", signing=False)
    maker = Maker(
        keyring, Seals(folder / "log", keyring), instance=f"{instance:08x}", kept=_KEPT, units=50
    )
    client = NotaryClient(folder / "socket", timeout_s=60)
    os.write(1, b"ready\n")

    async def append() -> None:
        for made in iter(maker.make, None):
            receipt = await client.append_encoded(made.id, made.data, payloads=made.payloads)
            os.write(1, f"{made.id} {receipt.index}\n".encode())

    await asyncio.gather(*[append() for _ in range(_APPENDS)])


def _main(role: str, folder: str, instance: str) -> None:
    if role == "notary":
        asyncio.run(_be_notary(Path(folder)))
    else:
        asyncio.run(_be_writer(Path(folder), int(instance)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
