"""Which segments of the log may go, which must, and why the others stay.

Rule 1: a segment of the write-ahead log may go when every record in it is older than its floor, and
is due when one of them will have passed its ceiling by the next look. Only whole segments go, and
only from the front: the first one that must stay keeps all that follow.
Rule 2: it must stay while it is being written, while a legal hold stands on a subject with a record
in it, while the signed checkpoint does not cover it, and while a witness that is asked has not
cosigned that much. A hold that was released goes with its release, or not yet, where that would
seem to end another one then.
Rule 3: where floor and ceiling contradict each other, the floor wins, and it is said.
Boundary: reads the log; decides, and changes nothing. The clock is an argument.
Read next: pruning.py (the deed).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from .boundary import first_leaf
from .canonical import JSON, loads
from .cursor import WalCursor
from .errors import LogDamaged
from .frames import segments
from .marker import Position, read_marker
from .retention import FOREVER, Retention
from .tiles import WIDTH

__all__ = ["Plan", "Segment", "Situation", "make_plan"]

_TURN: Final = 64
_ABOUT_SUBJECTS: Final = ("legal_hold", "erasure")  # carried over while they are in force

_PARTS_HOLDS: Final = (
    "a legal hold in it was released later than another one began, which stands: without it that "
    "one would seem to be released"
)


class Segment(NamedTuple):
    """What was decided about one segment, the leaves [first, end).

    Attributes:
        goes: whether it may go; `why` says why not, or why.
        due: whether a ceiling asks for it.
        until_us: the newest time in it; 0 where it was not read to its end.
    """

    first: int
    end: int
    length: int
    goes: bool
    due: bool
    why: str
    until_us: int = 0


class Plan(NamedTuple):
    """What may be pruned now.

    Attributes:
        from_leaf: where the log begins.
        first_leaf: where it would begin; the same if nothing goes.
        kept_from: the first segment that is kept whole.
        segments: what was looked at, in order; the last one may stay, and all behind it.
        until_us: the newest time among what goes.
    """

    from_leaf: int
    first_leaf: int
    kept_from: int
    segments: tuple[Segment, ...]
    until_us: int

    @property
    def going(self) -> int:
        """How many segments go."""
        return sum(segment.end <= self.kept_from for segment in self.segments)

    @property
    def anything(self) -> bool:
        """Whether there is something to prune."""
        return self.first_leaf > self.from_leaf

    def body(self) -> dict[str, JSON]:
        """The plan for other processes and programs: JSON types only."""
        segments: list[JSON] = [segment._asdict() for segment in self.segments]
        return {
            "from_leaf": self.from_leaf,
            "first_leaf": self.first_leaf,
            "kept_from": self.kept_from,
            "segments": segments,
            "why_not": None if self.anything else self.why_not,
        }

    @property
    def why_not(self) -> str:
        """Why nothing goes, in words."""
        for segment in self.segments:
            if not segment.goes:
                return f"leaves {segment.first} to {segment.end - 1}: {segment.why}"
        if not self.segments:
            return "no finished segment is old enough"
        if self.kept_from == self.from_leaf:
            return "nothing is due"
        return f"fewer than {WIDTH} records could go; they share a bundle with kept ones"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a plan goes by, beside the log.

    Attributes:
        policy: of the installation.
        now_us: the clock.
        next_us: when a plan is made next: what will have passed its ceiling by then is due.
        signed: how many leaves the checkpoint covers.
        cosigned: how many each witness that is asked has cosigned.
        holds: the subjects that are held.
        same_from: whether the log, begun at a leaf, would say of these the same.
        due_only: leave what may go until a ceiling asks for it.
    """

    policy: Retention
    now_us: int
    next_us: int = 0
    signed: int
    cosigned: Mapping[str, int] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    same_from: Callable[[int], bool] = lambda _: True
    due_only: bool = False


