"""The tile files as a verifier compares them: each byte by byte with what the leaves say.

Rule: whole files are read to one place and compared in pieces; only where one differs is it looked
at which leaf is the first, and whether it was changed, taken out or moved. A living writer may
replace a partial tile while this reads: what must be there is looked at in the end.
Read next: tree.py (who rebuilds the tree), tiles.py (the files).
"""

import os
from collections.abc import Container, Sequence
from pathlib import Path

from .findings import Collector
from .tiles import HASH_BYTES, WIDTH, Tile, place_of, tiles_of

__all__ = ["TileChecker"]

_STEP = 4


class TileChecker:
    """Takes what the tiles must hold, then says what is missing and what is left over.

    Args:
        directory: the log's.
        found: told of what does not hold.
        first: the first leaf that the log holds.
    """

    def __init__(self, directory: Path, found: Collector, *, first: int) -> None:
        self._directory = directory
        self._found = found
        self._first = first
        self._files = _tile_files(directory)
        self._read = bytearray()

    def full(self, tile: Tile, pieces: Sequence[bytes]) -> None:
        """Compare a full tile or bundle; its pieces are only joined where one differs."""
        name = tile.path()
        if name + ".p" not in self._files.partial and self._holds(name, pieces):
            self._files.discard(name)
            self._found.count("bundles" if tile.level < 0 else "tiles")
            return
        data = b"".join(pieces)
        if name in self._files:
            self._files.discard(name)
            self._compare(tile, name, data)
        self.partials(tile.level, tile.index, data)

    def _holds(self, name: str, pieces: Sequence[bytes]) -> bool:
        """Whether a file holds these bytes and no others."""
        if name not in self._files:
            return False
        size = sum(map(len, pieces))
        if len(self._read) <= size:
            self._read = bytearray(size + 1)
        try:
            fd = os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # In one piece and always to the same place, which is several times as fast.
            with memoryview(self._read) as room:
                if os.readv(fd, [room[: size + 1]]) != size:
                    return False
        finally:
            os.close(fd)
        at = 0
        for piece in pieces:
            if not self._read.startswith(piece, at):
                return False
            at += len(piece)
        return True

    def partials(self, level: int, index: int, data: bytes) -> None:
        """Compare the partial tiles of a place with its row or bundle, as far as it goes."""
        folder = Tile(level, index, WIDTH).path() + ".p"
        if folder not in self._files.partial:
            return
        for width in sorted(self._files.partial[folder]):
            tile = Tile(level, index, width)
            self._files.discard(tile.path())
            expected = _prefix(data, level, width)
            if expected is None:
                self._found.problem(_STEP, "it holds more than the log", file=tile.path())
            else:
                self._compare(tile, tile.path(), expected)

    def missing(self, size: int) -> None:
        """Say which tiles of a tree of so many leaves are not there."""
        for tile in tiles_of(size, self._first):
            full = Tile(tile.level, tile.index, WIDTH).path()
            if full in self._files or tile.path() in self._files:
                continue
            if not any((self._directory / name).exists() for name in (tile.path(), full)):
                self._found.problem(_STEP, "missing", file=tile.path())

    def leftovers(self, kept: Container[tuple[int, int]], *, whole: bool) -> None:
        """Say which files are of no leaf.

        Args:
            kept: level and index of tiles that are kept although their leaves were pruned.
            whole: whether all leaves are there, so that such a file belongs to none.
        """
        for name in sorted(self._files.unchecked):
            if name.endswith(".tmp"):
                self._found.note(f"{name} is left over from a crash; it may be removed")
            elif place_of(name) in kept:
                continue
            elif self._pruned(name):
                self._found.note(f"{name} is of pruned leaves; the next start removes it")
            elif whole:
                self._found.problem(_STEP, "it belongs to no leaf of the log", file=name)

    def _compare(self, tile: Tile, name: str, expected: bytes) -> None:
        try:
            with open(f"{self._directory}/{name}", "rb", buffering=0) as file:  # noqa: PTH123  quick
                found = file.read()
        except FileNotFoundError:
            return  # a living writer replaced it since; what must be there is checked at the end
        self._found.count("bundles" if tile.level < 0 else "tiles")
        if found == expected:
            return
        at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), -1)
        offset = at if at >= 0 else min(len(found), len(expected))
        leaf, what = self._explain(tile, found, expected, offset)
        self._found.problem(
            _STEP, f"not what the log says: {what}", file=name, offset=offset, leaf=leaf
        )

    def _explain(
        self, tile: Tile, found: bytes, expected: bytes, offset: int
    ) -> tuple[int | None, str]:
        if len(found) != len(expected) and offset == min(len(found), len(expected)):
            return None, f"{len(found)} bytes instead of {len(expected)}"
        if tile.level > 0:
            return None, f"hash {offset // HASH_BYTES} differs"
        if tile.level < 0:
            return tile.index * WIDTH + _entry_at(expected, offset), "an entry differs"
        position = offset // HASH_BYTES
        leaf = tile.index * WIDTH + position
        tiles, log = _hashes(found), _hashes(expected)
        if position + 1 < len(tiles) and log[position] == tiles[position + 1]:
            return leaf, "the leaf that the tile holds here was taken out of the log"
        if log[position] in tiles:
            return leaf, f"the log has leaf {tile.index * WIDTH + tiles.index(log[position])} here"
        return leaf, "the hash of this leaf differs"

    def _pruned(self, name: str) -> bool:
        """Whether a full tile, or a partial one of its place, ends before the boundary."""
        level, index = place_of(name)
        return 0 <= index < self._first >> 8 * (max(level, 0) + 1)


class _TileFiles:
    def __init__(self, names: list[str]) -> None:
        self._all = frozenset(names)
        self.unchecked = set(names)
        self.partial: dict[str, list[int]] = {}
        for name in names:
            folder, _, width = name.rpartition("/")
            if folder.endswith(".p") and width.isdecimal() and 0 < int(width) < WIDTH:
                self.partial.setdefault(folder, []).append(int(width))

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def discard(self, name: str) -> None:
        self.unchecked.discard(name)


def _tile_files(directory: Path) -> _TileFiles:
    names = []
    for folder, _, files in os.walk(directory / "tile"):
        base = Path(folder).relative_to(directory)
        names += [str(base / name) for name in files]
    return _TileFiles(names)


def _prefix(data: bytes, level: int, width: int) -> bytes | None:
    if level >= 0:
        return data[: width * HASH_BYTES] if len(data) >= width * HASH_BYTES else None
    position = 0
    for _ in range(width):
        if position >= len(data):
            return None
        position += 2 + int.from_bytes(data[position : position + 2], "big")
    return data[:position]


def _hashes(row: bytes) -> list[bytes]:
    return [row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES)]


def _entry_at(bundle: bytes, offset: int) -> int:
    number = position = 0
    while position < len(bundle):
        position += 2 + int.from_bytes(bundle[position : position + 2], "big")
        if offset < position:
            return number
        number += 1
    return max(number - 1, 0)
