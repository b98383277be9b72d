"""Which outcomes the log holds, by event id, and what it says of models: derived from the log.

Rule 1: what is in the book comes from the log alone, and how far it was read is written with it. So
whatever kills the process, and whenever: what is missing is read again, and nothing else.
Rule 2: a file that does not fit the log (which was rolled back, or is another one), was made with
another key or by another version, lacks rows, or is damaged, is made anew. Where the last leaf that
was read is pruned there is nothing left to compare: what was read of leaves that are gone stays
valid, and reading goes on where the log begins. A file that is made anew does not know what was
pruned.
Rule 3: a file that cannot be used is replaced by a table in memory, read from the whole log, and
the process log says so. One that only cannot be written now keeps what it has. Only a damaged one
is removed, and a sound one stays in use until what replaces it stands.
What it cannot know of itself is a row that somebody changed: remove the file, and it is made anew.
Boundary: for one thread at a time, but for `name`; waits for the disk.
Read next: outcomefile.py (the tables), reported.py (who asks, from an event loop).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from audit.bundle import Bundle
from audit.merkle import leaf_hash
from audit.reader import Entry, others_in, say_odd
from audit.record import Outcome, original

from .facts import Fact, fact_of, since
from .outcomefile import FactRow, OutcomeFile, OutcomeRow, Stands, is_closed, is_damage, reason

__all__ = ["Ahead", "Leaves", "Named", "Naming", "OutcomeBook"]

log = logging.getLogger("weighbridge")
_PIECE: Final = 4096
_TURN: Final = 32
_REST_S: Final = 5e-5
_DIGEST_BYTES: Final = 16
_T = TypeVar("_T")


class Leaves(Protocol):
    """What the book is made from: audit.reader.LogReader, or audit.testing.MemoryReader."""

    def size(self) -> int:
        """How many leaves are committed."""

    def first(self) -> int:
        """The first one that is there."""

    def raw(self, start: int | None = None, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of leaves."""

    def bundles(
        self, start: int | None = None, end: int | None = None
    ) -> Iterator[tuple[int, Bundle]]:
        """The same, in whole groups."""


class Named(NamedTuple):
    """An outcome as the book knows it: keyed hashes of its event id and of what it says."""

    key: bytes
    content: bytes


class Naming:
    """Names outcomes under a key: `Naming(secret)(outcome)`. Some 5 µs; for any thread.

    Attributes:
        mark: what tells this key from others.
    """

    def __init__(self, secret: bytes) -> None:
        self._id, self._content, mark = (
            blake2b(digest_size=_DIGEST_BYTES, key=secret, person=purpose)
            for purpose in (b"outcome id", b"outcome content", b"outcome key")
        )
        self.mark = mark.digest()

    def __call__(self, event: Outcome) -> Named:
        """The two hashes of an outcome; when it was observed is no part of what it says."""
        said = json.dumps([event.decision, event.unit_ref, event.metric, event.value])
        key, content = self._id.copy(), self._content.copy()
        key.update(event.event_id.encode("utf-8", "surrogatepass"))
        content.update(said.encode("ascii"))
        return Named(key.digest(), content.digest())


class Ahead(NamedTuple):
    """What leaves say that the book has not taken in.

    Attributes:
        outcomes: those that the book does not know.
        end: the leaf after the last one that was read.
        all: whether there are no more.
    """

    outcomes: dict[bytes, Stands]
    end: int
    all: bool


class _Read(NamedTuple):
    """What some leaves say: those from `start` to `end`, of which `last` is the last one."""

    outcomes: list[OutcomeRow]
    facts: list[FactRow]
    start: int
    end: int
    last: bytes

    @property
    def all(self) -> bool:
        """Whether the log had no more."""
        return self.end - self.start < _PIECE


