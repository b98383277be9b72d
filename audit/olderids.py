"""The ids of records that are older than those remembered: a late retry still finds its record.

Rule 1: ids carry their time (UUIDv7), so an id that is greater than all forgotten ones was never
stored: one comparison of texts, and nothing is searched. What is compared is the greatest id that
was forgotten, so this holds for ids of any kind and for clocks that differ.
Rule 2: events are forgotten by the thousand; a thread writes a run of their ids, and until it has
they are found in memory.
Rule 3: after a start, what no run covers is read from the log. If that is much (a log from before
these files, or whose files were lost), it is read beside the appends. Until it is done the greatest
id is not known either: new is what says that it was made since the reading began, and any other id
is refused with LogUnavailable: better late than twice.
Rule 4: leaves are pruned only after their ids are in the runs: the log cannot say them any more.
Where these were lost since, each start says so.
Rule 5: a run that is made of what was forgotten lacks the ids that were never remembered
(`pass_over`). So it does not say that their leaves are covered, and the next start reads them.
Boundary: one event loop, and one thread that writes.
Read next: idruns.py (the files), notary.py (who asks).
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .errors import AuditError, EventConflict, LogUnavailable
from .frames import segments
from .idruns import IdRuns
from .merkle import leaf_hash
from .reader import LogReader
from .receipts import PROMISED, Known, event_id_in
from .record import id_time_us, now_us

__all__ = ["OlderIds"]

_LOGGER = logging.getLogger("weighbridge.audit")
_AT_ONCE = 262_144
_CLOCKS_DIFFER_US = 30_000_000
_ABOVE_ALL = "\U0010ffff"


class OlderIds:
    """The ids that RecentEvents has forgotten.

    Args:
        directory: the log's.
        reader: makes a reader of it.
        remembered: how many events RecentEvents remembers.
        under_way: how many appends there may be at once: by so much the order in which ids are
            forgotten may differ from that of the leaves.
        clock: Unix microseconds.
    """

    def __init__(
        self,
        directory: Path,
        reader: Callable[[], LogReader],
        *,
        remembered: int,
        under_way: int,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._directory = directory
        self._reader = reader
        self._remembered, self._under_way = remembered, under_way
        self._run = max(remembered // 2, 1)
        self._runs = IdRuns(directory)
        self._waiting: list[dict[str, Known]] = []
        self._unwritten: list[dict[str, int]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit-ids")
        self._clock = clock
        self._reading, self._unread, self._began_us = False, 0, 0
        self._surveyed = True  # `_newest` counts all leaves
        self._passed_over: int | None = None
        self._reached = 0  # leaves below this may be in runs that do not say so
        self._closed = False
        self._newest = ""

    def open(self, size: int, remember: Callable[[str, bytes, int], None]) -> None:
        """Learn the ids of a log of `size` leaves; called once, from any thread.

        Args:
            size: how many leaves are durable.
            remember: told id, leaf hash and index of the last `remembered`, in order.

        Raises:
            LogUnavailable: a run cannot be opened now; nothing was removed.
            LogDamaged: the log could not be read.
        """
        try:
            self._runs.load(size, first_kept(self._directory))
            while not self._ours():
                self._runs.forget_newest()
        except OSError as exc:
            raise LogUnavailable(f"could not read the ids of older records: {exc}") from exc
        self._say_lost()
        recent = max(first_kept(self._directory), size - self._remembered)
        self._newest = self._runs.greatest()
        if recent - self._runs.covered > _AT_ONCE:
            self._surveyed = False
            self._read_beside(recent, self._read)
        else:
            self._take(min(self._runs.covered, recent), recent)
        for index, data in self._reader().raw(recent):
            name = event_id_in(data)
            remember(name, leaf_hash(data), index)

    @property
    def newest(self) -> str:
        """No id greater than this was forgotten."""
        return self._newest if self._surveyed else _ABOVE_ALL

    def _ours(self) -> bool:
        """Whether the newest run is of this log: the leaf that it names has the id."""
        sample = self._runs.sample()
        if sample is None:
            return True
        event_id, leaves = sample
        kept = [leaf for leaf in leaves if leaf >= first_kept(self._directory)]
        found = [event_id_in(data) for at in kept for _, data in self._reader().raw(at, at + 1)]
        return not kept or event_id in found

    def add(self, generation: dict[str, Known], greatest: str) -> None:
        """Events are forgotten elsewhere; on the loop, and nobody else changes them from here on.

        What has no place in the log yet is left out: it is remembered again when it has.
        """
        self._waiting.append(generation)
        self._newest = max(self._newest, greatest)
        if not self._closed:
            self._thread.submit(self._write)

    def pass_over(self, leaf: int) -> None:
        """Leaves from this one on may have ids that are not told to `add`; on the loop."""
        if self._passed_over is None:
            self._passed_over = leaf

    def find(self, event_id: str) -> list[int]:
        """The leaves that may have this id; to be compared with the log.

        Raises:
            LogUnavailable: the log is still being read.
        """
        for generation in tuple(self._waiting):
            known = generation.get(event_id)
            if known is not None and known[1] is not None and known[1].index != PROMISED:
                return [known[1].index]
        for chunk in tuple(self._unwritten):
            if event_id in chunk:
                return [chunk[event_id]]
        if self._reading:
            if self._made_since(event_id):
                return []
            raise LogUnavailable(
                f"could not store {event_id}: the ids of older records are being read; try again"
            )
        try:
            return self._runs.find(event_id)
        except OSError as error:
            self._look_again(error)
            raise LogUnavailable(
                f"could not store {event_id}: the ids of older records are read again; try again"
            ) from error

    async def confirm(self, leaves: list[int], event_id: str) -> tuple[int, bytes] | None:
        """Index and leaf hash of the record that has this id, from the log; None if none has.

        Raises:
            EventConflict: one of them was pruned, so that it cannot be compared.
            AuditError: the log could not be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._confirm, leaves, event_id)

    async def settle(self, upto: int) -> None:
        """Have the ids of all leaves below `upto` in the runs, durably, those remembered as well.

        Raises:
            LogUnavailable: they could not be written.
            LogDamaged: the log could not be read.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._settle, upto)

    def close(self) -> None:
        """Wait for what is being written; what is not is read from the log at the next start."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)

    def _look_again(self, error: OSError) -> None:
        """Somebody changed a run: keep those that are whole, and read the rest from the log."""
        _LOGGER.warning("the ids of older records cannot be read (%s): looking again", error)
        if not self._closed:
            upto = max(self._unread, self._runs.covered, self._reached)
            self._read_beside(upto, self._load_again)

    def _read_beside(self, unread: int, read: Callable[[], None]) -> None:
        """Have the log read up to that leaf, beside the appends."""
        self._began_us = self._clock()
        self._reading, self._unread = True, unread
        self._thread.submit(read)

    def _made_since(self, event_id: str) -> bool:
        """Whether an id says that it was made since the reading began, so that no leaf has it."""
        made_us = id_time_us(event_id)  # to the millisecond
        if made_us is None:
            return False
        return self._began_us // 1000 * 1000 <= made_us <= self._clock() + _CLOCKS_DIFFER_US

    def _say_lost(self) -> None:
        first = first_kept(self._directory)
        try:
            lost = self._runs.note_lost(first)
        except OSError as error:
            _LOGGER.warning("could not note which ids are lost: %s", error)
            lost = [(self._runs.covered, first)]
        for start, end in lost:
            _LOGGER.warning(
                "the ids of the pruned leaves %d to %d are lost: an append of before, tried again "
                "now, would be stored a second time (see weighbridge audit fsck)",
                start,
                end - 1,
            )

    # --- the thread ---------------------------------------------------------------------------

    def _confirm(self, leaves: list[int], event_id: str) -> tuple[int, bytes] | None:
        reader, first = self._reader(), first_kept(self._directory)
        for leaf in leaves:
            if leaf < first:
                raise EventConflict(
                    f"could not store event {event_id}: it was stored as leaf {leaf}, which was "
                    "pruned since"
                )
            data = next(reader.raw(leaf, leaf + 1), (0, b"{}"))[1]
            if event_id_in(data) == event_id:
                return leaf, leaf_hash(data)
        return None

    def _write(self) -> None:
        """Make runs of what waits; if the disk refuses, it stays in memory."""
        if self._reading:
            self._read()  # it failed: a run of later ids would say that these are covered
            if self._reading:
                return
        while self._unwritten:
            chunk = self._unwritten[0]
            if not self._wrote(chunk, self._runs.covered):
                return
            del self._unwritten[0]  # only now: until here `find` needs it
        while self._waiting:
            known = self._waiting[0].items()
            chunk = {
                name: receipt.index
                for name, (_, receipt) in known
                if receipt is not None and receipt.index != PROMISED
            }
            if chunk and not self._wrote(chunk, self._covered_with(max(chunk.values()))):
                return
            del self._waiting[0]

    def _covered_with(self, leaf: int) -> int:
        """Up to where ids are in the runs, once all that were forgotten up to `leaf` are."""
        self._reached = max(self._reached, leaf + 1)
        whole = leaf - self._under_way
        if self._passed_over is not None:
            whole = min(whole, self._passed_over)
        return max(self._runs.covered, whole)

    def _settle(self, upto: int) -> None:
        """What no run covers is read from the log: what is remembered has no order of leaves.

        Some of it is forgotten later, and is in two runs then; both name the same leaf.
        """
        try:
            # If we crash between two runs, the next call goes on from where the first one ends.
            for chunk, covered in self._chunks(self._runs.covered, upto):
                self._runs.write(chunk, covered)
        except (OSError, ValueError) as exc:
            raise LogUnavailable(
                f"could not keep the ids of the leaves before {upto}: {exc}"
            ) from exc

    def _load_again(self) -> None:
        upto = max(self._unread, self._runs.covered)
        try:
            self._runs.load(self._reader().size(), first_kept(self._directory))
        except (AuditError, OSError) as error:
            _LOGGER.error("could not read the ids of older records: %s", error)
            return
        self._say_lost()
        self._reading, self._unread = True, upto
        self._read()

    def _read(self) -> None:
        """Read the log from where the runs end; beside the appends."""
        try:
            self._take(self._runs.covered, self._unread)
        except (AuditError, OSError, ValueError) as error:
            _LOGGER.error("could not read the ids of older records: %s", error)
            return  # and refuse what is not newer than all, until it was read
        self._newest = max(self._newest, self._runs.greatest())
        self._reading, self._surveyed = False, True

    def _take(self, start: int, end: int) -> None:
        """Put the ids of the leaves [start, end) into runs."""
        for chunk, covered in self._chunks(start, end):
            self._keep(chunk, covered)
        self._newest = max(self._newest, self._runs.greatest())

    def _chunks(self, start: int, end: int) -> Iterator[tuple[dict[str, int], int]]:
        """The ids of the leaves [start, end) by the thousand, and the leaf that each reaches."""
        chunk: dict[str, int] = {}
        start = max(start, first_kept(self._directory))
        for index, data in self._reader().raw(start, end):
            if self._closed:
                raise ValueError("closed")
            chunk[event_id_in(data)] = index
            if len(chunk) >= self._run:
                yield chunk, index + 1
                chunk = {}
        if chunk:
            yield chunk, end

    def _keep(self, chunk: dict[str, int], covered: int) -> None:
        self._newest = max(self._newest, *chunk)
        if self._unwritten or not self._wrote(chunk, covered):
            self._unwritten.append(chunk)

    def _wrote(self, chunk: dict[str, int], covered: int) -> bool:
        try:
            self._runs.write(chunk, covered)
        except OSError as error:
            _LOGGER.warning("could not write the ids of older records: %s", error)
            return False
        return True


def first_kept(directory: Path) -> int:
    """The first leaf that the log still holds; earlier ones were pruned."""
    found = segments(directory)
    return found[0][0] if found else 0
