"""Finding one record by its id alone, in a log of any size, without an index.

Rule 1: an id carries its time (UUIDv7) and segments lie in the order of time, so the segment that
begins just before that time is looked into first, then its neighbours. What is found is compared.
Rule 2: not to be found here says nothing: clocks differ, and a record may come late, or its id be
of another kind. Then the index is asked (index.py), which knows every leaf once it has read them.
Cost: some reads of one group for each doubling of the log, and 30 ms for each segment looked into;
an index of 10^8 leaves takes an hour to make.
Read next: index.py (who asks).
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

import orjson

from .errors import AuditError
from .frames import segments
from .reader import LogReader
from .record import id_time_us

__all__ = ["locate"]

_NEIGHBOURS = 2


def locate(reader: LogReader, event_id: str) -> int | None:
    """The leaf of the record with this id, if it lies where its time says; else None."""
    time_us = id_time_us(event_id)
    if time_us is None:
        return None
    with suppress(AuditError):  # pruned meanwhile, or damaged: whoever reads on names it
        begins, size = reader.first(), reader.size()
        starts = [first for first, _ in segments(reader.directory) if begins <= first < size]
        likely = bisect_right(starts, time_us, key=lambda leaf: _time_us(reader, leaf)) - 1
        for place in _outward(max(likely, 0), len(starts)):
            end = starts[place + 1] if place + 1 < len(starts) else size
            leaf = _within(reader, starts[place], end, event_id)
            if leaf is not None:
                return leaf
    return None


def _outward(place: int, count: int) -> Iterator[int]:
    """A place, then its neighbours, the later one first: records come after their ids."""
    if place < count:
        yield place
    for step in range(1, _NEIGHBOURS + 1):
        yield from (near for near in (place + step, place - step) if 0 <= near < count)


def _time_us(reader: LogReader, leaf: int) -> int:
    for _, data in reader.raw(leaf, leaf + 1):
        body = orjson.loads(data)
        time_us = body.get("time_us") if isinstance(body, dict) else None
        return time_us if isinstance(time_us, int) else 0
    return 0


def _within(reader: LogReader, start: int, end: int, event_id: str) -> int | None:
    wanted = f'"id":"{event_id}"'.encode()
    for first, bundle in reader.bundles(start, end):
        found = bundle.data.find(wanted)
        while found >= 0:
            place = bisect_right(bundle.starts, found) - 1
            if place >= 0 and found < bundle.ends[place]:
                body = orjson.loads(bundle[place])
                if isinstance(body, dict) and body.get("id") == event_id:
                    return first + place
            found = bundle.data.find(wanted, found + 1)
    return None
