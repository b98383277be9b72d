r"""One run of ids: a file that is searched without being read whole.

        "WBIDS2\r\n", uint64 covered, uint32 number of ids, uint32 CRC-32 of what follows,
        uint16 and uint16 lengths of the least and the greatest id, both ids, zeros up to a
        multiple of 8 bytes, the ids' keys (uint64 each, ascending), their leaves (uint64 each)

`covered`: the ids of all leaves below it are in this run or in an earlier one. Runs of earlier
versions begin with "WBIDS1\r\n"; they may lack ids, whatever they say. A key is the last 8 bytes of
a UUID, of which 30 bits or more are random, or 8 bytes of the SHA-256 of another id.
Little-endian.
Rule: by system calls, not through memory: a mapped file that somebody truncates ends the process
that touches it. A search takes some twenty reads of eight bytes; a file that is not what it was any
more raises OSError.
Read next: idruns.py.
"""

import errno
import hashlib
import os
import struct
import sys
import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from .files import replace_file

__all__ = ["Run", "key_of", "read_run", "write_run"]

_MAGIC, _EARLIER = b"WBIDS2\r\n", b"WBIDS1\r\n"
_HEAD = struct.Struct("<8sQIIHH")
_UUID_CHARS = 36
_FIRST_BITS = 10
_PAUSE_AFTER, _PAUSE_S = 512, 5e-5


class Run(NamedTuple):
    """A run that was whole when it was written, or read at the start; its keys begin at `start`.

    It `vouches` for what `covered` says, unless an earlier version wrote it.
    """

    path: Path
    covered: int
    vouches: bool
    least: str
    greatest: str
    start: int
    size: int

    def search(self, key: int) -> list[int]:
        """The leaves of this key; few, and mostly none.

        Raises:
            OSError: the file cannot be read, or is shorter than it was.
        """
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:

            def number(place: int) -> int:
                raw = os.pread(file, 8, self.start + 8 * place)
                if len(raw) != 8:
                    raise OSError(errno.EIO, "a run of ids is shorter than it was", str(self.path))
                return int.from_bytes(raw, "little")

            places = range(self.size)
            first = bisect_left(places, key, key=number)
            same = takewhile(lambda place: number(place) == key, places[first:])
            return [number(self.size + place) for place in same]
        finally:
            os.close(file)


def key_of(event_id: str) -> int:
    """What stands for an id in a run; two ids may have the same."""
    if len(event_id) == _UUID_CHARS:
        with suppress(ValueError):
            return int(event_id[19:23] + event_id[24:], 16)
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big")


def write_run(path: Path, ids: Mapping[str, int], covered: int) -> Run:
    """Make a run of leaves by id, at least one; durable when this returns.

    Raises:
        OSError: it was not written.
    """
    names = list(ids)
    keys = _keys(names)
    order = _in_order(keys)
    leaves = list(ids.values())
    least, greatest = min(names), max(names)
    start, raw = _format(
        covered, least, greatest, [keys[at] for at in order], [leaves[at] for at in order]
    )
    replace_file(path, raw)
    return Run(path, covered, True, least, greatest, start, len(names))


def read_run(path: Path) -> Run | None:
    """A run, whole; None if it is not.

    Raises:
        OSError: it cannot be opened, and may be whole.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        if exc.errno in (errno.EIO, errno.ENOENT):
            return None
        raise
    try:
        magic, covered, count, crc, low, high = _HEAD.unpack_from(raw)
        start = _begin_of_keys(low, high)
        if magic not in (_MAGIC, _EARLIER) or len(raw) != start + 16 * count or not count:
            return None
        if zlib.crc32(memoryview(raw)[_HEAD.size :]) != crc:
            return None
        ids = raw[_HEAD.size : _HEAD.size + low + high]
        least, greatest = ids[:low].decode(), ids[low:].decode()
        return Run(path, covered, magic == _MAGIC, least, greatest, start, count)
    except (ValueError, struct.error):
        return None


def _keys(names: list[str]) -> "array[int]":
    """The keys of many ids at once; the same as `key_of`."""
    if all(len(name) == _UUID_CHARS for name in names):
        with suppress(ValueError):
            tails = "".join([name[19:23] + name[24:] for name in names])
            keys = array("Q", bytes.fromhex(tails))
            if sys.byteorder == "little":
                keys.byteswap()
            return keys
    return array("Q", map(key_of, names))


def _in_order(keys: "array[int]") -> list[int]:
    """The places of the keys from the least to the greatest.

    By their first bits before they are sorted: one long sort keeps the interpreter from everybody
    for as long as it takes, which is 20 ms for 32,768.
    """
    pieces: list[list[int]] = [[] for _ in range(1 << _FIRST_BITS)]
    for place, key in enumerate(keys):
        pieces[key >> 64 - _FIRST_BITS].append(place)
    order: list[int] = []
    rested = 0
    for piece in pieces:
        piece.sort(key=keys.__getitem__)
        order += piece
        if len(order) >= rested + _PAUSE_AFTER:
            rested = len(order)
            time.sleep(_PAUSE_S)
    return order


def _format(
    covered: int, least: str, greatest: str, keys: Sequence[int], leaves: Sequence[int]
) -> tuple[int, bytes]:
    """Where the keys begin, and the bytes of a run."""
    low, high = least.encode(), greatest.encode()
    start = _begin_of_keys(len(low), len(high))
    ids = (low + high).ljust(start - _HEAD.size, b"\0")
    body = ids + struct.pack(f"<{2 * len(keys)}Q", *keys, *leaves)
    sizes = len(keys), zlib.crc32(body), len(low), len(high)
    return start, _HEAD.pack(_MAGIC, covered, *sizes) + body


def _begin_of_keys(low: int, high: int) -> int:
    start = _HEAD.size + low + high
    return start + -start % 8
