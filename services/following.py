"""How far the log was followed: what is to be explained, counted, and watched for alarms.

Rule 1: what was selected is pending until the log holds its explanation, or why there is none. Of
what is pending only the leaf is kept; the decision is read again when its turn comes.
Rule 2: a start goes on where the log was followed to: before the oldest decision that is pending,
and before the first one that an open window counts. What was made of everything before is kept in
`<log>/followed` (audit/snapshot.py). It is not saved while an alarm is on its way to the log.
Rule 3: within one process each leaf is read once, whatever fails behind it. Read again after a
start it changes nothing: a window names the leaves it covers, a unit counts once in a split, and
what the log holds is not pending. So `followed` also names the last leaf that it has seen.
Rule 4: a record of which nothing can be made is passed over and named in the process log: one that
a stranger wrote must not keep all others from being explained and counted.
Boundary: reads the log; what is to be written there is the caller's (follower.py). `read`, or
`decision` and `kept`, may run in a thread while `settle` is called on the loop; all else runs there
alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from audit.errors import LeafPruned, NotFound, PayloadDamaged
from audit.keys import Keyring
from audit.reader import LogReader, say_odd, sound
from audit.record import (
    Alert,
    AssignmentConfig,
    Decision,
    Event,
    ExplanationRecord,
    ExplanationSkipped,
    FairnessWindow,
    now_us,
    original,
)
from audit.snapshot import FOLLOWED, Snapshot, SnapshotFile

from .alarms import Alarms
from .counting import Counting

__all__ = ["Following"]

_KIND: Final = "followed-2"
_READ_AT_ONCE = 5_000
_KEEP_AFTER = 65_536
_SETTLED = 10_000


class Following:
    """One log, read in the order of its leaves; `open` it first.

    Attributes:
        pending: the leaves of decisions that are to be explained, by id, in their turn.
        unsent: alerts, and windows, that the log does not hold yet; for the caller to write.
    """

    def __init__(
        self, reader: LogReader, counting: Counting, alarms: Alarms, *, key: bytes = b""
    ) -> None:
        """`key` is that of the file `followed` (audit/snapshot.py)."""
        self._reader = reader
        self._again = LogReader(reader.directory)  # a place of its own: the other one goes on
        self._file = SnapshotFile(reader.directory / FOLLOWED, _KIND, key)
        self._counting = counting
        self._alarms = alarms
        self._next = self._kept = self._surveyed = 0
        self._explained: set[str] = set()  # as the log says, of leaves that are not read yet
        self._settled: OrderedDict[str, None] = OrderedDict()  # here, perhaps before they are read
        self.pending: OrderedDict[str, int] = OrderedDict()
        self._put_off: set[str] = set()
        self.unsent: list[Event] = []

    def open(self) -> None:
        """Take up what was kept, and read what the log says is done already.

        Raises:
            LogDamaged: the log cannot be read.
        """
        found = self._file.load(self._reader)
        if found is not None:
            self._counting.restore(found.said["counted"])
            self._alarms.restore(found.said["alarms"])
            self._next = self._kept = found.leaves
        self._surveyed = self._reader.size()
        for entry in self._reader.others(max(self._next, self._reader.first())):
            if isinstance(entry.event, ExplanationRecord | ExplanationSkipped):
                self._explained.add(entry.event.decision)
            elif isinstance(entry.event, FairnessWindow):
                self._counting.resume(entry.event)
                self._alarms.resume(entry.event)
            elif isinstance(entry.event, Alert):
                self._alarms.resume(entry.event)

    def read(self) -> bool:
        """Read some thousand leaves that are new; whether there were any.

        Raises:
            LogDamaged: the log cannot be read.
        """
        self._next = max(self._next, self._reader.first())  # what was pruned is not waited for
        begin, end = self._next, min(self._reader.size(), self._next + _READ_AT_ONCE)
        odd: list[int] = []
        try:
            for leaf, data in self._reader.raw(begin, end):
                self._next = leaf + 1  # what fails further on does not count this one again
                event = sound(data)
                if event is None or not self._take(leaf, event):
                    odd.append(leaf)
        finally:
            say_odd(odd)
        found = end > begin
        if self._explained and end >= self._surveyed:
            self._explained.clear()  # their decisions have all been read
        return found

    def _take(self, leaf: int, event: Event) -> bool:
        """Take in one event; False if it says something that nothing can be made of."""
        sane = True
        if isinstance(event, ExplanationRecord | ExplanationSkipped):
            self.pending.pop(event.decision, None)
            self._put_off.discard(event.decision)
        elif isinstance(event, Decision):
            try:
                self._counting.take(leaf, event, time.monotonic())
            except PayloadDamaged:
                sane = False
            alert = self._alarms.take(event, now_us())
            if alert is not None:
                self.unsent.append(alert)
            done = event.id in self._explained or event.id in self._settled
            if event.sampling.get("selected") and not done:
                self.pending[event.id] = leaf
        elif isinstance(definition := original(event), AssignmentConfig):  # or carried over
            try:
                self._alarms.take(definition, now_us())
            except ValueError:
                sane = False
        return sane

    def decision(self, decision: str, leaf: int) -> Decision | None:
        """A decision that is pending, from the log; None if it was pruned meanwhile.

        Raises:
            LogDamaged, DecodeError: the log cannot be read.
        """
        with suppress(LeafPruned, NotFound):
            event = self._again.entry(leaf).event
            if isinstance(event, Decision) and event.id == decision:
                return event
        return None

    def kept(self, keyring: Keyring, decision: str, leaf: int, name: str) -> bytes | None:
        """What was kept of a decision; None if nothing was, or its subject was erased.

        Raises:
            PayloadDamaged, LogDamaged: it was changed.
        """
        with suppress(LeafPruned):
            return self._again.payload(keyring, decision, name, leaf=leaf)
        return None

    def put_off(self, decision: str) -> bool:
        """A decision cannot be read now: the others have their turn first; whether that is new."""
        if decision not in self.pending:
            return False
        self.pending.move_to_end(decision)
        new = decision not in self._put_off
        self._put_off.add(decision)
        return new

    def settle(self, decision: str) -> None:
        """A decision is explained, or will not be; also one that was not read yet."""
        self.pending.pop(decision, None)
        self._put_off.discard(decision)
        self._settled[decision] = None
        if len(self._settled) > _SETTLED:
            self._settled.popitem(last=False)

    def close_windows(self, *, final: bool) -> None:
        """Have windows that are old enough, or all, and their alerts among the unsent."""
        due = self._counting.due(time.monotonic(), time_us=now_us(), final=final)
        for window in due:
            self.unsent += [window, *self._alarms.window(window, now_us())]

    def keep(self, *, closing: bool = False) -> None:
        """Save how far the log was followed, if that is much further than the last time; quick.

        Raises:
            LogDamaged: the log cannot be read.
        """
        opened = self._counting.first_open()
        oldest = min(self.pending.values(), default=self._next)  # one that was put off may be it
        leaves = min(self._next, oldest, self._next if opened is None else opened)
        if self.unsent or leaves < self._kept + (1 if closing else _KEEP_AFTER):
            return
        said = {"counted": self._counting.counted(), "alarms": self._alarms.state()}
        self._file.save(self._reader, Snapshot(leaves, said, seen=self._next))
        self._kept = leaves
