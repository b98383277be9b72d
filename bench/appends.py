"""Strict appends: how many are sustained, what share of bare writes that is, and what one adds.

Rule 1: a record is made (ids, nonce, seal, commitments, canonical bytes) inside the measure, sent
to the notary, and counts when it is told that its group is on disk. Each keeps its payloads, and as
a gateway does, the maker vouches that an id comes once.
Rule 2: the bare writer writes as many bytes a record in groups of the same number of records: a
length and a CRC-32 before each, one write and one fdatasync a group, and nothing else.
Rule 3: latency is measured with an open load: another process says when requests come, at random
moments of a steady rate that does not wait for answers. What an append adds is what it takes from
that moment, less what the same load takes when nothing is recorded, each at its 99th percentile.
What the latter took is said beside it: where that is much, the host's own stops were measured.
Read next: records.py (what is appended), figures.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import uvloop

from audit.errors import AuditError
from audit.keys import Keyring
from audit.notary import Notary
from audit.receipts import Durability, Receipt
from audit.seals import Seals

from .figures import Figures
from .records import Maker

__all__ = ["measure"]

ORIGIN = "example.com/bench"
_IN_FLIGHT = 128
_A_TURN = 32
_MOMENT = struct.Struct("=q")
_WARM_S = 1.0


def measure(found: Figures, directory: Path, *, seconds: float) -> None:
    """`strict_per_s`, `strict_of_bare` and `p99_added_ms`."""
    rate, record_bytes = uvloop.run(_sustained(directory / "sustained", seconds))
    bare = _bare(directory / "bare", record_bytes, min(seconds, 20.0))
    found.note("strict_per_s", round(rate), f"{seconds:g} s, {record_bytes} bytes each on disk")
    found.note("strict_of_bare", round(rate / bare, 3), f"{rate:,.0f} of {bare:,.0f} records/s")
    half, span = rate / 2, min(seconds, 20.0)
    nothing = uvloop.run(_open_load(None, half, span, None))
    added, said = [], [f"nothing recorded p99 {1e3 * _quantile(nothing, 0.99):.3f}"]
    modes: tuple[Durability, ...] = ("strict", "bounded")
    for mode in modes:
        took = uvloop.run(_open_load(directory / mode, half, span, mode))
        p50, p99 = (1e3 * (_quantile(took, q) - _quantile(nothing, q)) for q in (0.5, 0.99))
        added.append(round(p99, 3))
        said.append(f"{mode} p50 {p50:.3f}")
    found.note("p99_added_ms", added, f"at {half:,.0f} records/s; {', '.join(said)}")


async def _sustained(directory: Path, seconds: float) -> tuple[float, int]:
    """Records per second with `_IN_FLIGHT` under way, and how many bytes of files each became."""
    keyring, notary, seals = await _opened(directory)
    maker = Maker(keyring, seals)
    failures: list[AuditError] = []
    loop, stored, under_way, soon = asyncio.get_running_loop(), 0, 0, False
    ended: asyncio.Future[None] = loop.create_future()
    stop = time.perf_counter() + _WARM_S + seconds

    def told(_: Receipt | None, error: AuditError | None) -> None:
        nonlocal stored, under_way
        under_way -= 1
        if error is not None:
            failures.append(error)
        else:
            stored += 1
        if not soon:
            wake()

    def wake() -> None:
        nonlocal soon
        soon = True
        loop.call_soon(turn)

    def turn() -> None:
        nonlocal soon, under_way
        soon = False
        going_on = time.perf_counter() < stop and not failures
        for made in maker.batch(min(_A_TURN, _IN_FLIGHT - under_way) if going_on else 0):
            under_way += 1
            notary.submit(made.id, made.data, told, payloads=made.payloads, once=True)
        if going_on and under_way < _IN_FLIGHT:
            wake()
        elif not under_way:
            ended.set_result(None)

    wake()
    await asyncio.sleep(_WARM_S)
    began, before = time.perf_counter(), stored
    await asyncio.sleep(seconds)
    took, count = time.perf_counter() - began, stored - before
    await ended
    await notary.close()
    if failures:
        raise SystemExit(f"an append failed: {failures[0]}")
    files = [*(directory / "log" / "wal").iterdir(), *(directory / "log" / "blobs").glob("*.seg")]
    return count / took, sum(path.stat().st_size for path in files) // stored


def _bare(path: Path, record_bytes: int, seconds: float) -> float:
    """Records per second of a writer that only writes."""
    record, head = os.urandom(record_bytes), struct.Struct(">II").pack
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        parts = []
        for _ in range(_IN_FLIGHT):
            parts += [head(len(record), zlib.crc32(record)), record]
        os.write(fd, b"".join(parts))
        os.fdatasync(fd)
        count += _IN_FLIGHT
    os.close(fd)
    path.unlink()
    return count / took


async def _open_load(
    directory: Path | None, rate: float, seconds: float, mode: Durability | None
) -> list[float]:
    """Seconds from each request's moment to its acknowledgement; without a log, to its arrival."""
    latencies: list[float] = []
    failures: list[AuditError] = []
    closing = None
    answer: Callable[[float], None] = lambda moment: latencies.append(  # noqa: E731
        time.perf_counter() - moment
    )
    if directory is not None:
        keyring, notary, seals = await _opened(directory)
        maker, closing = Maker(keyring, seals, durability=mode or "strict"), notary.close

        def answer(moment: float) -> None:
            def told(_: Receipt | None, error: AuditError | None) -> None:
                if error is not None:
                    failures.append(error)
                latencies.append(time.perf_counter() - moment)

            made = maker.make()
            notary.submit(
                made.id, made.data, told, payloads=made.payloads, durability=mode, once=True
            )

    await _driven(answer, rate, seconds + _WARM_S)
    if closing is not None:
        await closing()
    if failures:
        raise SystemExit(f"an append failed: {failures[0]}")
    return latencies[round(rate * _WARM_S) :]


