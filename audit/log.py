"""The one writer's hold on a log directory: lock, recovery, groups, checkpoints.

    <log>/lock          held (flock) by the writer while it lives
    <log>/wal/          the truth (frames.py)
    <log>/committed     how far readers may believe it (marker.py)
    <log>/blobs/        encrypted payloads (blobs.py)
    <log>/tile/         derived: the tree (tiles.py)
    <log>/checkpoint    derived: the signed tree head (note.py)

Rule: synchronous, and knows no event loop. `append` belongs to one thread and `publish` to one
thread; the two may run at once. Opening is recovery; there is no other way to open.
Read next: notary.py.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .blobs import Blobs, Payload
from .errors import AuditError, LogLocked
from .files import FileLayer, OsFiles, make_directory
from .keys import Keyring
from .marker import Position
from .note import Checkpoint
from .publish import Publisher, load_checkpoint
from .wal import SEGMENT_BYTES, Wal


class Record(NamedTuple):
    """An entry and the payloads that must be durable before it."""

    data: bytes
    payloads: tuple[Payload, ...] = ()


class Log:
    """An open log. Make it with `open`.

    Attributes:
        origin: the log's name, as in its checkpoints.
        recovered: what opening found and did.
    """

    def __init__(self, lock: int, wal: Wal, blobs: Blobs, publisher: Publisher) -> None:
        self._lock = lock
        self._wal = wal
        self._blobs = blobs
        self._publisher = publisher
        self.recovered = wal.recovered

    @classmethod
    def open(
        cls,
        directory: Path,
        keyring: Keyring,
        *,
        origin: str,
        files: FileLayer | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> "Log":
        """Take the lock, recover, sign a checkpoint of what is there.

        Args:
            directory: made if it does not exist.
            keyring: with its signing key.
            origin: the log's name; a URL without a scheme by convention.
            files: the system calls; the real ones by default.
            segment_bytes: the size beyond which a segment is followed by a new one.

        Raises:
            LogLocked: another writer has it.
            LogDamaged: acknowledged or signed evidence is damaged; nothing was changed.
            LogUnavailable: the disk refused.
            OSError: the directory cannot be made or read.
        """
        signer = keyring.signer(origin)
        files = files or OsFiles()
        make_directory(directory)
        with ExitStack() as undo:
            lock = _take_lock(directory)
            undo.callback(os.close, lock)
            signed = load_checkpoint(directory, signer.verifier_key)
            wal = Wal.open(
                directory,
                signed_leaves=0 if signed is None else signed.size,
                files=files,
                segment_bytes=segment_bytes,
            )
            undo.callback(wal.close)
            blobs = Blobs(directory, keyring, wal.watermark, files)
            undo.callback(blobs.close)
            log = cls(lock, wal, blobs, Publisher(directory, signer, signed))
            log.publish()
            undo.pop_all()
        log.recovered = replace(
            wal.recovered,
            tiles_rebuilt=log._publisher.rebuilt,
            payload_bytes_cut=blobs.cut_bytes,
        )
        return log

    @property
    def position(self) -> Position:
        """The end of what is durable."""
        return self._wal.position

    @property
    def signed(self) -> Checkpoint:
        """The last signed checkpoint."""
        signed = self._publisher.signed
        if signed is None:  # cannot be: open() publishes
            raise AuditError("could not name the checkpoint: the log was never opened")
        return signed

    def append(
        self, records: Sequence[Record], on_written: Callable[[int], None] | None = None
    ) -> int:
        """Make a group durable, payloads before leaves; returns the index of its first leaf.

        Raises:
            LogUnavailable: nothing was added; the same call may succeed later.
            LogDamaged: the disk does not return what it acknowledged.
        """
        before = self._blobs.watermark
        watermark = self._blobs.append(p for record in records for p in record.payloads)
        try:
            return self._wal.append([record.data for record in records], watermark, on_written)
        except AuditError:
            # A frame that could not be cut off may come back after a crash, and then needs its
            # payloads; otherwise they are orphans.
            if self._wal.mended:
                self._blobs.roll_back(before)
            raise

    def destroy(self, subject: str) -> bool:
        """Destroy a subject's data keys (writer's thread); whether it had any."""
        return self._blobs.destroy(subject)

    def publish(self) -> Checkpoint:
        """Sign a checkpoint of everything durable.

        Raises:
            LogUnavailable: the disk refused; the last checkpoint stands.
            LogDamaged: the log does not hold what was signed.
        """
        return self._publisher.publish(self._wal.position)

    def close(self) -> None:
        """Release the files and the lock. Signs nothing: call `publish` before."""
        self._blobs.close()
        self._wal.close()
        os.close(self._lock)


def _take_lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise LogLocked(
            f"could not open the log in {directory} for writing: another process is its writer"
        ) from exc
    return fd


def has_writer(directory: Path) -> bool:
    """Whether a process holds the log for writing at this moment."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
