"""Large logs: verifying one in full, and erasing one subject from it.

Rule 1: the logs are written by the notary itself, in large groups; nothing of a file is made up.
Rule 2: verification is timed in this process, on one core, with the files in the page cache (they
were just written); what it found is looked at.
Rule 3: erasing is timed as a running gateway does it: its notary is open, it has read the log's
erasures and holds at its start, and nothing was asked of the log since. How long that start takes
is said beside the figure.
Read next: records.py.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from audit.erasing import Erasing
from audit.errors import AuditError
from audit.keys import Keyring
from audit.notary import Notary
from audit.receipts import Receipt
from audit.seals import Seals
from audit.verify import verify_log

from .appends import ORIGIN
from .figures import Figures
from .records import Maker

__all__ = ["measure_erasing", "measure_verifying"]

_AT_ONCE = 24


def measure_verifying(found: Figures, directory: Path, *, records: int) -> None:
    """`verify_leaves_per_s`, of a log as gateways write it: one payload in a hundred records."""
    keyring = asyncio.run(_grow(directory, records, kept=100))
    best, key = 0.0, keyring.verifier_key(ORIGIN)
    for _ in range(3):
        began = time.process_time()
        findings = verify_log(directory / "log", key)
        took = time.process_time() - began
        if not findings.ok or findings.leaves != records:
            raise SystemExit(f"the log does not verify:\n{findings.text()}")
        best = max(best, records / took)
    found.note("verify_leaves_per_s", round(best), f"{records:,} leaves, one process, best of 3")


def measure_erasing(found: Figures, directory: Path, *, records: int) -> None:
    """`erase_s`: one person with payloads, and one without, in a log of so many records."""
    asyncio.run(_grow(directory, records, kept=100, units=records // 10))
    slowest, said = asyncio.run(_erase(directory))
    found.note("erase_s", round(slowest, 3), f"{records:,} records; {said}")


async def _erase(directory: Path) -> tuple[float, str]:
    keyring = Keyring.load(directory / "keys")
    began = time.perf_counter()
    notary = await Notary.open(directory / "log", keyring, origin=ORIGIN)
    erasing = Erasing(notary, Seals(directory / "log", keyring))
    await erasing.finish()
    start = time.perf_counter() - began
    times = []
    for number in range(5):
        began = time.perf_counter()
        unit_ref = keyring.unit_ref(f"user-{number + 100}")
        erased = await erasing.erase(unit_ref, actor="bench", reason="measured")
        times.append(time.perf_counter() - began)
        if erased.again:
            raise SystemExit("the subject was erased before")
    await notary.close()
    said = ", ".join(f"{took:.3f}" for took in times)
    return max(times), f"five people: {said} s; opening took {start:.0f} s"


async def _grow(directory: Path, records: int, *, kept: int, units: int = 10_000) -> Keyring:
    """A closed log with so many decisions."""
    keyring = Keyring.load_or_create(directory / "keys")
    notary = await Notary.open(directory / "log", keyring, origin=ORIGIN, max_pending=2 * _AT_ONCE)
    seals = Seals(directory / "log", keyring, create=True)
    maker = Maker(keyring, seals, kept=kept, units=units)
    failures: list[AuditError] = []
    left, under_way = records, 0
    room = asyncio.Event()

    def told(_: Receipt | None, error: AuditError | None) -> None:
        nonlocal under_way
        under_way -= 1
        if error is not None:
            failures.append(error)
        if under_way <= _AT_ONCE:
            room.set()

    while left and not failures:
        for made in maker.batch(min(left, _AT_ONCE)):
            under_way += 1
            left -= 1
            notary.submit(made.id, made.data, told, payloads=made.payloads)
        room.clear()
        while under_way > _AT_ONCE:
            await room.wait()
    await notary.close()
    if failures:
        raise SystemExit(f"an append failed: {failures[0]}")
    return keyring