def make_plan(directory: Path, at: Situation) -> Plan:
    """Which segments may go, from the front; reads each record of those, and of one more.

    Cost: about 4 µs a record that is looked at.

    Raises:
        LogDamaged: the log cannot be read.
    """
    begin = first_leaf(directory)
    upto = read_marker(directory)
    parts = [part for part in segments(directory) if part[0] >= begin]
    looked: list[Segment] = []
    kept_from, until_us, newest = begin, 0, 0
    parts_holds: set[int] = set()
    for (first, path), (end, _) in pairwise(parts):
        if end > upto.leaves:
            break
        if at.due_only and not _may_be_due(directory, at, first, upto):
            break  # nor is what follows, which is younger: so a regular look reads next to nothing
        segment = _judge(
            at, _records(directory, first, end, upto), first, end, length=path.stat().st_size
        )
        looked.append(segment)
        if not segment.goes:
            break
        newest = max(newest, segment.until_us)
        if not at.same_from(_boundary(end, begin)):
            parts_holds.add(end)
        elif segment.due or not at.due_only:
            kept_from, until_us = end, newest
    decided = [
        segment._replace(goes=False, why=_PARTS_HOLDS)
        if segment.end in parts_holds and segment.end > kept_from
        else segment
        for segment in looked
    ]
    return Plan(begin, _boundary(kept_from, begin), kept_from, tuple(decided), until_us)


def _boundary(kept_from: int, begin: int) -> int:
    """Where the log would begin if the segments before `kept_from` went."""
    return max(kept_from // WIDTH * WIDTH, begin)


def _may_be_due(directory: Path, at: Situation, first: int, upto: Position) -> bool:
    """Whether the first record of a segment, its oldest, can have passed a ceiling."""
    _, body = next(_records(directory, first, first + 1, upto))
    oldest: int = body["time_us"]
    return oldest + at.policy.shortest_ceiling_us <= max(at.now_us, at.next_us)


def _judge(
    at: Situation,
    records: Iterator[tuple[int, dict[str, Any]]],
    first: int,
    end: int,
    *,
    length: int,
) -> Segment:
    def stays(why: str, *, due: bool = False) -> Segment:
        return Segment(first, end, length, goes=False, due=due, why=why)

    if end > at.signed:
        return stays(f"the signed checkpoint covers {at.signed} leaves")
    for name, size in at.cosigned.items():
        if end > size:
            return stays(f"the witness {name} has cosigned {size} leaves")
    free_us, route, until_us, gone_by = 0, "", 0, FOREVER
    ceiling_route = ""
    for leaf, body in records:
        if body.get("unit_ref") in at.holds and body.get("type") not in _ABOUT_SUBJECTS:
            return stays(f"a legal hold stands on {body['unit_ref']}, who is in leaf {leaf}")
        name, span = at.policy.of(body)
        time_us = body["time_us"]
        until_us = max(until_us, time_us)
        if time_us + span.floor_us > free_us:
            free_us, route = time_us + span.floor_us, name
        if time_us + span.ceiling_us < gone_by:
            gone_by, ceiling_route = time_us + span.ceiling_us, name
    due = gone_by <= max(at.now_us, at.next_us)
    if free_us > at.now_us:
        why = f"{route} must be kept for {_words(free_us - at.now_us)} more"
        if free_us >= FOREVER:
            why = f"{route} must be kept: no retention is set for it"
        if gone_by <= at.now_us:
            why += f", although {ceiling_route} has passed its ceiling: the floor wins"
        return stays(why, due=due)
    why = f"{ceiling_route} reaches its ceiling" if due else "every floor is passed"
    return Segment(first, end, length, goes=True, due=due, why=why, until_us=until_us)


def _records(
    directory: Path, first: int, end: int, upto: Position
) -> Iterator[tuple[int, dict[str, Any]]]:
    cursor = WalCursor(directory)
    cursor.seek(first)
    for frame in cursor.frames(upto):
        if frame.first >= end:
            return
        for leaf, entry in enumerate(frame.entries(), frame.first):
            body = loads(entry)
            if not isinstance(body, dict) or type(body.get("time_us")) is not int:
                wal = directory / "wal"
                raise LogDamaged(wal, offset=frame.offset, expected="events", found="others")
            if not leaf % _TURN:
                time.sleep(0)  # the event loop beside this thread gets its turn at once
            yield leaf, body
        if frame.first + frame.leaf_count >= end:
            return


def _words(span_us: int) -> str:
    seconds = span_us // 1_000_000
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{max(1, seconds)} seconds"
