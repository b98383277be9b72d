r"""Which ids the log's older records have, in files that are searched without reading them whole.

    <log>/ids/<8 digits>.run
        "WBIDS1\r\n", uint64 covered, uint32 number of ids, uint32 CRC-32 of what follows,
        uint16 and uint16 lengths of the least and the greatest id, both ids, zeros up to a
        multiple of 8 bytes, the ids' keys (uint64 each, ascending), their leaves (uint64 each)

    <log>/ids/lost               for each time that it was found at a start, a line of two decimal
                                 numbers: of the pruned leaves from the first to before the second
                                 one no run has the ids any more

`covered`: the ids of all leaves below it are in this run or in an earlier one. A key is the last 8
bytes of a UUID, which are random, or 8 bytes of the SHA-256 of another id. Little-endian.
Rule 1: derived, and proves nothing: what is found is compared with the log by whoever asks. Runs
that are damaged, or of another log, are thrown away and made again. Those of pruned leaves cannot
be: that they are lost is noted, since an append that is tried again after its record was pruned is
stored a second time then.
Rule 2: a search looks into the runs whose range of ids holds the id; ids carry their time, so for
an id of a minute ago that is one run or two, and costs some microseconds.
Read next: olderids.py (who writes and asks).
"""

import hashlib
import mmap
import struct
import sys
import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .files import make_directory, replace_file

__all__ = ["FOLDER", "IdRuns", "LostIds", "key_of", "lost_ids"]

FOLDER = "ids"
_LOST_NAME = "lost"
_MAGIC = b"WBIDS1\r\n"
_HEAD = struct.Struct("<8sQIIHH")
_UUID_CHARS = 36
_FIRST_BITS = 10
_PAUSE_AFTER, _PAUSE_S = 512, 5e-5


class _Run(NamedTuple):
    covered: int
    least: str
    greatest: str
    keys: "memoryview | array[int]"
    leaves: "memoryview | array[int]"


class LostIds(NamedTuple):
    """Ranges of pruned leaves whose ids are lost: noted at a start, and not noted yet."""

    noted: list[tuple[int, int]]
    found: tuple[int, int] | None


def lost_ids(directory: Path, first_leaf: int) -> LostIds:
    """Which ids of pruned leaves no run has; reads only.

    Args:
        directory: the log's.
        first_leaf: that it holds.
    """
    covered, noted = 0, _noted(directory / FOLDER)
    for run in _whole_runs(sorted((directory / FOLDER).glob("*.run"))):
        covered = run.covered
    return LostIds(noted, _not_noted(noted, covered, first_leaf))


def key_of(event_id: str) -> int:
    """What stands for an id in a run; two ids may have the same."""
    if len(event_id) == _UUID_CHARS:
        with suppress(ValueError):
            return int(event_id[19:23] + event_id[24:], 16)
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big")


