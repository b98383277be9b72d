"""The tree as files that anybody can serve: C2SP tlog-tiles.

    <log>/tile/<L>/<N>[.p/<W>]          256 (or W) hashes of 32 bytes
    <log>/tile/entries/<N>[.p/<W>]      256 (or W) entries, each behind a big-endian uint16 length

Tile (L, n) holds MTH(D[(n*256 + i) * 256**L : (n*256 + i + 1) * 256**L]) for i in 0..255; <N> is
written in groups of three digits, all but the last behind an `x` (1234067 = x001/x234/067).
Rule: tiles are derived from the write-ahead log and may be thrown away; a tile file, once it has
its name, is whole and never changes. Nothing here decides what is true: a reader checks the root.
Read next: publish.py (who writes them), merkle.py (who reads hashes).
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LogDamaged
from .files import replace_file
from .merkle import Frontier, leaf_hash, node_hash, peaks

WIDTH = 256
HASH_BYTES = 32
_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Tile:
    """A place in the tree: level (-1 for entries), index, and width (256 when full)."""

    level: int
    index: int
    width: int

    def path(self) -> str:
        """Where it lies below the log's directory."""
        name = f"{self.index % 1000:03d}"
        rest = self.index // 1000
        while rest:
            name, rest = f"x{rest % 1000:03d}/{name}", rest // 1000
        level = "entries" if self.level < 0 else str(self.level)
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{name}{suffix}"


def place_of(path: str) -> tuple[int, int]:
    """Level and index in the path of a tile, full or partial; (-1, -1) of something else."""
    level, *parts = path.removeprefix("tile/").partition(".p/")[0].split("/")
    name = "".join(part.removeprefix("x") for part in parts)
    if not name.isdecimal() or not (level == "entries" or level.isdecimal()):
        return -1, -1
    return -1 if level == "entries" else int(level), int(name)


def tiles_of(size: int, first: int = 0) -> Iterator[Tile]:
    """Every tile of a tree of `size` leaves, entry bundles included.

    Args:
        size: of the tree.
        first: C2SP's minimum index; full tiles that end before it are left out.
    """
    for level in range(-1, 64):
        count = size >> (8 * max(level, 0))
        if count == 0:
            return
        full, part = divmod(count, WIDTH)
        gone = first >> 8 * (max(level, 0) + 1)
        yield from (Tile(level, index, WIDTH) for index in range(gone, full))
        if part:
            yield Tile(level, full, part)


def partial_tiles_of(size: int) -> list[Tile]:
    """The tiles on the right edge of a tree of `size` leaves."""
    found = []
    for level in range(-1, 8):
        full, part = divmod(size >> (8 * max(level, 0)), WIDTH)
        if part:
            found.append(Tile(level, full, part))
    return found


