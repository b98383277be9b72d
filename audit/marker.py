r"""How far readers in other processes may believe the write-ahead log: the `committed` file.

36 bytes, big-endian: 8 bytes "WBMARK1\n", uint64 leaves, uint64 first leaf of the last segment,
uint64 bytes of that segment, uint32 CRC-32 of the bytes before.
Rule: the writer overwrites it in place after each fdatasync of the log, without syncing it: after
a power cut it may be older than the log (recovery then moves it forward), never newer. So a log
that is shorter than its marker has lost acknowledged records.
Rule: by system calls, not through memory: a mapped file that somebody truncates ends the process
that touches it. One that was emptied is whole again after the next group; until then readers refuse
to go on.
Read next: wal.py (who writes it), reader.py (who follows it).
"""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .errors import LogDamaged
from .files import replace_file
from .frames import segments

MARKER_NAME = "committed"
_MAGIC = b"WBMARK1\n"
_MARKER = struct.Struct(">8sQQQ")
_CRC = struct.Struct(">I")
_ATTEMPTS = 100


class Position(NamedTuple):
    """The end of the committed log: leaves, the last segment's first leaf, bytes in it."""

    leaves: int = 0
    segment: int = 0
    offset: int = 0


def format_marker(position: Position) -> bytes:
    """The bytes of the marker; the inverse of `parse_marker`."""
    head = _MARKER.pack(_MAGIC, *position)
    return head + _CRC.pack(zlib.crc32(head))


def parse_marker(raw: bytes) -> Position | None:
    """The position in a marker's bytes, or None when they are not one."""
    if len(raw) != _MARKER.size + 4 or raw[:8] != _MAGIC:
        return None
    if zlib.crc32(raw[: _MARKER.size]) != _CRC.unpack_from(raw, _MARKER.size)[0]:
        return None
    return Position(*_MARKER.unpack_from(raw)[1:])


def read_marker(directory: Path) -> Position:
    """The committed end of the log in `directory`; position zero if there is no log yet.

    A read may meet a write half-way; such a torn read is simply made again.

    Raises:
        LogDamaged: the marker is damaged, or missing beside existing segments.
    """
    path = directory / MARKER_NAME
    raw = None
    for _ in range(_ATTEMPTS):
        raw = _read(path)
        position = None if raw is None else parse_marker(raw)
        if position is not None:
            return position
        if raw is None and not segments(directory):
            return Position()
    raise _damaged(path, raw)


def recover_marker(directory: Path) -> Position:
    """As `read_marker`, for the writer's recovery: a marker that never reached the disk counts 0.

    A power cut can leave it missing, empty or all zeros, since it is never synced. Removing the
    file by hand therefore makes recovery rely on the signed checkpoint alone.

    Raises:
        LogDamaged: it holds anything else.
    """
    raw = _read(directory / MARKER_NAME)
    if raw is None or not any(raw):
        return Position()
    position = parse_marker(raw)
    if position is None:
        raise _damaged(directory / MARKER_NAME, raw)
    return position


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _damaged(path: Path, raw: bytes | None) -> LogDamaged:
    found = "no such file" if raw is None else f"{len(raw)} other bytes"
    return LogDamaged(path, offset=0, expected="a marker with a matching checksum", found=found)


class MarkerWriter:
    """Overwrites the marker in place, for one thread."""

    def __init__(self, directory: Path, position: Position) -> None:
        self._path = path = directory / MARKER_NAME
        data = format_marker(position)
        if not path.exists() or path.stat().st_size != len(data):
            replace_file(path, data)
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.write(position)

    def write(self, position: Position) -> None:
        """Publish `position`, whose bytes are durable; about 2 µs."""
        if self._fd is None:
            return
        data = format_marker(position)
        # The group is stored whatever comes of this: readers see it with the next one, and
        # recovery moves the marker forward.
        with suppress(OSError):
            if not os.fstat(self._fd).st_nlink:  # it was removed, and nobody would read this
                replace_file(self._path, data, durable=False)
                fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
                os.close(self._fd)
                self._fd = fd
            os.pwrite(self._fd, data, 0)

    def close(self) -> None:
        """Release the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
