"""What kind of thing lies under each name of a log's folder, looked at before anything is opened.

Rule 1: only regular files, and links to them, are opened: a pipe would be waited for, a device
never ends, and a folder in place of a file holds nothing that could be compared.
Rule 2: a name that is not one of the log's is nobody's business here; nothing reads it. Whatever
lies in `tile`, `checkpoints` and `cosigned` is read, or condemned, under any name.
Rule 3: below `tile` no link to a folder is followed, since it would not be walked into.
Cost: two system calls a file. What vanishes meanwhile is the work of a living writer.
Read next: verify.py and fsck.py (who stop here if something is found), log.py (which opens nothing
that stands in a file's place).
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from .errors import LogUnavailable

__all__ = ["Misshapen", "check_opened", "is_foreign", "is_own", "misshapen", "step_of"]

_FOLDER: Final = re.compile(
    r"wal|blobs(/seal)?|ids|rotations|checkpoints|cosigned"
    r"|tile(/(entries|[0-9]+)(/x[0-9]{3})*(/[0-9]{3}\.p)?)?"
)
_OWN: Final = re.compile(
    r"wal/[0-9]{20}\.(wal|carry)|committed|checkpoint|pruned|lock|standing|followed"
    r"|(index|outcomes)\.sqlite(-wal|-shm)?"
    r"|ids/([0-9]{8}\.run|lost)|rotations/[0-9]{20}(\.new)?|checkpoints/[0-9]+|cosigned/[0-9a-f]{16}"
    r"|tile/(entries|[0-9]+)(/x[0-9]{3})*/[0-9]{3}(\.p/[0-9]{1,3})?"
    r"|blobs/([0-9]{8}\.seg|subjects\.keys|seal\.roots|seal/[0-9a-f]{4}(\.new)?)"
)
_OPENED: Final = frozenset(
    {"wal", "blobs", "ids", "rotations", "checkpoint", "committed", "pruned"}
)
_READ: Final = ("tile/", "checkpoints/", "cosigned/")
_STEPS: Final = {
    "checkpoint": 1,
    "rotations": 1,
    "wal": 2,
    "pruned": 2,
    "tile": 4,
    "checkpoints": 5,
    "committed": 8,
    "blobs": 9,
    "cosigned": 10,
}
_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_Judge: TypeAlias = Callable[[os.DirEntry[str], str, bool], str | None]


class Misshapen(NamedTuple):
    """One entry that cannot be read as what its name says.

    Attributes:
        path: relative to the log.
        what: what is wrong with it.
        step: of verification that would have read it; None if it is no evidence.
    """

    path: str
    what: str
    step: int | None


def misshapen(directory: Path) -> list[Misshapen]:
    """Everything in a log's folder that is not what its name says, or that cannot be read."""
    return [
        Misshapen(name, what, step_of(name) if name == "." or _top(name) in _STEPS else None)
        for name, what in _walk(str(directory), ".", _wrong)
    ]


def check_opened(directory: Path) -> None:
    """Make sure that files stand where one would open them; tiles, which are many, are no part.

    Raises:
        LogUnavailable: something else stands there; a pipe would be waited for.
    """
    for name, what in _walk(str(directory), ".", _replaced, _OPENED):
        if _top(name) in _OPENED:
            raise LogUnavailable(f"could not open {directory / name}: it is {what}; put it right")


def step_of(name: str) -> int:
    """The step of verification that reads a file of the log; the first one for what none does."""
    return _STEPS.get(_top(name), 1)


def is_own(name: str) -> bool:
    """Whether the program makes files of this name, relative to the log."""
    return _OWN.fullmatch(name) is not None


def is_foreign(name: str) -> bool:
    """Whether a file or folder is not the log's; what lies in `tile`, `verify` tells."""
    return not (is_own(name) or _FOLDER.fullmatch(name) or name.startswith("tile/"))


def _top(name: str) -> str:
    return name.partition("/")[0]


def _walk(
    folder: str, base: str, judge: _Judge, only: frozenset[str] | None = None
) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as exc:
        if base == "." or not isinstance(exc, FileNotFoundError):
            yield base, f"could not read it: {exc.strerror}"
        return
    for entry in entries:
        name = entry.name if base == "." else f"{base}/{entry.name}"
        is_folder = _FOLDER.fullmatch(name) is not None
        if not (is_folder or is_own(name) or name.startswith(_READ)):
            continue
        wrong = judge(entry, name, is_folder)
        if wrong is not None:
            yield name, wrong
        elif is_folder and (only is None or _top(name) in only):
            yield from _walk(entry.path, name, judge, only)


def _wrong(entry: os.DirEntry[str], name: str, is_folder: bool) -> str | None:
    try:
        other = _replaced_by(entry, is_folder)
    except FileNotFoundError:
        return "a link that leads to nothing" if entry.is_symlink() else None
    except OSError as exc:
        return f"could not read it: {exc.strerror}"
    if other is not None:
        return other
    if is_folder and name.startswith("tile/") and entry.is_symlink():
        return "a link in place of a folder"
    wanted = os.R_OK | os.X_OK if is_folder else os.R_OK
    if not os.access(entry.path, wanted, effective_ids=True) and os.path.lexists(entry.path):
        return "could not read it: Permission denied"
    return None


def _replaced(entry: os.DirEntry[str], _name: str, is_folder: bool) -> str | None:
    with suppress(OSError):  # what cannot be looked at, whoever opens it says
        return _replaced_by(entry, is_folder)
    return None


def _replaced_by(entry: os.DirEntry[str], is_folder: bool) -> str | None:
    mode = stat.S_IFREG if entry.is_file(follow_symlinks=False) else entry.stat().st_mode
    kind = stat.S_IFMT(mode)
    if kind == (stat.S_IFDIR if is_folder else stat.S_IFREG):
        return None
    place = "a folder" if is_folder else "a file"
    return f"{_KINDS.get(kind, 'something else')} in place of {place}"
