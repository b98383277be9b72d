"""Which leaves an evidence pack is about: those of a time, and those that their numbers need.

Rule: the range is one run of leaves; it begins and ends with a record of the time asked for, or
with one that accounts for a number between two numbers in it. So a hole that the pack shows is a
hole in the log. Only signed leaves count.
Of a pruned log, the pack begins after its first record, and so does the time it is said to show.
Read next: pack.py (what is written about them).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .canonical import loads
from .cosignature import CosignerKey
from .errors import DecodeError, LeafPruned, NotFound, NotYetCheckpointed
from .note import VerifierKey
from .pack_report import PackReport, explains
from .reader import LogReader
from .rotation import chain_of


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a pack is to show.

    Args:
        from_us: first moment, Unix microseconds.
        to_us: last moment, excluded.
        log_key: the log's public key; any of them, if it was rotated.
        witness_keys: keys of witnesses, to put into the pack.
        since: a checkpoint that the reviewer holds already; None if there is none.
    """

    from_us: int
    to_us: int
    log_key: VerifierKey
    witness_keys: Sequence[CosignerKey] = ()
    since: str | None = None


class Chosen(NamedTuple):
    """The leaves [first, end) of a pack, and what was counted in them.

    `pruned`: whether the time asked for begins before what the log still holds.
    """

    first: int
    end: int
    report: PackReport
    pruned: bool

    @property
    def missing(self) -> int:
        """How many numbers nothing in the log accounts for."""
        holes = [hole for found in self.report.instances.values() for hole in found.missing()]
        return sum(hole.last - hole.first + 1 for hole in holes)


def choose(reader: LogReader, wanted: Wanted) -> Chosen:
    """The leaves of the range, and those around it that account for its numbers.

    Cost: one pass over the log, a second one where numbers are out of order at the edges.

    Raises:
        LeafPruned: every record of that time was pruned.
        NotFound: no signed record is of that time.
        NotYetCheckpointed: a record that belongs here is not signed yet; ask again in a second.
        NoteError, LogDamaged, DecodeError: the log does not verify.
    """
    size = chain_of(reader.directory, wanted.log_key).open(reader.checkpoint()).size
    begin, asked_us = reader.first(), wanted.from_us
    if begin:
        begin, wanted = _behind_pruned(reader, begin, wanted)
    first = end = 0
    for leaf, event in _events(reader, begin, size):
        if wanted.from_us <= event["time_us"] < wanted.to_us:
            first, end = (first if end else leaf), leaf + 1
    if not end:
        raise NotFound(f"could not export: none of the {size} signed records is of that time")
    while True:
        report = PackReport(from_us=wanted.from_us, to_us=wanted.to_us)
        for leaf, event in _events(reader, first, end):
            report.add(leaf, event)
        low, high = _explained(reader, report, first, end, begin)
        if high > size:
            raise NotYetCheckpointed(f"could not export: leaf {high - 1} is not signed yet")
        if (low, high) == (first, end):
            return Chosen(first, end, report, wanted.from_us > asked_us)
        first, end = low, high


def _events(reader: LogReader, start: int, end: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for leaf, data in reader.raw(start, end):
        event = loads(data)
        if not isinstance(event, dict) or type(event.get("time_us")) is not int:
            raise DecodeError(f"could not export: leaf {leaf} is not an event")
        yield leaf, event


def _behind_pruned(reader: LogReader, begin: int, wanted: Wanted) -> tuple[int, Wanted]:
    """Where a pack of a pruned log may begin: a pack shows one record before its first one.

    That one is the first that the log holds, so the time of the pack begins after it.
    """
    (_, event), *_ = _events(reader, begin, begin + 1)
    from_us = max(wanted.from_us, event["time_us"] + 1)
    if from_us >= wanted.to_us:
        raise LeafPruned(
            f"could not export: the records of that time were pruned; those before leaf {begin} "
            "are gone"
        )
    return begin + 1, replace(wanted, from_us=from_us)


def _explained(
    reader: LogReader, report: PackReport, first: int, end: int, begin: int
) -> tuple[int, int]:
    """The leaves [low, high) that hold [first, end) and whatever accounts for its holes."""
    holes = {name: holes for name, f in report.instances.items() if (holes := f.missing())}
    low, high = first, end
    if holes:
        for leaf, event in _events(reader, begin, reader.size()):
            if explains(event, holes):
                low, high = min(low, leaf), max(high, leaf + 1)
    return low, high
