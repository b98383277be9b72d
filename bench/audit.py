"""What the audit log costs: encoding, strict appends, verification, opening.

Run `python -m bench.audit [--records N] [--directory D]`; it prints one line per figure and
asserts nothing. The directory should be on the disk that the log will live on.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import time
from pathlib import Path

from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Decision, decode, encode, new_id, now_us
from audit.verify import verify_log

ORIGIN = "example.com/bench"


def decision(seq: int) -> Decision:
    return Decision(
        id=new_id(),
        time_us=now_us(),
        instance="0000000a",
        seq=seq,
        origin="http",
        route="income",
        unit_ref="ab" * 16,
        unit_source="header",
        experiment="income-ab",
        experiment_version="cd" * 32,
        epoch=1,
        slot=17,
        arm_assigned="control",
        arm_served="control",
        propensity="0.5",
        reason="assigned",
        model="income",
        version="1",
        digest="sha256:" + "ef" * 32,
        runtime="onnxruntime",
        device="cpu",
        input_commitment="01" * 32,
        output_commitment="23" * 32,
        sealed="A" * 240,
        rows=1,
        label_counts={">50K": 1},
        label=">50K",
        score="0.8123",
        threshold="0.5",
        sampling={"rule": "base", "probability": "0.01", "selected": False},
        trace_id="45" * 16,
        span_id="67" * 8,
        latency_us={"queue": 10, "infer": 20, "total": 40},
        durability="strict",
    )


def encoding() -> None:
    event = decision(1)
    data = encode(event)
    for name, work in (("encode", lambda: encode(event)), ("decode", lambda: decode(data))):
        times = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(500):
                work()
            times.append((time.perf_counter() - start) / 500)
        print(f"{name:<28} {min(times) * 1e6:8.1f} µs   ({len(data)} bytes)")


def disk(directory: Path) -> None:
    path = directory / "probe"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    block, times = bytes(8192), []
    for number in range(200):
        start = time.perf_counter()
        os.pwrite(fd, block, number * 8192)
        os.fdatasync(fd)
        times.append(time.perf_counter() - start)
    os.close(fd)
    path.unlink()
    print(f"{'write 8 kB + fdatasync':<28} {statistics.median(times) * 1e6:8.1f} µs   (median)")


async def appends(notary: Notary, clients: int, records: int, *, payload: bool) -> None:
    latencies: list[float] = []
    per_client = max(1, records // clients)
    first = notary.size + 1
    events = [decision(first + n) for n in range(per_client * clients)]
    body = {"input": bytes(500), "output": bytes(100)} if payload else {}

    async def client(number: int) -> None:
        for event in events[number::clients]:
            start = time.perf_counter()
            await notary.append(event, payloads=body, subject=f"user-{event.seq % 500}")
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*[client(number) for number in range(clients)])
    seconds = time.perf_counter() - start
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
    kind = "with payloads" if payload else "strict"
    name = f"{clients} appenders, {kind}"
    print(f"{name:<28} {len(latencies) / seconds:8.0f} /s   p50 {p50:.2f} ms, p99 {p99:.2f} ms")


async def main(directory: Path, records: int) -> None:
    encoding()
    disk(directory)
    keyring = Keyring.load_or_create(directory / "keys")
    log = directory / "log"
    notary = await Notary.open(log, keyring, origin=ORIGIN)
    await appends(notary, 1, records // 20, payload=False)
    await appends(notary, 64, records, payload=False)
    await appends(notary, 256, records, payload=False)
    await notary.close()
    timed("verify", log, lambda: verify_log(log, keyring.public_key))
    timed("read and decode", log, lambda: sum(1 for _ in LogReader(log).entries()))
    start = time.perf_counter()
    notary = await Notary.open(log, keyring, origin=ORIGIN)
    print(f"{'open (recovery)':<28} {(time.perf_counter() - start) * 1e3:8.1f} ms")
    await appends(notary, 64, records // 4, payload=True)
    await notary.close()


def timed(name: str, log: Path, work) -> None:  # type: ignore[no-untyped-def]  # any result
    leaves = LogReader(log).size()
    start = time.perf_counter()
    work()
    print(f"{name:<28} {leaves / (time.perf_counter() - start):8.0f} leaves/s   ({leaves} leaves)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--directory", type=Path, default=Path("bench-audit.tmp"))
    options = parser.parse_args()
    shutil.rmtree(options.directory, ignore_errors=True)
    options.directory.mkdir(parents=True)
    try:
        asyncio.run(main(options.directory, options.records))
    finally:
        shutil.rmtree(options.directory)
