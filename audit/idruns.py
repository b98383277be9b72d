r"""Which ids the log's older records have: the runs in `<log>/ids`, oldest first.

    <log>/ids/<8 digits>.run     see idrun.py
    <log>/ids/lost               for each time that it was found at a start, a line of two decimal
                                 numbers: of the pruned leaves from the first to before the second
                                 one no run has the ids any more

Rule 1: derived, and proves nothing: what is found is compared with the log by whoever asks. Runs
that are damaged, or of another log, are thrown away and made again; files of other names are
somebody else's. Those of pruned leaves cannot be made again: that they are lost is noted, since an
append that is tried again after its record was pruned is stored a second time then.
Runs of earlier versions vouch for pruned leaves alone: the ids of the others are read again.
Rule 2: a search looks into the runs whose range of ids holds the id; ids carry their time, so for
an id of a minute ago that is one run or two.
Read next: olderids.py (who writes and asks).
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from .filekinds import is_own
from .files import make_directory, replace_file
from .idrun import Run, key_of, read_run, write_run

__all__ = ["FOLDER", "IdRuns", "LostIds", "lost_ids", "not_whole"]

FOLDER = "ids"
_LOST_NAME = "lost"


class LostIds(NamedTuple):
    """Ranges of pruned leaves whose ids are lost: noted at a start, and not noted yet."""

    noted: list[tuple[int, int]]
    found: tuple[int, int] | None


def lost_ids(directory: Path, first_leaf: int) -> LostIds:
    """Which ids of pruned leaves no run has; reads only.

    Args:
        directory: the log's.
        first_leaf: that it holds.
    """
    covered, noted = 0, _noted(directory / FOLDER)
    for run in _whole_runs(_paths(directory / FOLDER)):
        covered = run.covered
    return LostIds(noted, _not_noted(noted, covered, first_leaf))


def not_whole(directory: Path) -> list[Path]:
    """The first run that is not, if there is one, and all behind it: the next start drops them."""
    paths = _paths(directory / FOLDER)
    return paths[sum(1 for _ in _whole_runs(paths)) :]


class IdRuns:
    """The runs of one log. `find` may be called while another thread is in `write`.

    Attributes:
        covered: the ids of all leaves below this are in the runs.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._runs: list[Run] = []
        self._reach: list[str] = []  # the greatest id of each run and all before it
        self._first_leaf = 0
        self.covered = 0

    def load(self, size: int, first_leaf: int = 0) -> None:
        """Open the runs that are whole, up to the first that is not; later ones are removed.

        Args:
            size: of the log; a run that knows more is another log's, or of later than this copy
                of it, and so are those behind it.
            first_leaf: that the log holds.

        Raises:
            OSError: one cannot be opened now; it may be whole, and none was removed.
        """
        self._first_leaf = first_leaf
        paths = _paths(self._folder)
        whole = list(takewhile(lambda run: run.covered <= size, _whole_runs(paths)))
        self._open(whole)
        for path in paths[len(self._runs) :]:
            path.unlink()

    def note_lost(self, first_leaf: int) -> list[tuple[int, int]]:
        """Note that the ids of pruned leaves are lost, if some are; all that ever were.

        Args:
            first_leaf: that the log holds.
        """
        noted = _noted(self._folder)
        found = _not_noted(noted, self.covered, first_leaf)
        if found is not None:
            noted.append(found)
            make_directory(self._folder)
            lines = "".join(f"{start} {end}\n" for start, end in noted)
            replace_file(self._folder / _LOST_NAME, lines.encode())
        return noted

    def forget_newest(self) -> None:
        """Throw the newest run away; it is not this log's."""
        self._runs[-1].path.unlink()
        self._open(self._runs[:-1])

    def write(self, ids: Mapping[str, int], covered: int) -> None:
        """Add a run; durable when this returns.

        Args:
            ids: leaves by id; not empty.
            covered: see the class.

        Raises:
            OSError: it was not added.
        """
        make_directory(self._folder)
        # If we crash here, the log is read again from where the run before ended.
        self._take(write_run(self._folder / _name(len(self._runs)), ids, covered))

    def find(self, event_id: str) -> list[int]:
        """The leaves that may have this id; few, and mostly none.

        Raises:
            OSError: a run cannot be read any more; `load` tells which are whole.
        """
        found: list[int] = []
        for run in self._runs[bisect_left(self._reach, event_id) :]:
            if run.least <= event_id <= run.greatest:
                found += run.search(key_of(event_id))
        return found

    def sample(self) -> tuple[str, list[int]] | None:
        """An id of the newest run, and the leaves that have it, if this is that log; None without.

        Raises:
            OSError: as `find`.
        """
        if not self._runs:
            return None
        newest = self._runs[-1]
        return newest.greatest, newest.search(key_of(newest.greatest))

    def greatest(self) -> str:
        """The greatest id of all; empty without any."""
        return self._reach[-1] if self._reach else ""

    def _open(self, runs: list[Run]) -> None:
        self._runs, self._reach, self.covered = [], [], 0
        for run in runs:
            self._take(run)

    def _take(self, run: Run) -> None:
        self.covered = run.covered if run.vouches else min(run.covered, self._first_leaf)
        self._runs.append(run)
        self._reach.append(max(self.greatest(), run.greatest))


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.run") if is_own(f"{FOLDER}/{path.name}"))


def _whole_runs(paths: list[Path]) -> Iterator[Run]:
    """The runs up to the first that is missing or not whole."""
    for number, path in enumerate(paths):
        run = read_run(path) if path.name == _name(number) else None
        if run is None:
            return
        yield run


def _noted(folder: Path) -> list[tuple[int, int]]:
    try:
        words = (folder / _LOST_NAME).read_text(encoding="ascii").split()
        return [(int(words[at]), int(words[at + 1])) for at in range(0, len(words), 2)]
    except (OSError, ValueError, IndexError):
        return []  # it is found again, if no run was written since


def _not_noted(
    noted: list[tuple[int, int]], covered: int, first_leaf: int
) -> tuple[int, int] | None:
    if covered >= first_leaf or any(a <= covered and first_leaf <= b for a, b in noted):
        return None
    return covered, first_leaf


def _name(number: int) -> str:
    return f"{number:08d}.run"
