"""Derived files made anew from the truth: tiles and bundles, the index, what is said of subjects.

Rule: the write-ahead log, checkpoints, payloads and keys are never touched. The leaves must give
the signed root, else nothing is written: tiles of a wrong log would only hide what is wrong. Takes
the writer's lock. Only files with names that the program makes are removed, and no link to a folder
is followed: what lies there is somebody else's.
Read next: fsck.py (what is wrong).
"""

import os
from collections.abc import Iterable
from pathlib import Path

from .boundary import read_boundary
from .errors import LogDamaged, ProofError
from .filekinds import is_own, misshapen
from .findings import printable
from .index import Index
from .note import VerifierKey
from .publish import load_checkpoint
from .reader import LogReader
from .rotation import chain_of
from .snapshot import SNAPSHOTS
from .tiles import Tile, TileBuilder, write_tile
from .writerlock import take_lock

__all__ = ["rebuild_derived"]


def rebuild_derived(directory: Path, key: VerifierKey, wrong: Iterable[str] = ()) -> list[str]:
    """Make what is derived anew; what was written or removed, relative to the log.

    Args:
        directory: the log's.
        key: its public key.
        wrong: tile files that are known to be wrong or to belong to nothing.

    Raises:
        LogLocked: a server writes the log.
        LogDamaged, ProofError: the leaves do not give the signed root; nothing was written.
        OSError: the disk refused; run it again.
    """
    for name, what, _ in misshapen(directory):
        path = directory / printable(name)
        raise LogDamaged(path, offset=None, expected="what can be read", found=what)
    lock = take_lock(directory)
    try:
        done = _rebuild_tiles(directory, key, wrong)
        done += _leftovers(directory)
        if (directory / "index.sqlite").exists():
            with Index(directory) as index:
                index.rebuild()
            done.append("index.sqlite")
        for name in SNAPSHOTS:
            if (directory / name).exists():
                (directory / name).unlink()  # the next start reads the log
                done.append(name)
    finally:
        lock.close()
    return done


def _rebuild_tiles(directory: Path, key: VerifierKey, wrong: Iterable[str]) -> list[str]:
    if (directory / "tile").is_symlink():
        raise LogDamaged(
            directory / "tile", offset=None, expected="a folder", found="a link, not followed"
        )
    signed = load_checkpoint(directory, chain_of(directory, key))
    if signed is None:
        return []  # the next start signs, and makes tiles
    _grow(directory, signed.size, signed.root, write=False)
    done = []
    for name in wrong:
        if _inside(directory, name) and (directory / name).is_file():
            (directory / name).unlink()
            done.append(name)
    return sorted({*done, *_grow(directory, signed.size, signed.root, write=True)})


def _grow(directory: Path, size: int, root: bytes, *, write: bool) -> list[str]:
    """Grow the tree from the leaves, and write each tile that is not what it must be."""
    written: list[str] = []

    def put(tile: Tile, data: bytes) -> None:
        path = directory / tile.path()
        if write and not (path.is_file() and path.read_bytes() == data):
            write_tile(directory, tile, data)
            written.append(tile.path())

    tiles = TileBuilder(put)
    boundary = read_boundary(directory)
    if boundary is not None:
        tiles.begin(boundary.first_leaf, boundary.whole_rows())
    for _, entry in LogReader(directory).raw(end=size):
        tiles.append(entry)
    if tiles.size != size:
        raise LogDamaged(
            directory / "wal", offset=None, expected=f"{size} leaves", found=f"{tiles.size}"
        )
    if tiles.frontier.root() != root:
        raise ProofError(
            f"could not rebuild the tiles: the {size} leaves do not give the signed root"
        )
    for tile, data in tiles.edge():
        put(tile, data)
    return written


def _leftovers(directory: Path) -> list[str]:
    """Remove files that never got their name."""
    done = []
    for folder, _, files in os.walk(directory):  # which follows no links
        for path in (Path(folder) / file for file in files if file.endswith(".tmp")):
            name = str(path.relative_to(directory))
            if is_own(name.removesuffix(".tmp")):
                path.unlink()
                done.append(name)
    return done


def _inside(directory: Path, name: str) -> bool:
    """Whether a tile's file lies in the log's own folder, under a name that the program makes."""
    folders = (directory / folder for folder in Path(name).parents)
    return is_own(name) and name.startswith("tile/") and not any(f.is_symlink() for f in folders)
