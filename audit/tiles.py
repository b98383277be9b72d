"""The tree as files that anybody can serve: C2SP tlog-tiles.

    <log>/tile/<L>/<N>[.p/<W>]          256 (or W) hashes of 32 bytes
    <log>/tile/entries/<N>[.p/<W>]      256 (or W) entries, each behind a big-endian uint16 length

Tile (L, n) holds MTH(D[(n*256 + i) * 256**L : (n*256 + i + 1) * 256**L]) for i in 0..255; <N> is
written in groups of three digits, all but the last behind an `x` (1234067 = x001/x234/067).
Rule: tiles are derived from the write-ahead log and may be thrown away; a tile file, once it has
its name, is whole and never changes. Nothing here decides what is true: a reader checks the root.
Read next: publish.py (who writes them), merkle.py (who reads hashes).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .bundle import Bundle, format_bundle, parse_bundle
from .errors import LogDamaged
from .files import replace_file
from .merkle import Frontier, complete_root, leaf_hashes

WIDTH = 256
HASH_BYTES = 32
_AT_ONCE = 64


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


def edge_places(size: int) -> set[tuple[int, int]]:
    """Level and index of the hash tiles on the way from the right edge of a tree to any root.

    They, and the tiles of a larger tree, show that the first `size` leaves are its beginning, when
    those leaves themselves are gone.
    """
    return {(level, size >> 8 * (level + 1)) for level in range(8)}


def partial_tiles_of(size: int) -> list[Tile]:
    """The tiles on the right edge of a tree of `size` leaves."""
    found = []
    for level in range(-1, 8):
        full, part = divmod(size >> (8 * max(level, 0)), WIDTH)
        if part:
            found.append(Tile(level, full, part))
    return found


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
        return complete_root(row[first % WIDTH : first % WIDTH + (1 << height)])

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
        bundle: called with full bundles in place of `full`, with their bytes in pieces.
        pause: called between pieces of work of some tens of microseconds.

    Attributes:
        size: how many leaves it has taken.
    """

    def __init__(
        self,
        full: Callable[[Tile, bytes], None],
        bundle: Callable[[Tile, Sequence[bytes]], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:
        self._full = full
        self._pause = pause or (lambda: None)
        self._at_once = WIDTH if pause is None else _AT_ONCE
        self._full_bundle = bundle or (lambda tile, pieces: full(tile, b"".join(pieces)))
        self.size = 0
        self._bundle: list[bytes] = []  # pieces of the bundle that is filling up
        self._rows: list[list[bytes]] = [[]]

    @property
    def frontier(self) -> Frontier:
        """The right edge of the tree so far: its complete subtrees lie in the partial tiles."""
        peaks = []
        for row in reversed(self._rows):
            start = 0
            for width in (128, 64, 32, 16, 8, 4, 2, 1):
                if len(row) & width:
                    peaks.append(complete_root(row[start : start + width]))
                    start += width
        return Frontier(self.size, peaks)

    def append(self, entry: bytes) -> None:
        """Take the next entry; see `extend`."""
        self.extend(Bundle.of([entry]))

    def extend(self, entries: Bundle, leaves: Sequence[bytes] | None = None) -> None:
        """Take the next entries. What the sink raises leaves this builder spoilt.

        Args:
            entries: any number.
            leaves: their hashes, where the caller has them already.

        Cost: two hashes an entry, those of the nodes when their tile is full.
        """
        start, row = 0, self._rows[0]
        while start < len(entries):
            piece = entries[start : start + min(WIDTH - len(row), self._at_once)]
            if leaves is None:
                row += leaf_hashes(piece.views())
            else:
                row += leaves[start : start + len(piece)]
            start += len(piece)
            self.size += len(piece)
            self._bundle.append(piece.raw)
            if leaves is None:
                self._pause()
            if len(row) == WIDTH:
                self._full_bundle(Tile(-1, self.size // WIDTH - 1, WIDTH), self._bundle)
                self._bundle.clear()
                self._close(0)

    def begin(self, size: int, rows: Mapping[int, bytes]) -> None:
        """Begin at leaf `size` instead of 0: where a pruned log begins (boundary.py)."""
        self.size = size
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
        self.size = size
        for tile in partial_tiles_of(size):
            if tile.level < 0:
                self._bundle = [format_bundle(_read_bundle(directory, tile))]
            else:
                row = reader.hashes(tile.level, tile.index)
                hashes = (row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES))
                self._row(tile.level).extend(hashes)

    def _content(self, level: int) -> bytes:
        return b"".join(self._bundle if level < 0 else self._row(level))

    def _row(self, level: int) -> list[bytes]:
        while len(self._rows) <= level:
            self._rows.append([])
        return self._rows[level]

    def _close(self, level: int) -> None:
        """Hand out the full tile of this level, and put its root into the one above."""
        row, above = self._row(level), self._row(level + 1)
        self._full(Tile(level, (self.size >> 8 * (level + 1)) - 1, WIDTH), b"".join(row))
        above.append(self._root(row))
        row.clear()
        if len(above) == WIDTH:
            self._close(level + 1)

    def _root(self, row: Sequence[bytes]) -> bytes:
        parts = []
        for start in range(0, len(row), self._at_once):
            parts.append(complete_root(row[start : start + self._at_once]))
            self._pause()
        return complete_root(parts)


def write_tile(directory: Path, tile: Tile, data: bytes) -> None:
    """Put a tile in its place, whole; a full one takes the place of its partial ones.

    Raises:
        OSError: it is not there.
    """
    path = f"{directory}/{tile.path()}"
    # If we crash here, the tile is missing or whole; missing ones are rebuilt on open.
    try:
        replace_file(path, data, durable=False)
    except FileNotFoundError:  # it is the first of its folder
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, durable=False)
    if tile.width == WIDTH:
        _drop_partials(f"{path}.p")


def _drop_partials(folder: str) -> None:
    with suppress(FileNotFoundError):  # mostly there are none
        for name in os.listdir(folder):  # noqa: PTH208  quick
            os.unlink(f"{folder}/{name}")  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


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