class OutcomeBook:
    """The book of one log, read to the end of it.

    Args:
        path: of the file.
        secret: the key of its hashes.
        reader: of the log; nobody else may use it.

    Attributes:
        name: gives an outcome's key and content.
        covered: the leaves below it have been read.
        facts: what the log said of models when this was opened.

    Raises:
        LogDamaged: the log cannot be read.
    """

    def __init__(self, path: Path, secret: bytes, reader: Leaves) -> None:
        self.name = Naming(secret)
        self.covered = 0
        self._path, self._reader = path, reader
        self._warned = False
        self._rest_s = 0.0  # a start is waited for, and nobody else is at work yet
        try:
            self._file = self._open()
        except (OSError, sqlite3.DatabaseError) as error:
            self._file = self._another(error)
        self._rest_s = _REST_S
        self.facts: list[Fact] = self._ask(OutcomeFile.facts)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Stands]:
        """What is on record under these keys, in leaves below `covered`.

        Raises:
            LogDamaged: the file failed, and the log cannot be read either.
        """
        return self._ask(lambda file: dict(file.find(keys)))

    def catch_up(self) -> bool:
        """Take in the next leaves, in whole groups; whether these were all.

        Raises:
            sqlite3.DatabaseError: they cannot be written now; `covered` stands.
            LeafPruned, LogDamaged: the log cannot be read.
        """
        try:
            return self._take_in(self._file)
        except sqlite3.DatabaseError as error:
            if not is_damage(error) and not is_closed(error):
                raise
            self._replace(error)
            return True

    def keep(self, upto: int) -> bool:
        """Whether the file holds, for good, all that leaves below `upto` say, so that they may go.

        Raises:
            OSError, sqlite3.DatabaseError: it may not.
        """
        return self.covered >= upto and self._file.outlasts()

    def ahead(self, start: int) -> Ahead:
        """The next outcomes from leaf `start` on, for while they cannot be taken in; in pieces.

        Raises:
            sqlite3.DatabaseError: the book cannot be asked.
            LeafPruned, LogDamaged: the log cannot be read.
        """
        read = self._read(max(start, self.covered))
        rows = sorted(read.outcomes, reverse=True)  # the first leaf of an event id comes last
        known = self.find([row.key for row in rows])
        new = {row.key: Stands(row.leaf, row.content) for row in rows if row.key not in known}
        return Ahead(new, read.end, read.all)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    # --- reading the log ------------------------------------------------------------------------

    def _take_in(self, file: OutcomeFile) -> bool:
        read = self._read(self.covered)
        if read.start > self.covered and not self._warned:
            self._warned = True
            log.warning(
                "%s does not know what the leaves %d to %d said, which are pruned: an outcome of "
                "them that is reported again is recorded again",
                self._path.name,
                self.covered,
                read.start - 1,
            )
        if read.end > read.start:
            tip = leaf_hash(read.last)
            file.write(read.outcomes, read.facts, covered=read.end, tip=tip)
            self.covered = read.end
        return read.all

    def _read(self, start: int) -> _Read:
        start = end = max(start, self._reader.first())
        outcomes, facts, last, odd = list[OutcomeRow](), list[FactRow](), b"", list[int]()
        for first, bundle in self._reader.bundles(start):
            for place, entry in enumerate(others_in(first, bundle, odd)):
                if place % _TURN == 0:
                    time.sleep(0)  # the event loop beside this thread gets its turn at once
                self._note(entry, outcomes, facts)
            end, last = first + len(bundle), bundle[-1]
            if self._rest_s:  # a group at a time: the event loop wants the interpreter, too
                time.sleep(self._rest_s)
            if end - start >= _PIECE:
                break
        say_odd(odd)
        return _Read(outcomes, facts, start, end, last)

    def _note(self, entry: Entry, outcomes: list[OutcomeRow], facts: list[FactRow]) -> None:
        event = original(entry.event)  # what a pruning carried over counts as well
        if isinstance(event, Outcome):
            key, content = self.name(event)
            outcomes.append(OutcomeRow(key, entry.index, content))
        elif (fact := fact_of(event)) is not None:
            facts.append(FactRow(fact.kind, fact.model, fact.version, since(entry), fact.value))

    # --- the file -------------------------------------------------------------------------------

    def _open(self) -> OutcomeFile:
        """The file, if it fits, or a new one; read to the end of the log."""
        file = OutcomeFile(self._path)
        try:
            covered = self._fitting(file)
            if covered is None:
                file.close()
                OutcomeFile.remove(self._path)
                file = OutcomeFile(self._path)
                file.create(self.name.mark)
            return self._filled(file, covered or 0)
        except BaseException:  # re-raised: only the file must not stay open
            file.close()
            raise

    def _fitting(self, file: OutcomeFile) -> int | None:
        """Up to where the file holds what this log says; None if it is not of this log."""
        state = file.state()
        if state is None or state.mark != self.name.mark:
            return None
        if not 0 <= state.covered <= self._reader.size():
            return None
        if state.covered > self._reader.first():
            ((_, data),) = self._reader.raw(state.covered - 1, state.covered)
            if leaf_hash(data) != state.tip:
                return None
        return state.covered if file.is_whole() else None

    def _filled(self, file: OutcomeFile, covered: int) -> OutcomeFile:
        self.covered = covered
        while not self._take_in(file):
            pass
        return file

    def _ask(self, question: Callable[[OutcomeFile], _T]) -> _T:
        try:
            return question(self._file)
        except sqlite3.DatabaseError as error:
            self._replace(error)
            return question(self._file)

    def _replace(self, error: Exception) -> None:
        covered = self.covered
        if is_damage(error):
            # If the log cannot be read now, the next question finds the file closed, and opens it.
            self._file.close()
        try:
            another = self._another(error)
        except BaseException:  # re-raised: what is still in use covers what it did
            self.covered = covered
            raise
        self._file.close()
        self._file = another

    def _another(self, error: Exception) -> OutcomeFile:
        """After an error: a new file, the one that was closed, or a table in memory."""
        if is_damage(error) or is_closed(error):
            with suppress(OSError, sqlite3.DatabaseError):
                if is_damage(error):
                    OutcomeFile.remove(self._path)
                return self._open()
        memory = OutcomeFile(None)
        try:
            memory.create(self.name.mark)
            self._filled(memory, 0)
        except BaseException:  # re-raised: only the table must not stay
            memory.close()
            raise
        log.warning(
            "%s cannot be used (%s): until the next start outcomes are remembered in memory, read "
            "from the whole log",
            self._path.name,
            reason(error),
        )
        return memory
