"""The tree as a verifier rebuilds it: the root, every tile, every bundle, an earlier checkpoint.

Rule: everything is recomputed from the leaves; a file is compared byte by byte with what it must
hold. Where leaf and tile disagree, the first such leaf is named, and whether it was changed,
taken out or moved.
Read next: verify.py.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from .boundary import PRUNED_NAME, Boundary
from .bundle import Bundle
from .errors import LogDamaged, ProofError
from .findings import Collector
from .merkle import EMPTY_ROOT, consistency_proof, verify_consistency
from .note import Checkpoint
from .rotation import rotation_sizes
from .tiles import (
    HASH_BYTES,
    WIDTH,
    Tile,
    TileBuilder,
    TileReader,
    edge_places,
    place_of,
    tiles_of,
)

_ROOT_STEP, _TILE_STEP, _EARLIER_STEP, _COSIGNED_STEP = 3, 4, 5, 10


class TreeChecker:
    """Takes the leaves in order, then `finish`."""

    def __init__(
        self,
        directory: Path,
        found: Collector,
        signed: Checkpoint | None,
        earlier: Checkpoint | None,
        cosigned: Sequence[Checkpoint] = (),
        *,
        boundary: Boundary | None = None,
        kept: Sequence[Checkpoint] = (),
    ) -> None:
        self._directory = directory
        self._found = found
        self._signed = signed
        self._earlier = [(_EARLIER_STEP, "given", tree) for tree in (earlier,) if tree]
        self._earlier += [(_COSIGNED_STEP, "that a witness cosigned", tree) for tree in cosigned]
        self._earlier += [(_EARLIER_STEP, "kept when the log was pruned", tree) for tree in kept]
        self._files = _tile_files(directory)
        self._builder = TileBuilder(self._check_tile, self._check_pieces)
        self._lost: int | None = None
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._wanted = {c.size for c in (signed, earlier, *cosigned, *kept) if c is not None}
        self._first = 0 if boundary is None else boundary.first_leaf
        self._read = bytearray()
        self._turns = rotation_sizes(directory)
        self._kept_places = set().union(*map(edge_places, self._turns))
        if boundary is not None:
            try:
                self._builder.begin(boundary.first_leaf, boundary.whole_rows())
            except LogDamaged as exc:
                found.problem(_TILE_STEP, str(exc), file=PRUNED_NAME)
                self._lost = boundary.first_leaf
            if boundary.first_leaf in self._wanted:
                self._roots[boundary.first_leaf] = self._builder.frontier.root()

    def leaves(self, entries: Bundle) -> None:
        """Take the next leaves."""
        if self._lost is not None:
            return
        builder, start = self._builder, 0
        end = builder.size + len(entries)
        wanted = sorted(size for size in self._wanted if builder.size < size <= end)
        if not wanted:
            builder.extend(entries)
            return
        for size in [*wanted, end]:
            stop = start + size - builder.size
            builder.extend(entries[start:stop])
            if size in self._wanted:
                self._roots[size] = builder.frontier.root()
            start = stop

    def lost(self, index: int) -> None:
        """Take note that a leaf is lost, after which the tree cannot be rebuilt."""
        if self._lost is None:
            self._lost = index

    def finish(self) -> None:
        """Check the roots, the right edge, and that no tile is missing or left over."""
        if self._lost is not None:
            self._found.problem(
                _ROOT_STEP,
                f"leaf {self._lost} is lost, so the tree from there on cannot be checked",
                leaf=self._lost,
            )
        self._check_root()
        for step, which, earlier in self._earlier:
            self._check_earlier(step, which, earlier)
        for tile, data in self._builder.edge():
            self._check_partials(tile.level, tile.index, data)
        self._check_missing()
        self._check_leftovers()

    def _check_root(self) -> None:
        signed = self._signed
        root = None if signed is None else self._roots.get(signed.size)
        if signed is not None and root is not None and root != signed.root:
            self._found.problem(
                _ROOT_STEP,
                f"the first {signed.size} leaves have root {root.hex()}, but the checkpoint "
                f"signed {signed.root.hex()}: a leaf was changed, added, taken out or moved",
                file="wal",
            )

    def _check_earlier(self, step: int, which: str, earlier: Checkpoint) -> None:
        if self._signed is None:
            self._check_length(step, which, earlier)
        elif earlier.size > self._signed.size:
            self._found.problem(
                step,
                f"the checkpoint signs {self._signed.size} leaves, fewer than the {earlier.size} "
                f"of the one {which}: the log was rolled back, or an old checkpoint replayed",
                file="checkpoint",
            )
        if 0 < earlier.size < self._first:
            text = f"the checkpoint {which} signs {earlier.size} leaves, which were pruned since"
            if earlier.size in self._turns:
                self._check_turn(step, earlier)
            elif which == "given":
                self._found.problem(step, f"{text}: keep one of {self._first} or more", file="wal")
            else:
                self._found.note(f"{text}: it cannot be compared any more")
        root = self._roots.get(earlier.size)
        if root is not None and root != earlier.root:
            self._found.problem(
                step,
                f"the first {earlier.size} leaves are not those of the checkpoint {which}: "
                "the log was forked",
                file="wal",
            )

    def _check_length(self, step: int, which: str, earlier: Checkpoint) -> None:
        """Compare sizes where nothing is signed; where leaves are lost, that was said."""
        if self._lost is None and earlier.size > self._builder.size:
            self._found.problem(
                step,
                f"the log holds {self._builder.size} leaves, fewer than the {earlier.size} of the "
                f"checkpoint {which}: it was rolled back",
                file="wal",
            )

    def _check_turn(self, step: int, tree: Checkpoint) -> None:
        """Compare the tree of a key's rotation, whose leaves were pruned, by what is left of it."""
        if self._signed is None:
            return
        size, root = self._signed.size, self._signed.root
        try:
            proof = consistency_proof(TileReader(self._directory, size), tree.size, size)
            verify_consistency(tree.size, size, tree.root, root, proof)
        except (LogDamaged, ProofError) as exc:
            self._found.problem(
                step,
                f"the {tree.size} leaves at which the log's key was rotated cannot be shown to be "
                f"its first: {exc}",
                file="tile",
            )

    def _check_tile(self, tile: Tile, data: bytes) -> None:
        self._check_pieces(tile, [data])

    def _check_pieces(self, tile: Tile, pieces: Sequence[bytes]) -> None:
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
        self._check_partials(tile.level, tile.index, data)

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

    def _check_partials(self, level: int, index: int, data: bytes) -> None:
        folder = Tile(level, index, WIDTH).path() + ".p"
        if folder not in self._files.partial:
            return
        for width in sorted(self._files.partial[folder]):
            tile = Tile(level, index, width)
            self._files.discard(tile.path())
            expected = _prefix(data, level, width)
            if expected is None:
                self._found.problem(_TILE_STEP, "it holds more than the log", file=tile.path())
            else:
                self._compare(tile, tile.path(), expected)

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
            _TILE_STEP, f"not what the log says: {what}", file=name, offset=offset, leaf=leaf
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

    def _check_missing(self) -> None:
        if self._signed is None:
            return
        for tile in tiles_of(self._signed.size, self._first):
            full = Tile(tile.level, tile.index, WIDTH).path()
            if full in self._files or tile.path() in self._files:
                continue
            if not any((self._directory / name).exists() for name in (tile.path(), full)):
                self._found.problem(_TILE_STEP, "missing", file=tile.path())

    def _check_leftovers(self) -> None:
        for name in sorted(self._files.unchecked):
            if name.endswith(".tmp"):
                self._found.note(f"{name} is left over from a crash; it may be removed")
            elif place_of(name) in self._kept_places:
                continue  # `_check_turn` reads it
            elif self._pruned(name):
                self._found.note(f"{name} is of pruned leaves; the next start removes it")
            elif self._lost is None:
                self._found.problem(_TILE_STEP, "it belongs to no leaf of the log", file=name)

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
