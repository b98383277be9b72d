"""The payload files as a verifier reads them, without any key: whole, and not shortened.

Rule: up to the watermark of the last committed group every byte must be part of a whole record;
what follows was never acknowledged. A segment before that one is as long as the last group says
that had payloads in it. Whether an erased key is gone is what its slot says, wherever
the log ends: with groups lost, the watermark is too low. Reports to a Collector.
Read next: verify.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from isal.isal_zlib import crc32

from .blobfile import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    blob_segment_path,
    format_blob_header,
    parse_record_header,
)
from .completeness import LogEnd
from .contents import Erased
from .findings import Collector
from .frames import Watermark, only_zeros
from .keytree import place_of
from .payloads import slot_of
from .sealfiles import damaged_keys, is_erased, node_path, roots_lost, roots_path
from .subjects import DESTROYED, SLOT_BYTES, holds_key, parse_slot, slots_path

_STEP = 9
_READ_BYTES = 1 << 18
_CLOSED = LogEnd(0, 0.0)


def check_payload_files(
    directory: Path,
    watermark: Watermark,
    found: Collector,
    erased: Sequence[Erased] = (),
    end: LogEnd = _CLOSED,
    *,
    first_segment: int = 0,
    ends: Mapping[int, int] = MappingProxyType({}),
    sealed: bool = False,
) -> None:
    """Step 9: every payload segment and every key slot, and no key where the log says it is gone.

    Args:
        directory: the log's.
        watermark: of the last committed group.
        found: told of what does not hold.
        erased: what the log's erasures say.
        end: of the log; an erasure that is near it may be under way.
        first_segment: the first payload segment that pruning left.
        ends: how long earlier segments are at least, where the log says so.
        sealed: whether records have parts that are sealed under subjects' keys.
    """
    path = slots_path(directory)
    slots = path.read_bytes() if path.exists() else b""
    dead = _check_slots(str(path.relative_to(directory)), slots, watermark.subjects, found)
    for number in range(first_segment, watermark.blob_segment + 1):
        last = number == watermark.blob_segment
        upto = watermark.blob_bytes if last else None
        _check_segment(directory, number, upto, found, dead, least=ends.get(number, 0))
    lost = set[Path]()
    for path, offset in damaged_keys(directory):
        name, state = str(path.relative_to(directory)), "damaged" if path.exists() else "missing"
        found.problem(_STEP, f"the keys of sealed parts are {state}", file=name, offset=offset)
        if not offset:
            lost.add(path)
    if roots_lost(directory) or (sealed and not roots_path(directory).exists()):
        name = str(roots_path(directory).relative_to(directory))
        says = "records with sealed parts say so" if sealed else "the folder beside it says so"
        found.problem(_STEP, f"missing, but there were keys of sealed parts: {says}", file=name)
    for erasure in erased:
        alive = [f"slot {slot}" for slot in erasure.slots if _has_key(slots, slot)]
        asked = {roots_path(directory), node_path(directory, place_of(erasure.unit_ref).root)}
        if not asked & lost and not is_erased(directory, erasure.unit_ref, erasure.id):
            alive.append("the tree of sealed parts")
        if alive and not end.near(erasure.time_us):
            message = f"erased, but keys are there (again): {', '.join(alive)}"
            found.problem(_STEP, message, leaf=erasure.leaf)
        elif alive:
            found.note(f"the erasure of leaf {erasure.leaf} may be under way")


def _check_segment(
    directory: Path,
    number: int,
    upto: int | None,
    found: Collector,
    dead: set[int],
    *,
    least: int,
) -> None:
    path = blob_segment_path(directory, number)
    name = str(path.relative_to(directory))
    if not path.exists():
        if upto != 0:
            found.problem(_STEP, "missing, but the log has payloads in it", file=name)
        return
    size = path.stat().st_size
    end = max(size, least) if upto is None else max(upto, SEGMENT_HEADER_BYTES)
    if size < end:
        found.problem(
            _STEP,
            f"truncated: the log vouches for {end} bytes, it has {size}",
            file=name,
            offset=size,
        )
    with path.open("rb", buffering=_READ_BYTES) as file:
        if file.read(SEGMENT_HEADER_BYTES) != format_blob_header(number):
            found.problem(_STEP, "its header is damaged", file=name, offset=0)
        offset = SEGMENT_HEADER_BYTES
        while offset < min(end, size):
            raw = file.read(RECORD_HEADER_BYTES)
            if upto is None and offset >= least and not any(raw) and only_zeros(file):
                return  # room that was reserved and not cut off
            header = parse_record_header(raw)
            body = b"" if header is None else file.read(header.meta_bytes + header.sealed_bytes)
            if header is None or crc32(body) != header.crc:
                found.problem(_STEP, "a payload is damaged", file=name, offset=offset)
                if header is None:
                    return
            found.count("payloads")
            if header is not None:
                offset += RECORD_HEADER_BYTES + len(body)
                if dead and slot_of(body[: header.meta_bytes]) in dead:
                    found.count("erased payloads")


def _has_key(raw: bytes, number: int) -> bool:
    """Whether a slot is there and holds a key, or what may be left of one."""
    one = raw[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]
    slot = parse_slot(one)
    return holds_key(one) if slot is None else slot.state != DESTROYED


def _check_slots(name: str, raw: bytes, count: int, found: Collector) -> set[int]:
    """Check each; the numbers of those that were destroyed."""
    dead = set()
    if len(raw) < count * SLOT_BYTES:
        found.problem(
            _STEP, f"truncated: the log vouches for {count} key slots", file=name, offset=len(raw)
        )
    for number in range(min(count, len(raw) // SLOT_BYTES)):
        slot = parse_slot(raw[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])
        if slot is None:
            found.problem(_STEP, "a key slot is damaged", file=name, offset=number * SLOT_BYTES)
        elif slot.state == DESTROYED:
            found.count("erased key slots")
            if any(slot.nonce) or any(slot.wrapped):
                place = number * SLOT_BYTES
                found.problem(_STEP, "a destroyed slot holds bytes", file=name, offset=place)
            dead.add(number)
        else:
            found.count("key slots")
    return dead
