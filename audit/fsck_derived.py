"""What is in the files that are derived from the log: whole, of this log, and how far behind.

Rule: none of them proves anything, and whoever uses one judges it anew; what is wrong is named all
the same, since it costs the next start time. The master key is not asked for, so of a snapshot
(snapshot.py) only the form is looked at. Reads only.
Read next: fsck.py (levels and what they mean).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson

from .boundary import first_leaf
from .errors import LogDamaged
from .findings import amount
from .fsck_files import START, Seen
from .idruns import FOLDER, lost_ids, not_whole
from .index import VERSION
from .reader import LogReader
from .snapshot import SNAPSHOTS, misformed
from .sqlitefiles import schema_read

__all__ = ["derived_seen", "parquet_seen"]

_DERIVED: Final = "derived: it proves nothing"
_SQLITE: Final = b"SQLite format 3\0"


def derived_seen(directory: Path) -> Iterator[Seen]:
    """Everything about the derived files but the tiles, which `verify` knows."""
    yield from _ids_seen(directory)
    yield from _index_seen(directory)
    yield from _outcomes_seen(directory / "outcomes.sqlite")
    for path in map(directory.joinpath, SNAPSHOTS):
        if path.is_file() and (wrong := misformed(path)) is not None:
            yield Seen(path.name, "mend", wrong, _DERIVED, START)


def _outcomes_seen(path: Path) -> Iterator[Seen]:
    """Its beginning alone: what a crash leaves beside it cannot be opened without writing."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_SQLITE))
    except FileNotFoundError:
        return
    if begins not in (b"", _SQLITE):
        means = "derived: it proves nothing; of pruned records it alone knew which were reported"
        yield Seen(path.name, "mend", "damaged: it is no database", means, START)


def _ids_seen(directory: Path) -> Iterator[Seen]:
    """Whether the ids of all pruned leaves are there."""
    try:
        noted, found = lost_ids(directory, first_leaf(directory))
    except LogDamaged:
        return  # step 2 names it
    means = "an append whose record was pruned, tried again, is stored a second time"
    for start, end in noted:
        what = f"the ids of the pruned leaves {start} to {end - 1} were lost"
        yield Seen(f"{FOLDER}/lost", "note", what, means, "nothing: they cannot be made again")
    for path in not_whole(directory):
        name = str(path.relative_to(directory))
        yield Seen(name, "mend", "damaged", _DERIVED, START)
    if found is not None:
        what = f"the ids of the pruned leaves {found[0]} to {found[1] - 1} are not there"
        todo = (
            "restore this folder from a copy before the next start, which goes on without; "
            "nothing, if a version pruned them that kept no ids"
        )
        yield Seen(FOLDER, "damage", what, means, todo)


def parquet_seen(folder: Path) -> Iterator[Seen]:
    """The Parquet files beside the log: whether an export was interrupted."""
    path = folder / "_manifest.json"
    name = f"{folder.name}/{path.name}"
    if not path.exists():
        return
    try:
        # A pipe would be waited for.
        said = orjson.loads(path.read_bytes() if path.is_file() else b"{}")
        steps, (first, end) = len(said["steps"]), said["announced"] or (0, 0)
        announced = range(first, end)
    except (OSError, KeyError, TypeError, ValueError):
        yield Seen(name, "mend", "damaged", _DERIVED, "export to an empty folder")
        return
    if announced:
        what = f"the leaves {first} to {end - 1} are announced, and not yet entered"
        means = "an export is under way, or was interrupted"
        yield Seen(name, "mend", what, means, "the next weighbridge audit parquet finishes it")
    else:
        yield Seen(name, "fine", amount(steps, "finished steps"))


def _index_seen(directory: Path) -> Iterator[Seen]:
    """The index: whole, of this version, and how far behind."""
    path = directory / "index.sqlite"
    if not path.exists():
        return
    todo = "nothing: whoever asks next makes it anew; --repair does it now"
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"  # which has a `?` in a folder's name quoted
        with schema_read(), closing(sqlite3.connect(uri, uri=True, timeout=5)) as db:
            checked = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tip = db.execute("SELECT leaf FROM tip").fetchone() if version == VERSION else None
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            yield Seen(path.name, "note", "not looked into", "another process is in it", "nothing")
        else:
            yield Seen(path.name, "mend", f"damaged: {exc}", _DERIVED, todo)
        return
    if tip is not None and type(tip[0]) is not int:
        checked = "its tip is no leaf"
    if checked != "ok" or version != VERSION:
        what = "damaged" if checked != "ok" else f"of version {version}, now it is {VERSION}"
        yield Seen(path.name, "mend", what, _DERIVED, todo)
        return
    holds = 0 if tip is None else tip[0] + 1
    try:
        size = LogReader(directory).size()
    except LogDamaged:
        size = holds  # fsck says so
    if holds > size:
        yield Seen(
            path.name, "mend", f"knows {amount(holds, 'leaves')} of {size}", "of another log", todo
        )
    elif holds < size:
        what = f"{amount(size - holds, 'leaves')} behind"
        yield Seen(path.name, "note", what, "normal: it catches up when it is asked", "nothing")
    else:
        yield Seen(path.name, "fine", f"knows {amount(holds, 'leaves')}")
