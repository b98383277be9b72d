"""Pruning: whole segments of the log go for good, and what is left still proves itself.

The steps, and what a crash between them means:
    1  what is in force of the leaves that go is carried over (`carried` records)
    2  the `pruned` record is stored and signed        before: nothing happened but more records
    3  the ids of the leaves that go are in `ids/`      from 2 on, `finish` goes on from here
       and the signed checkpoint is kept in `checkpoints/`
    4  the leaves between the boundary, a multiple of 256, and the first whole segment get a
       segment of their own
    5  the `pruned` file says where the log begins     from here on, opening the log goes on
    6  the segments before it go
    7  bundles and tiles that end before it go (C2SP tlog-tiles, "Pruning"), payload segments, and
       data keys that nothing is under any more
    8  the `pruned` file says that it is done
Before 1, and before an interrupted one goes on, others keep what they alone would know of the
leaves that go (`keep_more`), or refuse.
Rule: one at a time, and no erasure or hold beside it. Nothing that was ever signed changes: every
proof of a kept leaf, and every consistency proof between trees of that size or more, can be made as
before.
Boundary: asyncio, through the one writer (notary.py); files are read and removed in a thread.
Source: docs/adr/0016-retention.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from .boundary import read_boundary, write_boundary
from .canonical import JSON
from .carrying import carry_over, slots_in_use
from .erasing import Erasing
from .errors import EventInvalid, LogUnavailable, NotPrunable
from .events import Carried, Pruned
from .frames import Watermark
from .frontier import peaks_of, rows_at
from .log import Log
from .merkle import Frontier, consistency_proof, verify_consistency
from .notary import Notary
from .note import Checkpoint, parse_checkpoint
from .prunefiles import first_payloads, newest_segment_began, prune_files
from .pruneplan import Plan, Situation, make_plan
from .reader import LogReader
from .record import new_id, now_us
from .retention import KEEP, Retention
from .standing import Standing
from .tiles import TileReader

__all__ = ["PRUNES", "PrunedNow", "Pruning"]

_LOGGER = logging.getLogger("weighbridge.audit")
PRUNES = ("prune", "plan")
_MAX_TEXT = 1024
_SHORTEST_US = 1_000_000


class PrunedNow(NamedTuple):
    """What a pruning did.

    Attributes:
        leaf: of the record that says so.
        first_leaf: where the log begins now.
        segments: how many of the write-ahead log went.
        keys: how many data keys were destroyed, because nothing is under them any more.
    """

    leaf: int
    first_leaf: int
    segments: int
    keys: int


async def _nothing(upto: int) -> None:
    """Nobody else keeps anything of the leaves below `upto`."""


class Pruning:
    """Prunes one log by its policy, through the notary of this process.

    Args:
        notary: the one writer.
        erasing: knows erasures and holds, and is kept from changing them meanwhile.
        policy: floors and ceilings.
        cosigned: how many leaves each witness that is asked has cosigned.
        clock: Unix microseconds.

    Attributes:
        keep_more: told of leaves that go, all those below the one it is given, and waited for; what
            it raises is raised, and they stay.
    """

    def __init__(
        self,
        notary: Notary,
        erasing: Erasing,
        policy: Retention,
        *,
        cosigned: Callable[[], Mapping[str, int]] = dict,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._notary = notary
        self._erasing = erasing
        self._policy = policy
        self._cosigned = cosigned
        self._clock = clock
        self._directory = notary.directory
        self.keep_more: Callable[[int], Awaitable[None]] = _nothing

    async def plan(self, *, due_only: bool = False, within_us: int = 0) -> Plan:
        """What would go now, and why not more; changes nothing.

        Args:
            due_only: leave what may go until a ceiling asks for it.
            within_us: so long until somebody looks again.
        """
        async with self._erasing.standing() as standing:
            return await asyncio.to_thread(self._plan, standing, due_only, within_us)

    async def prune(
        self, *, actor: str, reason: str, due_only: bool = False, within_us: int = 0
    ) -> PrunedNow:
        """Prune what the policy allows, and record it.

        Raises:
            EventInvalid: the reason or the actor is empty or too long.
            NotPrunable: nothing may go; says why.
            LogUnavailable: the disk or `keep_more` refused. If the record was made, the next start
                finishes it.
            LogDamaged: the log does not verify as far as it was read; nothing was removed.
        """
        for name, text in (("actor", actor), ("reason", reason)):
            if not text.strip() or len(text) > _MAX_TEXT:
                raise EventInvalid(
                    f"could not prune: the {name} must have 1 to {_MAX_TEXT} characters"
                )
        async with self._erasing.standing() as standing:
            await self._finish(standing)
            plan = await asyncio.to_thread(self._plan, standing, due_only, within_us)
            if not plan.anything:
                raise NotPrunable(f"nothing may be pruned now: {plan.why_not}")
            await self.keep_more(plan.first_leaf)
            note = await asyncio.to_thread(LogReader(self._directory).checkpoint)
            mark = await self._notary.in_writer(Log.payload_mark)
            carried, event = await asyncio.to_thread(
                self._events, plan, standing, note, mark, actor=actor, reason=reason
            )
            for one in carried:
                await self._notary.append(one, durability="strict")
            receipt = await self._notary.append(event, durability="strict")
            # If we crash from here on, the log says what goes, and the next start makes it true.
            await self._notary.checkpoint()
            keys = await self._deed(receipt.index, event, note)
            return PrunedNow(receipt.index, event.first_leaf, plan.going, keys)

    async def keep_to_ceilings(self, within_us: int) -> PrunedNow | None:
        """Prune what a ceiling asks for; None where nothing does. For regular runs.

        A segment that is being written is ended when its oldest record is half-way between the
        longest floor and the shortest ceiling, so that it can go in time.
        """
        await self._roll_in_time()
        try:
            return await self.prune(
                actor="weighbridge",
                reason="the retention that is set",
                due_only=True,
                within_us=within_us,
            )
        except NotPrunable as why:
            _LOGGER.info("%s", why)
            return None

    async def answer(self, asked: Mapping[str, Any]) -> dict[str, JSON]:
        """What another process asks for: {"do": "prune" or "plan", "due_only", "roll", …}.

        A "plan" gives the plan; a "prune" names "actor" and "reason", too, and gives what it did.

        Raises:
            EventInvalid, NotPrunable, LogUnavailable, LogDamaged: as `prune`.
        """
        if not self._policy.any:
            raise NotPrunable(
                "nothing may be pruned: no retention is set, so everything is kept; set "
                "WEIGHBRIDGE_RETENTION where the log's writer runs, such as 180d..400d"
            )
        due_only = asked.get("due_only") is True
        if asked["do"] == "plan":
            return (await self.plan(due_only=due_only)).body()
        if asked.get("roll") is True:
            await self.roll()
            await self._notary.checkpoint()
        actor, reason = str(asked.get("actor", "")), str(asked.get("reason", ""))
        return (await self.prune(actor=actor, reason=reason, due_only=due_only))._asdict()

    async def roll(self) -> int:
        """End the segment being written, so that it may go; the first leaf of the next one."""
        return await self._notary.in_writer(Log.roll)

    async def _roll_in_time(self) -> None:
        policy = self._policy
        if policy.shortest_ceiling_us == KEEP.ceiling_us:
            return
        spare = policy.shortest_ceiling_us - min(policy.longest_us, policy.shortest_ceiling_us)
        began = await asyncio.to_thread(newest_segment_began, self._directory)
        if began is not None and self._clock() - began > max(spare // 2, _SHORTEST_US):
            await self.roll()

    async def finish(self) -> bool:
        """End a pruning that was interrupted; whether there was one.

        Raises:
            LogDamaged, LogUnavailable: the files could not be read or written.
        """
        async with self._erasing.standing() as standing:
            return await self._finish(standing)

    async def _finish(self, standing: Standing) -> bool:
        if standing.pruned is None:
            return False
        leaf, event = standing.pruned
        boundary = await asyncio.to_thread(read_boundary, self._directory)
        if boundary is not None and boundary.first_leaf >= event.first_leaf and boundary.done:
            return False
        await self.keep_more(event.first_leaf)
        note = await asyncio.to_thread(LogReader(self._directory).checkpoint)
        await self._deed(leaf, event, note)
        _LOGGER.warning("a pruning that was interrupted is finished, see leaf %d", leaf)
        return True

    async def _deed(self, leaf: int, event: Pruned, note: str) -> int:
        try:
            await self._notary.keep_ids(event.first_leaf)
            boundary = await asyncio.to_thread(prune_files, self._directory, leaf, event, note)
            keys = await self._destroy_unused(event.first_payloads)
            await asyncio.to_thread(write_boundary, self._directory, boundary)
        except OSError as exc:
            raise LogUnavailable(
                f"could not remove what leaf {leaf} says that is pruned: {exc}; the next pruning "
                "or start goes on"
            ) from exc
        return keys

    async def _destroy_unused(self, first_payloads: int) -> int:
        """Destroy the data keys that no payload is under any more."""
        mark = await self._notary.in_writer(Log.payload_mark)
        used = await asyncio.to_thread(slots_in_use, self._directory, first_payloads, mark)

        def destroy(log: Log) -> int:
            # Nothing is written meanwhile: what came since the first look is all that can have.
            since = slots_in_use(self._directory, mark.blob_segment, start=mark.blob_bytes)
            unused = set(log.live_slots()) - used - since
            return log.destroy_slots([slot for slot in sorted(unused) if slot < mark.subjects])

        return await self._notary.in_writer(destroy)

    def _plan(self, standing: Standing, due_only: bool, within_us: int) -> Plan:
        now = self._clock()
        return make_plan(
            self._directory,
            Situation(
                policy=self._policy,
                now_us=now,
                next_us=now + within_us,
                signed=_tree_in(LogReader(self._directory).checkpoint()).size,
                cosigned=self._cosigned(),
                holds=frozenset(standing.holds),
                same_from=standing.same_from,
                due_only=due_only,
            ),
        )

    def _events(
        self,
        plan: Plan,
        standing: Standing,
        note: str,
        mark: Watermark,
        *,
        actor: str,
        reason: str,
    ) -> tuple[list[Carried], Pruned]:
        tree = _tree_in(note)
        hashes = TileReader(self._directory, tree.size)
        frontier = peaks_of(rows_at(hashes, plan.first_leaf), plan.first_leaf)
        proof = consistency_proof(hashes, plan.first_leaf, tree.size)
        root = Frontier(plan.first_leaf, frontier).root()
        verify_consistency(plan.first_leaf, tree.size, root, tree.root, proof)
        payloads = first_payloads(self._directory, plan.kept_from, mark.blob_segment)
        kept = carry_over(
            LogReader(self._directory),
            hashes,
            plan.first_leaf,
            standing,
            slots_in_use(self._directory, payloads, mark),
            time_us=self._clock(),
        )
        event = Pruned(
            id=new_id(),
            time_us=self._clock(),
            from_leaf=plan.from_leaf,
            first_leaf=plan.first_leaf,
            kept_from=plan.kept_from,
            tree_size=tree.size,
            root=tree.root.hex(),
            frontier=[peak.hex() for peak in frontier],
            segments=plan.going,
            first_payloads=payloads,
            until_us=plan.until_us,
            numbers=kept.numbers,
            actor=actor,
            reason=reason,
        )
        return kept.events, event


def _tree_in(note: str) -> Checkpoint:
    """What the log's own checkpoint says; it is this process that signed it."""
    return parse_checkpoint(note.partition("\n\n")[0] + "\n")