class IdRuns:
    """The runs of one log. `find` may be called while another thread is in `write`.

    Attributes:
        covered: the ids of all leaves below this are in the runs.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._runs: list[_Run] = []
        self._reach: list[str] = []  # the greatest id of each run and all before it
        self.covered = 0

    def load(self, size: int) -> None:
        """Open the runs that are whole, up to the first that is not; later ones are removed.

        Args:
            size: of the log; a run that knows more is another log's, and so are all.
        """
        self._runs, self._reach, self.covered = [], [], 0
        paths = sorted(self._folder.glob("*.run"))
        for run in _whole_runs(paths):
            self._take(run)
        if self.covered > size:
            self._runs, self._reach, self.covered = [], [], 0
        for path in paths[len(self._runs) :]:
            path.unlink()

    def note_lost(self, first_leaf: int) -> list[tuple[int, int]]:
        """Note that the ids of pruned leaves are lost, if some are; all that ever were.

        Args:
            first_leaf: that the log holds.
        """
        noted = _noted(self._folder)
        found = _not_noted(noted, self.covered, first_leaf)
        if found is not None:
            noted.append(found)
            make_directory(self._folder)
            lines = "".join(f"{start} {end}\n" for start, end in noted)
            replace_file(self._folder / _LOST_NAME, lines.encode())
        return noted

    def forget(self) -> None:
        """Throw everything away; it is not this log's."""
        self._runs, self._reach, self.covered = [], [], 0
        for path in self._folder.glob("*.run"):
            path.unlink()

    def write(self, ids: Mapping[str, int], covered: int) -> None:
        """Add a run; durable when this returns.

        Args:
            ids: leaves by id; not empty.
            covered: see the class.

        Raises:
            OSError: it was not added.
        """
        names = list(ids)
        keys = _keys(names)
        order = _in_order(keys)
        leaves = list(ids.values())
        run = _Run(
            covered,
            min(names),
            max(names),
            array("Q", [keys[place] for place in order]),
            array("Q", [leaves[place] for place in order]),
        )
        make_directory(self._folder)
        # If we crash here, the log is read again from where the run before ended.
        replace_file(self._folder / _name(len(self._runs)), _format(run))
        self._take(run)

    def find(self, event_id: str) -> list[int]:
        """The leaves that may have this id; few, and mostly none."""
        key, found = 0, []
        for run in self._runs[bisect_left(self._reach, event_id) :]:
            if run.least <= event_id <= run.greatest:
                key = key or key_of(event_id)
                place = bisect_left(run.keys, key)
                while place < len(run.keys) and run.keys[place] == key:
                    found.append(run.leaves[place])
                    place += 1
        return found

    def greatest(self) -> str:
        """The greatest id of all; empty without any."""
        return self._reach[-1] if self._reach else ""

    def _take(self, run: _Run) -> None:
        self.covered = run.covered
        self._runs.append(run)
        self._reach.append(max(self.greatest(), run.greatest))


def _whole_runs(paths: list[Path]) -> Iterator[_Run]:
    """The runs up to the first that is missing or not whole."""
    for number, path in enumerate(paths):
        run = _read(path) if path.name == _name(number) else None
        if run is None:
            return
        yield run


def _noted(folder: Path) -> list[tuple[int, int]]:
    try:
        words = (folder / _LOST_NAME).read_text(encoding="ascii").split()
        return [(int(words[at]), int(words[at + 1])) for at in range(0, len(words), 2)]
    except (OSError, ValueError, IndexError):
        return []  # it is found again, if no run was written since


def _not_noted(
    noted: list[tuple[int, int]], covered: int, first_leaf: int
) -> tuple[int, int] | None:
    if covered >= first_leaf or any(a <= covered and first_leaf <= b for a, b in noted):
        return None
    return covered, first_leaf


def _name(number: int) -> str:
    return f"{number:08d}.run"


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


def _format(run: _Run) -> bytes:
    least, greatest = run.least.encode(), run.greatest.encode()
    ids = least + greatest
    body = ids + bytes(-(len(ids) + _HEAD.size) % 8) + _little(run.keys) + _little(run.leaves)
    sizes = len(run.keys), zlib.crc32(body), len(least), len(greatest)
    return _HEAD.pack(_MAGIC, run.covered, *sizes) + body


def _little(numbers: "memoryview | array[int]") -> bytes:
    found = array("Q", numbers)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def _read(path: Path) -> _Run | None:
    """A run, whole; None if it is not."""
    try:
        with path.open("rb") as file:
            raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, covered, count, crc, low, high = _HEAD.unpack_from(raw)
        start = _HEAD.size + low + high
        start += -start % 8
        if magic != _MAGIC or len(raw) != start + 16 * count or not count:
            return None
        if zlib.crc32(raw[_HEAD.size :]) != crc:
            return None
        ids = bytes(raw[_HEAD.size : _HEAD.size + low + high])
        keys, leaves = raw[start : start + 8 * count], raw[start + 8 * count :]
        return _Run(covered, ids[:low].decode(), ids[low:].decode(), _native(keys), _native(leaves))
    except (OSError, ValueError, struct.error):
        return None


def _native(raw: memoryview) -> "memoryview | array[int]":
    if sys.byteorder == "little":
        return raw.cast("Q")
    found = array("Q", raw.tobytes())
    found.byteswap()
    return found
