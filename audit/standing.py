"""What the log says of subjects: who is erased, who is held, whom it mentions at all.

Rule 1: the log is the only place where holds and erasures are. It is read in the order of the
leaves, each leaf once; what it said up to some leaf is kept in `<log>/standing` (snapshot.py), so
that a start reads what came since the one before. Only who has the master key could forge it.
Rule 2: the file holds no text of what was pruned; pruning removes it.
Rule 3: a release names no hold, it ends the one that was recorded first; one that was carried over
is as old as the leaf it was. So holds and releases may be pruned only as far as whoever reads the
rest comes to the same (`same_from`).
Rule 4: an erasure that was carried over took what lay before its old place, and nothing that came
between that and where it is repeated.
Read next: erasing.py and pruning.py (who ask).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .bundle import Bundle
from .events import Carried, Erasure, Event, LegalHold, Pruned
from .mentions import Mentions, unit_ref_in
from .reader import LogReader
from .record import DECISION_BEGINS, decode, original
from .snapshot import Snapshot, SnapshotFile

__all__ = ["Standing"]

_KIND: Final = "standing-2"
_AT_ONCE, _KEEP_AFTER = 65_536, 65_536
_ERASURE, _HOLD, _PRUNED = b'"type":"erasure"', b'"type":"legal_hold"', b'"type":"pruned"'


class Standing:
    """Which subjects are erased and which are held, as the log says.

    Args:
        file: where it is kept between two starts; nowhere if None.
        key: of that file (snapshot.py).

    Attributes:
        erasures: the records of each subject, with their leaves, in order.
        holds: the holds that stand on each subject, by their ids. Each release ends one, the
            oldest: two matters that need the same data each have their own.
        pruned: the newest `pruned` record, with its leaf.
        mentions: of which subjects there is a record at all.
        erased_at: of subjects that were erased, the leaf where the last erasure of each lay first.
        newest: of these, the last leaf about each, or a later one.
    """

    def __init__(self, file: Path | None = None, key: bytes = b"") -> None:
        self._file = None if file is None else SnapshotFile(file, _KIND, key)
        self._taken: list[tuple[int, bytes]] = []
        self._next = self._kept = 0
        self._said: list[tuple[int, int, LegalHold]] = []  # holds and releases: leaf, place
        self._places: dict[str, int] = {}  # of holds, by their ids
        self.erasures: dict[str, list[tuple[int, Erasure]]] = {}
        self.holds: dict[str, dict[str, LegalHold]] = {}
        self.pruned: tuple[int, Pruned] | None = None
        self.mentions = Mentions()
        self.erased_at: dict[str, int] = {}
        self.newest: dict[bytes, int] = {}

    def take(self, index: int, event: Event) -> None:
        """Take note of one event; in the order of the leaves."""
        place = event.was_leaf if isinstance(event, Carried) else index
        event = original(event)  # one that was carried over when the log was pruned
        if isinstance(event, Pruned):
            self.pruned = index, event
        elif isinstance(event, Erasure):
            self.erasures.setdefault(event.unit_ref, []).append((index, event))
            before = self.erased_at.get(event.unit_ref, 0)
            self.erased_at[event.unit_ref] = max(before, place)
        elif isinstance(event, LegalHold):
            self._said.append((index, place, event))
            self._hold(place, event)

    def same_from(self, first_leaf: int) -> bool:
        """Whether the leaves from that one on, and then the holds carried over, say who is held."""
        kept = [(place, event) for leaf, place, event in self._said if leaf >= first_leaf]
        standing = {name: hold for held in self.holds.values() for name, hold in held.items()}
        carried = standing.keys() - {event.id for _, event in kept}
        again = Standing()
        for place, event in [*kept, *((self._places[name], standing[name]) for name in carried)]:
            again._hold(place, event)
        return again.holds == self.holds

    def _hold(self, place: int, event: LegalHold) -> None:
        if event.action == "hold":
            self.holds.setdefault(event.unit_ref, {})[event.id] = event
            self._places[event.id] = place
        elif event.unit_ref in self.holds:
            held = self.holds[event.unit_ref]
            held.pop(min(held, key=self._places.__getitem__))
            if not held:
                del self.holds[event.unit_ref]

    def catch_up(self, reader: LogReader) -> None:
        """Read what was committed since the last time; some 2 µs a leaf.

        Raises:
            LogDamaged: the log cannot be read.
        """
        if self._file is not None and not self._next:
            self._take_up(self._file.load(reader))
        size, unit_refs = reader.size(), set[bytes]()
        for first, bundle in reader.bundles(max(self._next, reader.first()), size):
            unit_refs.update(self._subjects(first, bundle))
            if len(unit_refs) >= _AT_ONCE:
                self.mentions.add(unit_refs)
                unit_refs.clear()
        self.mentions.add(unit_refs)
        self._next = size
        if self._file is not None and size - self._kept >= _KEEP_AFTER:
            self._kept = size  # also where it cannot be written: the next start reads more
            self._file.save(reader, self._snapshot(reader.first()))

    def _subjects(self, first: int, bundle: Bundle) -> Iterator[bytes]:
        """Whom some entries are about; those that are no decisions are taken note of."""
        data, newest = bundle.data, self.newest
        for index, (start, end) in enumerate(zip(bundle.starts, bundle.ends, strict=True), first):
            if data.startswith(DECISION_BEGINS, start):
                unit_ref = unit_ref_in(data, start, end)
                carried = False
            else:
                unit_ref, carried = self._other(index, data[start:end])
            if unit_ref is None:
                continue  # an erasure and a hold name theirs
            if newest and unit_ref in newest and not carried:
                newest[unit_ref] = index
            yield unit_ref

    def _other(self, index: int, data: bytes) -> tuple[bytes | None, bool]:
        """Take note of an entry that may be no decision; whom it is about, and if it was before."""
        unit_ref, event = unit_ref_in(data), None
        about = unit_ref is not None and (_ERASURE in data or _HOLD in data)
        if about or _PRUNED in data:
            event = decode(data)
            self.take(index, event)
            self._taken.append((index, data))
        if unit_ref is not None and about:
            # Also for one carried over: who came back before it was read is not told from others.
            self.newest.setdefault(unit_ref, index)
        return unit_ref, isinstance(event, Carried)

    def _snapshot(self, first_leaf: int) -> Snapshot:
        said = {
            "taken": [(leaf, data.decode()) for leaf, data in self._taken if leaf >= first_leaf],
            "newest": {unit_ref.decode(): leaf for unit_ref, leaf in self.newest.items()},
        }
        return Snapshot(self._next, said, self.mentions.pack())

    def _take_up(self, found: Snapshot | None) -> None:
        if found is None:
            return
        for leaf, text in found.said["taken"]:
            self._taken.append((leaf, text.encode()))
            self.take(leaf, decode(text.encode()))
        self.newest = {unit_ref.encode(): leaf for unit_ref, leaf in found.said["newest"].items()}
        self.mentions = Mentions.unpack(found.body)
        self._next = self._kept = found.leaves
