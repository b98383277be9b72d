"""Reading a log that another process is writing: committed leaves only.

Rule: read-only, takes no lock, holds no state that the files do not. `size` is what the writer's
marker vouches for (each such leaf is behind an fdatasync), so following is: ask `size`, read
`entries(seen, size)`, come back later. A single reader is for one thread. The writer's own process
says the position itself: what it decides must not hang on a file that others can replace.
Records whose fields hold what they cannot (shapes.py) were once taken over the link; `others`
passes over them.
Read next: index.py (finding), verify.py (checking), prove.py (proofs).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .boundary import first_leaf
from .bundle import Bundle
from .cursor import WalCursor
from .errors import DecodeError, LogDamaged, NotFound
from .events import Event
from .keys import Keyring
from .marker import Position, read_marker
from .payloads import Payloads
from .publish import read_checkpoint
from .record import DECISION_BEGINS, decode, original
from .shapes import flaw

_LOGGER = logging.getLogger("weighbridge.audit")


class Entry(NamedTuple):
    """A committed leaf: its index, its exact bytes, and the event in them."""

    index: int  # type: ignore[assignment]  # a leaf's, and hides tuple.index
    data: bytes
    event: Event


class LogReader:
    """A read-only view of the log in `directory`; follows a living writer.

    Args:
        directory: the log's.
        position: says what is committed, in the writer's process; the marker's file if None.
    """

    def __init__(self, directory: Path, position: Callable[[], Position] | None = None) -> None:
        self.directory = directory
        self._committed = position
        self._cursor = WalCursor(directory)
        self._payloads = Payloads(directory)
        self._beside = WalCursor(directory)  # looking for payloads does not move the other one

    def size(self) -> int:
        """How many leaves are committed now; 0 if there is no log yet.

        Raises:
            LogDamaged: the committed marker is damaged or missing.
        """
        return self._position().leaves

    def first(self) -> int:
        """The first leaf that the log holds: 0, or where pruning ended."""
        return first_leaf(self.directory)

    def raw(self, start: int | None = None, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of the committed leaves in [start, end); from the first one if None.

        Raises:
            LeafPruned: `start` is before the first leaf that the log holds.
            LogDamaged: a group in between is not whole: names the file and the offset.
        """
        for first, bundle in self.bundles(start, end):
            yield from enumerate(bundle, start=first)

    def bundles(
        self, start: int | None = None, end: int | None = None
    ) -> Iterator[tuple[int, Bundle]]:
        """The same as they lie there: the first index of some, and these, until all were named.

        Raises:
            LeafPruned, LogDamaged: as `raw`.
        """
        if start is None:
            start = self.first()
        upto = self._position()
        stop = upto.leaves if end is None else min(end, upto.leaves)
        if start >= stop:
            return
        self._cursor.seek(start)
        for frame in self._cursor.frames(upto):
            try:
                bundle = frame.bundle()
            except ValueError as exc:
                path = self.directory / "wal"
                raise LogDamaged(
                    path, offset=frame.offset, expected="whole entries", found=str(exc)
                ) from exc
            low, high = max(start - frame.first, 0), stop - frame.first
            yield frame.first + low, bundle[low:high]
            if frame.first + frame.leaf_count >= stop:
                return

    def entries(self, start: int | None = None, end: int | None = None) -> Iterator[Entry]:
        """The committed leaves in [start, end), decoded; from the first one if None.

        Raises:
            LeafPruned, LogDamaged: as `raw`.
            DecodeError: an entry is not an event.
        """
        for index, data in self.raw(start, end):
            yield Entry(index, data, decode(data))

    def others(self, start: int | None = None) -> Iterator[Entry]:
        """The committed leaves from `start` on that are no decisions, decoded; none with a flaw.

        Some 0.5 µs for each decision, where decoding takes 10: for starts, which others wait for.
        A start must not fail for ever over what a stranger once wrote, so that is passed over, and
        the first leaf of it named in the process log.

        Raises:
            LeafPruned, LogDamaged: as `raw`.
        """
        odd: list[int] = []
        for first, bundle in self.bundles(start):
            yield from others_in(first, bundle, odd)
        say_odd(odd)

    def entry(self, index: int) -> Entry:
        """One committed leaf.

        Raises:
            LeafPruned: the log does not have it any more.
            NotFound: the log does not have it yet.
        """
        found = next(self.entries(index, index + 1), None) if index >= 0 else None
        if found is None:
            raise NotFound(f"could not find leaf {index}: the log has {self.size()}")
        return found

    def checkpoint(self) -> str:
        """The signed note of the last checkpoint, unverified.

        Raises:
            NotFound: the log was never signed.
        """
        note = read_checkpoint(self.directory)
        if note is None:
            raise NotFound(f"could not find a checkpoint in {self.directory}")
        return note

    def payload(
        self, keyring: Keyring, decision_id: str, name: str, *, leaf: int | None = None
    ) -> bytes | None:
        """A decision's payload, decrypted; None if there is none or its subject was erased.

        Args:
            keyring: with the master key.
            decision_id: whose payload.
            name: which one.
            leaf: of the record that it was stored with; without it, all of them are searched, and
                their places kept in memory.

        Raises:
            PayloadDamaged, LogDamaged: it is there, but changed.
            LeafPruned: `leaf` was.
        """
        if leaf is None:
            return self._payloads.get(keyring, decision_id, name)
        return self._payloads.between(keyring, decision_id, name, self._beside.growth(leaf))

    def kept(self, name: str) -> frozenset[str]:
        """The ids of the decisions that have a payload of this name; it may have been erased."""
        return self._payloads.kept(name)

    def _position(self) -> Position:
        return read_marker(self.directory) if self._committed is None else self._committed()


def others_in(first: int, bundle: Bundle, odd: list[int]) -> Iterator[Entry]:
    """What `others` gives of some leaves; `odd` learns which it passes over, for `say_odd`."""
    for place in bundle.without(DECISION_BEGINS):
        data = bundle[place]
        event = sound(data)
        if event is None:
            odd.append(first + place)
        else:
            yield Entry(first + place, data, event)


def say_odd(odd: Sequence[int]) -> None:
    """Name in the process log the first leaf that was passed over, if any was."""
    if odd:
        _LOGGER.warning("passed over %d malformed records, the first is leaf %d", len(odd), odd[0])


def sound(data: bytes) -> Event | None:
    """The event in an entry, if it and what it may repeat are well-formed; else None."""
    try:
        event = decode(data)
        if flaw(event) is not None or flaw(original(event)) is not None:
            return None
    except DecodeError:
        return None
    return event
