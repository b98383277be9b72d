"""Logs of many small segments, for tests of pruning: with a clock, payloads, holds and numbers."""

from contextlib import asynccontextmanager

from audit.erasing import Erasing
from audit.notary import Notary
from audit.pruning import Pruning
from audit.record import AssignmentConfig, Epoch, LegalHold, ModelRegistered, new_id
from audit.retention import parse_retention
from audit.seals import Seals
from tests.audit.worlds import ORIGIN, START_US, decision

WHY = {"actor": "operator", "reason": "its time has come"}
SEGMENT_BYTES = 60_000
HOUR_US = 3600 * 1_000_000


def time_us(hours):
    return START_US + round(hours * HOUR_US)


def epoch(instance="0000000a"):
    return Epoch(
        id=new_id(), time_us=START_US, instance=instance, epoch=1, sampling_commitment="aa" * 32
    )


def config(version="cd" * 32, experiment="income-ab"):
    return AssignmentConfig(
        id=new_id(),
        time_us=START_US,
        experiment=experiment,
        experiment_version=version,
        epoch=1,
        model="income",
        definition={"arms": ["a", "b"]},
        reason="start",
    )


def hold(unit, reason, action="hold"):
    return LegalHold(
        id=new_id(),
        time_us=START_US,
        unit_ref=unit * 16,
        action=action,
        actor="court",
        reason=reason,
    )


def registered(version="1"):
    return ModelRegistered(
        id=new_id(),
        time_us=START_US,
        model="income",
        version=version,
        digest="sha256:" + "ef" * 32,
        manifest_evaluation={},
    )


class Living:
    """An open log that can be pruned; its clock stands at `hours`."""

    def __init__(self, notary, ring, policy, **options):
        self.notary = notary
        self.ring = ring
        self.directory = notary.directory
        self.hours = 0.0
        self.erasing = Erasing(notary, Seals(notary.directory, ring, create=True))
        self.pruning = Pruning(
            notary,
            self.erasing,
            parse_retention(policy),
            clock=lambda: time_us(self.hours),
            **options,
        )
        self.seq = 0

    async def decide(self, count, *, at, payload=None, **changes):
        """So many decisions at that hour, one group each; every third has a payload."""
        for _ in range(count):
            self.seq += 1
            event = decision(self.seq, **({"time_us": time_us(at)} | changes))
            body = {"input": payload} if payload and self.seq % 3 == 0 else {}
            await self.notary.append(event, payloads=body, subject=event.unit_ref)

    async def prune(self, **options):
        return await self.pruning.prune(**WHY, **options)


@asynccontextmanager
async def living(folder, ring, policy="1h..", **options):
    """A log below `folder`, open for the length of the block."""
    notary = await Notary.open(
        folder / "log",
        ring,
        origin=ORIGIN,
        segment_bytes=SEGMENT_BYTES,
        checkpoint_interval_s=3600,
    )
    try:
        yield Living(notary, ring, policy, **options)
    finally:
        await notary.close()
