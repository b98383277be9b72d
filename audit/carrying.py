"""What later readers need of records that are pruned: taken along, each with the proof that it was.

    carried over                        while
    the last definition of each experiment     always: decisions that follow were assigned by it
    the last registration of each version      always
    the version that leads each model          always
    key rotations                              always
    the epoch of an instance                   its numbers go on
    legal holds                                they stand
    erasures                                   a payload segment that is kept was written under one
                                               of their key slots
    up to where each instance's numbers were accounted for   it is among the last 512 (not as a
                                               record of its own: in the `pruned` record)
Not carried: outcomes (who takes them may know pruned ones all the same), explanations, fairness
windows, accesses. What was carried before is carried again, and its path grows to the new frontier.
Boundary: reads the log and its tiles; makes events, writes nothing.
Read next: pruning.py.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .blobfile import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    blob_segment_path,
    blob_segments,
    parse_record_header,
)
from .boundary import read_boundary
from .canonical import JSON, loads
from .completeness import Completeness
from .events import Carried
from .frames import Watermark
from .frontier import path_to_peak
from .merkle import HashReader
from .payloads import slot_of
from .reader import LogReader
from .record import new_id
from .standing import Standing

__all__ = ["Kept", "carry_over", "slots_in_use"]

_INSTANCES = 512
_TURN = 64
_KINDS = (
    b'"type":"assignment_config"',
    b'"type":"model_registered"',
    b'"type":"model_promoted"',
    b'"type":"model_rolled_back"',
    b'"type":"key_rotation"',
    b'"type":"epoch"',
    b'"type":"legal_hold"',
    b'"type":"erasure"',
)
_NUMBERED = (b'"type":"decision"', b'"type":"gap"')


class _Found(NamedTuple):
    leaf: int
    record: dict[str, JSON]
    path: list[bytes]  # as far as it was carried before


class Kept(NamedTuple):
    """What goes into the log before the leaves go."""

    events: list[Carried]
    numbers: list[dict[str, JSON]]


def carry_over(
    reader: LogReader,
    hashes: HashReader,
    first_leaf: int,
    standing: Standing,
    in_use: frozenset[int],
    *,
    time_us: int,
) -> Kept:
    """What is in force of the leaves before `first_leaf`, which go.

    Args:
        reader: of the log.
        hashes: of its tree.
        first_leaf: where the log will begin.
        standing: erasures and holds, as the log says now.
        in_use: the key slots that payloads that are kept are under.
        time_us: of the events.

    Raises:
        LogDamaged, DecodeError: the log cannot be read.
    """
    held = {name for holds in standing.holds.values() for name in holds}
    numbers, seen = _numbers(reader)
    found: dict[Hashable, _Found] = {}
    for leaf, data in reader.raw(None, first_leaf):
        if not leaf % _TURN:
            time.sleep(0)  # the event loop beside this thread gets its turn at once
        if any(kind in data for kind in _NUMBERED):
            _count(numbers, seen, loads(data))
        elif any(kind in data for kind in _KINDS):
            one = _unwrapped(leaf, loads(data))
            key = _key(one.record, held, in_use)
            if key is not None:
                found[key] = one
    states = numbers.state()
    last = list(seen)[-_INSTANCES:]
    events = [
        Carried(
            id=new_id(),
            time_us=time_us,
            was_leaf=one.leaf,
            record=one.record,
            first_leaf=first_leaf,
            path=[
                node.hex()
                for node in (
                    *one.path,
                    *path_to_peak(hashes, one.leaf, first_leaf, begun=len(one.path)),
                )
            ],
        )
        for one in sorted(found.values())
        if one.record["type"] != "epoch" or one.record.get("instance") in last
    ]
    said: list[dict[str, JSON]] = [
        {
            "instance": name,
            "through": states[name][0],
            "ahead": [[first, end] for first, end in states[name][1]],
        }
        for name in last
    ]
    return Kept(events, said)


def slots_in_use(
    directory: Path, first: int, upto: Watermark | None = None, *, start: int = 0
) -> frozenset[int]:
    """The key slots that payloads are under.

    Args:
        directory: the log's.
        first: the payload segment to begin with.
        upto: where to stop; at the end of what was written if None.
        start: the byte of the first one to begin with.
    """
    return frozenset(_slots(directory, first, upto, start))


def _slots(directory: Path, first: int, upto: Watermark | None, start: int) -> Iterator[int]:
    for number in blob_segments(directory):
        if number < first or (upto is not None and number > upto.blob_segment):
            continue
        last = upto is not None and number == upto.blob_segment
        end = upto.blob_bytes if upto is not None and last else 1 << 62
        with blob_segment_path(directory, number).open("rb") as file:
            offset = max(SEGMENT_HEADER_BYTES, start if number == first else 0)
            file.seek(offset)
            while offset < end:
                header = parse_record_header(file.read(RECORD_HEADER_BYTES))
                if header is None:
                    break
                slot = slot_of(file.read(header.meta_bytes))
                if slot is not None:
                    yield slot
                offset += RECORD_HEADER_BYTES + header.meta_bytes + header.sealed_bytes
                file.seek(offset)


def _numbers(reader: LogReader) -> tuple[Completeness, dict[str, None]]:
    """The numbers as the last pruning left them, and the instances in order of their last one."""
    numbers, seen = Completeness(), dict[str, None]()
    boundary = read_boundary(reader.directory)
    for said in boundary.record.numbers if boundary else ():
        ahead: Any = said["ahead"]
        name = str(said["instance"])
        numbers.resume(name, int(str(said["through"])), [(first, end) for first, end in ahead])
        seen[name] = None
    return numbers, seen


def _count(numbers: Completeness, seen: dict[str, None], body: Any) -> None:
    if body["type"] == "decision":
        numbers.decision(body["instance"], body["seq"], body["time_us"])
    elif body["type"] == "gap":
        numbers.gap(body["instance"], body["first_seq"], body["last_seq"])
    else:
        return
    seen.pop(body["instance"], None)
    seen[body["instance"]] = None


def _unwrapped(leaf: int, body: Any) -> _Found:
    if body["type"] == "carried":
        return _Found(body["was_leaf"], body["record"], [*map(bytes.fromhex, body["path"])])
    return _Found(leaf, body, [])


def _key(body: dict[str, Any], held: set[str], in_use: frozenset[int]) -> Hashable:
    """What a record is the last one of; None if it need not be carried over."""
    kinds: dict[str, Callable[[], Hashable]] = {
        "assignment_config": lambda: ("experiment", body["experiment"]),
        "model_registered": lambda: ("model", body["model"], body["version"]),
        "model_promoted": lambda: ("leading", body["model"]),
        "model_rolled_back": lambda: ("leading", body["model"]),
        "key_rotation": lambda: ("rotation", body["id"]),
        "epoch": lambda: ("epoch", body["instance"]) if body["instance"] else None,
        "legal_hold": lambda: ("hold", body["id"]) if body["id"] in held else None,
        "erasure": lambda: (
            ("erasure", body["id"]) if in_use.intersection(body.get("key_slots", ())) else None
        ),
    }
    choose = kinds.get(body["type"])
    return None if choose is None else choose()