async def _driven(answer: Callable[[float], None], rate: float, seconds: float) -> None:
    """Call `answer` with the moment of each request that another process makes."""
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setblocking(False)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    ended: asyncio.Future[None] = loop.create_future()
    rest = b""

    def arrived() -> None:
        nonlocal rest
        raw = rest + (piece := here.recv(1 << 16))
        if not piece:
            loop.remove_reader(here)
            ended.set_result(None)
            return
        whole = len(raw) - len(raw) % _MOMENT.size
        rest = raw[whole:]
        for (moment,) in _MOMENT.iter_unpack(raw[:whole]):
            answer(moment / 1e9)

    loop.add_reader(here, arrived)
    command = [sys.executable, "-c", _DRIVER, str(there.fileno()), str(rate), str(seconds)]
    driver = subprocess.Popen(command, pass_fds=(there.fileno(),))  # noqa: ASYNC220  before load
    there.close()
    await ended
    here.close()
    driver.wait()


# Sleeps until each moment, with the least timer slack (PR_SET_TIMERSLACK): a load that spins would
# take one of two processors from what is measured. It is some 50 microseconds late, in both
# measurements.
_DRIVER = """
import ctypes, random, socket, struct, sys, time
ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
pipe = socket.socket(fileno=int(sys.argv[1]))
step, seconds = 1e9 / float(sys.argv[2]), float(sys.argv[3])
pack, now, draw = struct.Struct("=q").pack, time.perf_counter_ns, random.Random(1).expovariate
moment = now() + 200_000_000
end = moment + int(seconds * 1e9)
while moment < end:
    early = moment - now()
    if early > 0:
        time.sleep(early / 1e9)
    pipe.sendall(pack(int(moment)))
    moment += draw(1) * step
"""


async def _opened(directory: Path) -> tuple[Keyring, Notary, Seals]:
    """A new log, in a process that has settled as a gateway does."""
    keyring = Keyring.load_or_create(directory / "keys")
    notary = await Notary.open(directory / "log", keyring, origin=ORIGIN)
    seals = Seals(directory / "log", keyring, create=True)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return keyring, notary, seals


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
