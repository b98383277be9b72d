"""Folders that appear whole: built beside the store, synced, then renamed into it.

Rule: nothing is ever written where readers look; what a crash leaves lies in `staging/` and is
swept a day later.
Boundary: one disk; a rename inside it is the only way in and out of the store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import RunnerError

__all__ = ["rename_new", "staging_folder", "sync", "sync_tree"]

_STALE_S: Final = 24 * 3600.0


@contextlib.contextmanager
def staging_folder(home: Path) -> Iterator[Path]:
    """A folder on the store's own disk, outside what the store lists; gone afterwards."""
    parent = home / "staging"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE_S:
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename_new(draft: Path, target: Path, tag: str) -> None:
    """Move a folder into place unless something is there already.

    Raises:
        RunnerError: the target is taken; `tag` names it.
        OSError: the disk refused.
    """
    try:
        draft.rename(target)
    except OSError as exc:
        if target.exists():
            raise RunnerError(f"could not add {tag}: it is held already") from exc
        raise
    sync(target.parent)


def sync_tree(folder: Path) -> None:
    """Make a folder and all in it durable."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Make one file, or the entries of one folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
