"""Doubles and faults for tests: shipped with the package, so that others' tests use the same.

`FaultyFiles` stands between the write path and the disk and fails in pairs: "not-stored" (nothing
reached the disk) and "stored" (it did, but the answer got lost), plus short writes. `MemoryNotary`
is a notary without files, `MemoryReader` reads it. `check_log` verifies everything and raises at
the first problem.
Rule: nothing here is imported by the rest of the package.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from .appending import EventAppender
from .blobfile import Payload
from .bundle import Bundle
from .errors import AuditError, EventConflict, LeafPruned, LogUnavailable
from .files import OsFiles
from .merkle import leaf_hash
from .notary import Durability, Receipt
from .note import VerifierKey
from .reader import Entry
from .receipts import Told
from .record import decode
from .syncer import Done, Syncer, Written
from .verify import Findings, verify_log

Fault = Literal["not-stored", "stored", "short"]


def check_log(directory: Path, public_key: VerifierKey | str | bytes) -> Findings:
    """Verify a whole log; the findings if all is well.

    Raises:
        AssertionError: something is not; the text says what.
    """
    findings = verify_log(directory, public_key)
    if not findings.ok:
        raise AssertionError(findings.text())
    return findings


class FaultyFiles(OsFiles):
    """The real files, with faults on demand.

    Attributes:
        fault: what the next durable writes do, until set to None.
        error: the errno they fail with.
        truncate_fails: whether cutting a file back fails, too.
        calls: how many syncs were tried.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.error = errno.ENOSPC
        self.truncate_fails = False
        self.calls = 0

    @contextmanager
    def failing(self, fault: Fault, error: int = errno.ENOSPC) -> Iterator[None]:
        """Fail every durable write inside the block."""
        self.fault, self.error = fault, error
        try:
            yield
        finally:
            self.fault = None

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Fail before, after or half-way through writing."""
        if self.fault == "not-stored":
            raise OSError(self.error, "injected: nothing was written")
        if self.fault == "short":
            super().write(fd, data[: max(1, len(data) // 2)], offset)
            raise OSError(self.error, "injected: half of it was written")
        return super().write(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """Fail after the bytes are on disk, if that is the fault."""
        self.calls += 1
        super().fdatasync(fd)
        if self.fault == "stored":
            raise OSError(self.error, "injected: the sync failed")

    def fdatasync_soon(self, syncer: Syncer, pieces: Sequence[Written], done: Done) -> None:
        """As `fdatasync`; the fault counts that is there when the sync ends."""
        self.calls += 1

        def told(error: OSError | None) -> None:
            if error is None and self.fault == "stored":
                error = OSError(self.error, "injected: the sync failed")
            done(error)

        super().fdatasync_soon(syncer, pieces, told)

    def truncate(self, fd: int, size: int) -> None:
        """Fail, if it is to."""
        if self.truncate_fails:
            raise OSError(self.error, "injected: the truncation failed")
        super().truncate(fd, size)


class MemoryNotary(EventAppender):
    """A notary that keeps everything in memory: the same `append`, receipts and refusals.

    Attributes:
        entries: what was stored, in order.
        payloads: bodies by (decision id, name).
        fault: "not-stored" refuses; "stored" keeps the event and refuses all the same.
    """

    def __init__(self, origin: str = "example.com/memory") -> None:
        self.origin = origin
        self.entries: list[Entry] = []
        self.payloads: dict[tuple[str, str], bytes] = {}
        self.fault: Literal["not-stored", "stored"] | None = None
        self._receipts: dict[str, Receipt] = {}

    @property
    def size(self) -> int:
        """How many events are stored."""
        return len(self.entries)

    def submit(
        self,
        event_id: str,
        data: bytes,
        told: Told,
        *,
        payloads: tuple[Payload, ...] = (),
        durability: Durability | None = None,  # noqa: ARG002  the double is never behind
        once: bool = False,  # noqa: ARG002  the double remembers everything
    ) -> None:
        """Store an event's bytes, and tell before this returns; see EventAppender.submit."""
        try:
            receipt = self._store(event_id, data, payloads)
        except AuditError as error:
            told(None, error)
        else:
            told(receipt, None)

    def _store(self, event_id: str, data: bytes, payloads: tuple[Payload, ...]) -> Receipt:
        if self.fault == "not-stored":
            raise LogUnavailable("injected: nothing was stored")
        receipt = self._receipts.get(event_id)
        if receipt is None:
            receipt = Receipt(self.origin, self.size, leaf_hash(data))
            self.entries.append(Entry(self.size, data, decode(data)))
            self._receipts[event_id] = receipt
            for payload in payloads:
                self.payloads[payload.decision_id, payload.name] = payload.data
        elif receipt.leaf_hash != leaf_hash(data):
            raise EventConflict(f"could not store event {event_id}: its id names other content")
        if self.fault == "stored":
            raise LogUnavailable("injected: stored, but the acknowledgement was lost")
        return receipt

    def reader(self) -> "MemoryReader":
        """Reads what was stored, as a LogReader does."""
        return MemoryReader(self.entries)

    async def close(self) -> None:
        """Nothing to release."""


class MemoryReader:
    """A LogReader of entries in memory, which come in bundles of `group`.

    Attributes:
        begins: the first leaf that is there; those before it are as if pruned.
        given: how many leaves were handed out.
    """

    def __init__(self, entries: Sequence[Entry], *, begins: int = 0, group: int = 16) -> None:
        self._entries = entries
        self.begins, self._group = begins, group
        self.given = 0

    def size(self) -> int:
        """See LogReader.size."""
        return len(self._entries)

    def first(self) -> int:
        """See LogReader.first."""
        return self.begins

    def raw(self, start: int | None = None, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See LogReader.raw."""
        for first, bundle in self.bundles(start, end):
            yield from enumerate(bundle, start=first)

    def bundles(
        self, start: int | None = None, end: int | None = None
    ) -> Iterator[tuple[int, Bundle]]:
        """See LogReader.bundles."""
        start = self.begins if start is None else start
        if start < self.begins:
            raise LeafPruned(f"could not read leaf {start}: as if pruned")
        stop = self.size() if end is None else min(end, self.size())
        for first in range(start, stop, self._group):
            found = [entry.data for entry in self._entries[first : min(first + self._group, stop)]]
            self.given += len(found)
            yield first, Bundle.of(found)
