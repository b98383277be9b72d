"""Writing that pauses where files must be synced, so that whoever drives it may sync as it likes.

Rule: a generator of `Steps` writes, then yields the pieces of files that must be synced. Its
driver syncs them all and goes on with `next`, or throws the OSError in; then the generator takes
back what it wrote, and raises. One that was begun is driven to its end. Within long work it yields
no piece: whoever drives it on an event loop may let others have their turn.
Read next: log.py (what is written so), groups.py (who drives it on an event loop).
"""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from .files import FileLayer
from .syncer import Written

_T = TypeVar("_T")
Steps: TypeAlias = Generator[list[Written], None, _T]


def drive(steps: Steps[_T], files: FileLayer, error: OSError | None = None) -> _T:
    """Go through `steps` from where they pause to their end, syncing in this thread.

    Args:
        steps: begun, or not.
        files: the system calls.
        error: why what they paused for could not be synced; None if it was, or they never began.

    Returns:
        What the steps return.
    """
    try:
        syncs = next(steps) if error is None else steps.throw(error)
        while True:
            try:
                for piece in syncs:
                    files.fdatasync(piece.fd)
            except OSError as exc:
                syncs = steps.throw(exc)
            else:
                syncs = next(steps)
    except StopIteration as done:
        found: _T = done.value
        return found


__all__ = ["Steps", "drive"]