def format_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries behind their lengths; the inverse of `parse_bundle`."""
    pack = _LENGTH.pack
    return b"".join([part for entry in entries for part in (pack(len(entry)), entry)])


def parse_bundle(data: bytes, count: int) -> list[bytes]:
    """Exactly `count` entries that fill `data` exactly; the inverse of `format_bundle`.

    Raises:
        ValueError: the lengths do not add up.
    """
    entries, position, unpack = [], 0, _LENGTH.unpack_from
    try:
        for _ in range(count):
            start = position + 2
            position = start + unpack(data, position)[0]
            entries.append(data[start:position])
    except struct.error as exc:
        raise ValueError(f"it ends before entry {len(entries)} of {count}") from exc
    if position != len(data):
        raise ValueError(f"its {count} entries take {position} bytes, it has {len(data)}")
    return entries


class TileReader:
    """A HashReader over the tile files of a tree of `size` leaves.

    Raises (from `node`):
        LogDamaged: a tile is missing or has the wrong length.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._size = size
        self._cache: dict[tuple[int, int], bytes] = {}

    def node(self, level: int, index: int) -> bytes:
        """See merkle.HashReader."""
        tile_level, height = divmod(level, 8)
        first = index << height
        tile = self.hashes(tile_level, first // WIDTH)
        row = [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]
        row = row[first % WIDTH : first % WIDTH + (1 << height)]
        for _ in range(height):
            row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        return row[0]

    def hashes(self, level: int, index: int) -> bytes:
        """The hashes of one tile, back to back."""
        found = self._cache.get((level, index))
        if found is None:
            found = self._cache[level, index] = self._read(level, index)
            if len(self._cache) > 4096:
                self._cache.pop(next(iter(self._cache)))
        return found

    def _read(self, level: int, index: int) -> bytes:
        count = (self._size >> (8 * level)) - index * WIDTH
        wanted = min(count, WIDTH)
        full = self._directory / Tile(level, index, WIDTH).path()
        path = self._directory / Tile(level, index, wanted).path()
        try:
            data = _read_either(path, full)
        except OSError as exc:
            raise LogDamaged(path, offset=None, expected="a tile", found=str(exc)) from exc
        if len(data) not in (wanted * HASH_BYTES, WIDTH * HASH_BYTES):
            raise LogDamaged(
                path, offset=None, expected=f"{wanted} hashes", found=f"{len(data)} bytes"
            )
        return data[: wanted * HASH_BYTES]


class TileBuilder:
    """Grows the tree from entries in order, and hands each full tile to a sink.

    Args:
        full: called with every tile and bundle that fills up, and its bytes.
    """

    def __init__(self, full: Callable[[Tile, bytes], None]) -> None:
        self._full = full
        self.frontier = Frontier()
        self._entries: list[bytes] = []
        self._rows: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        """How many leaves it has taken."""
        return self.frontier.size

    def append(self, entry: bytes) -> None:
        """Take the next entry. What the sink raises leaves this builder spoilt."""
        leaf = leaf_hash(entry)
        self._entries.append(entry)
        self._push(0, self.frontier.size, leaf)
        for subtree in self.frontier.append(leaf):
            if subtree.level == 8:
                self._full(Tile(-1, subtree.index, WIDTH), format_bundle(self._entries))
                self._entries.clear()
            self._push(subtree.level // 8, subtree.index, subtree.root)

    def begin(self, size: int, peaks: Sequence[bytes], rows: Mapping[int, bytes]) -> None:
        """Begin at leaf `size` instead of 0: where a pruned log begins (boundary.py)."""
        self.frontier = Frontier(size, peaks)
        for level, row in rows.items():
            hashes = (row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES))
            self._row(level).extend(hashes)

    def edge(self) -> list[tuple[Tile, bytes]]:
        """The partial tiles on the right edge, with their bytes."""
        return [(tile, self._content(tile.level)) for tile in partial_tiles_of(self.size)]

    def resume(self, directory: Path, size: int) -> None:
        """Continue at a tree of `size` leaves whose tiles are on disk.

        Raises:
            LogDamaged: they are not all there. The caller compares the root, and rebuilds.
        """
        reader = TileReader(directory, size)
        self.frontier = Frontier(size, peaks(reader, size))
        for tile in partial_tiles_of(size):
            if tile.level < 0:
                self._entries = _read_bundle(directory, tile)
            else:
                row = reader.hashes(tile.level, tile.index)
                hashes = (row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES))
                self._row(tile.level).extend(hashes)

    def _content(self, level: int) -> bytes:
        return format_bundle(self._entries) if level < 0 else b"".join(self._row(level))

    def _row(self, level: int) -> list[bytes]:
        while len(self._rows) <= level:
            self._rows.append([])
        return self._rows[level]

    def _push(self, level: int, index: int, value: bytes) -> None:
        row = self._row(level)
        row.append(value)
        if len(row) == WIDTH:
            self._full(Tile(level, index // WIDTH, WIDTH), b"".join(row))
            row.clear()


def write_tile(directory: Path, tile: Tile, data: bytes) -> None:
    """Put a tile in its place, whole; a full one takes the place of its partial ones.

    Raises:
        OSError: it is not there.
    """
    path = directory / tile.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    # If we crash here, the tile is missing or whole; missing ones are rebuilt on open.
    replace_file(path, data, durable=False)
    if tile.width == WIDTH:
        _drop_partials(path)


def _drop_partials(full: Path) -> None:
    folder = full.with_name(full.name + ".p")
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _read_either(partial: Path, full: Path) -> bytes:
    """A partial tile, or the full one that has taken its place."""
    try:
        return partial.read_bytes()
    except FileNotFoundError:
        return full.read_bytes()


def _read_bundle(directory: Path, tile: Tile) -> list[bytes]:
    path = directory / tile.path()
    try:
        return parse_bundle(path.read_bytes(), tile.width)
    except (OSError, ValueError) as exc:
        raise LogDamaged(path, offset=None, expected="an entry bundle", found=str(exc)) from exc
