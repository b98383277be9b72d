"""Small logs for tests: events with a counting clock, logs of a given size, and their keys."""

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from audit.keys import Keyring
from audit.log import Log, Record
from audit.merkle import leaf_hash
from audit.notary import Notary
from audit.note import VerifierKey
from audit.record import Decision, encode

ORIGIN = "example.com/weighbridge"
START_US = 1_790_000_000_000_000


def pseudo_random():
    """A source of bytes that is the same in every run."""
    numbers = count()

    def source(length):
        block = b"".join(
            hashlib.sha256(f"{next(numbers)}".encode()).digest() for _ in range(length // 32 + 1)
        )
        return block[:length]

    return source


def uuid(number):
    """A UUIDv7-shaped id that counts."""
    return f"01994f00-0000-7000-8000-{number:012x}"


def decision(seq, *, instance="0000000a", **changes):
    fields = {
        "id": uuid(seq + (int(instance, 16) << 24)),
        "time_us": START_US + seq * 1000,
        "instance": instance,
        "seq": seq,
        "origin": "http",
        "route": "income",
        "unit_ref": "ab" * 16,
        "unit_source": "header",
        "experiment": "income-ab",
        "experiment_version": "cd" * 32,
        "epoch": 1,
        "slot": 17,
        "arm_assigned": "control",
        "arm_served": "control",
        "propensity": "0.5",
        "reason": "assigned",
        "model": "income",
        "version": "1",
        "digest": "sha256:" + "ef" * 32,
        "runtime": "onnxruntime",
        "device": "cpu",
        "input_commitment": "01" * 32,
        "output_commitment": "23" * 32,
        "sealed": "c2VhbGVk",
        "rows": 1,
        "label_counts": {">50K": 1},
        "label": ">50K",
        "score": "0.81",
        "threshold": "0.5",
        "sampling": {"rule": "base", "probability": "0.01", "selected": False},
        "trace_id": "45" * 16,
        "span_id": "67" * 8,
        "latency_us": {"queue": 10, "infer": 20, "total": 40},
        "durability": "strict",
    }
    return Decision(**(fields | changes))


@dataclass(frozen=True)
class World:
    """A closed log on disk, and what is known about it."""

    directory: Path
    keyring: Keyring
    events: tuple[Decision, ...]

    @property
    def key(self) -> VerifierKey:
        return self.keyring.verifier_key(ORIGIN)

    def copy(self, to: Path) -> "World":
        shutil.copytree(self.directory, to)
        return World(to, self.keyring, self.events)

    def files(self):
        """Every file that holds bytes, relative to the log."""
        paths = sorted(p for p in self.directory.rglob("*") if p.is_file() and p.stat().st_size)
        return [p.relative_to(self.directory) for p in paths]


def make_keyring(directory):
    return Keyring.load_or_create(directory, random=pseudo_random())


def payloads_for(seq):
    return {"input": b"the input of %d" % seq, "output": b"the output of %d" % seq}


async def build_world(folder, groups, *, payload_every=5, segment_bytes=1 << 20):
    """A closed log whose groups have the given sizes; every fifth decision has payloads."""
    keyring = make_keyring(folder / "keys")
    directory = folder / "log"
    notary = await Notary.open(
        directory, keyring, origin=ORIGIN, segment_bytes=segment_bytes, checkpoint_interval_s=3600
    )
    events, seqs = [], count(1)
    for size in groups:
        made = [decision(next(seqs)) for _ in range(size)]
        await asyncio.gather(*[append(notary, event, payload_every) for event in made])
        await notary.checkpoint()
        events += made
    await notary.close()
    return World(directory, keyring, tuple(events))


def mixed_world(folder):
    """330 decisions in groups of many sizes, over several segments, with payloads."""
    groups = [1, 2, 3, 50, 100, 44, 60, 70]
    return asyncio.run(build_world(folder, groups, segment_bytes=100_000))


def append(notary, event, payload_every=0):
    wanted = payload_every and event.seq % payload_every == 0
    payloads = payloads_for(event.seq) if wanted else {}
    return notary.append(event, payloads=payloads, subject=f"user-{event.seq % 7}")


def open_log(folder, keyring=None, **options):
    """A Log, for tests of the synchronous half."""
    keyring = keyring or make_keyring(folder / "keys")
    return Log.open(folder / "log", keyring, origin=ORIGIN, **options)


def records(*seqs):
    return [Record(encode(decision(seq))) for seq in seqs]


def leaf_of(event):
    return leaf_hash(encode(event))
