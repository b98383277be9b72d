"""The one writer's hold on a log directory: lock, recovery, groups, checkpoints.

    <log>/lock          held by the writer while it lives (writerlock.py)
    <log>/wal/          the truth (frames.py)
    <log>/committed     how far readers may believe it (marker.py)
    <log>/blobs/        encrypted payloads (blobs.py)
    <log>/tile/         derived: the tree (tiles.py)
    <log>/checkpoint    derived: the signed tree head (note.py)

Rule: knows no event loop. One group is appended at a time, and one thread publishes; the two may
run at once. Opening is recovery; there is no other way to open. Whoever finds that it holds the
lock no more does nothing further: each of these begins by making sure.
Read next: notary.py.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .blobfile import Payload
from .blobs import Blobs
from .errors import AuditError, LogDamaged, LogUnavailable, NoteError
from .filekinds import check_opened
from .files import FileLayer, OsFiles, make_directory
from .frames import Watermark
from .fresh import Stored
from .keys import Keyring
from .marker import Position
from .note import Checkpoint, Signer, VerifierKey
from .publish import Publisher, load_checkpoint
from .rotation import ROTATIONS_NAME, KeyChain, Rotation, read_rotations
from .steps import Steps, drive
from .syncer import Done, Syncer, Written
from .wal import SEGMENT_BYTES, Wal
from .writerlock import OwnFiles, WriterLock, take_lock


class Record(NamedTuple):
    """An entry, the payloads that must be durable with it, and its hash if that is known."""

    data: bytes
    payloads: tuple[Payload, ...] = ()
    leaf: bytes = b""


class Log:
    """An open log. Make it with `open`.

    Attributes:
        origin: the log's name, as in its checkpoints.
        recovered: what opening found and did.
    """

    def __init__(
        self, lock: WriterLock, files: FileLayer, wal: Wal, blobs: Blobs, publisher: Publisher
    ) -> None:
        self._lock = lock
        self._files = files
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
            LogUnavailable: the disk refused, or something else stands in place of a file.
            OSError: the directory cannot be made or read.
        """
        keyring.signer(origin)  # refuses a keyring that cannot sign, before anything is made
        make_directory(directory)
        with ExitStack() as undo:
            lock = take_lock(directory)
            undo.callback(lock.close)
            check_opened(directory)
            files = OwnFiles(files or OsFiles(), lock)
            signer, chain = _keys(directory, keyring, origin)
            signed = load_checkpoint(directory, chain)
            wal = Wal.open(
                directory,
                signed_leaves=0 if signed is None else signed.size,
                files=files,
                segment_bytes=segment_bytes,
            )
            undo.callback(wal.close)
            blobs = Blobs(directory, keyring, wal.watermark, files)
            undo.callback(blobs.close)
            log = cls(lock, files, wal, blobs, Publisher(directory, signer, signed))
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
        """Go through `steps`, syncing where it pauses; returns the index of the first leaf.

        Raises:
            LogUnavailable, LogDamaged: see `steps`.
        """
        return self.finish(self.steps(records, on_written))

    def ready(self, records: Sequence[Record]) -> bool:
        """Whether `steps` can take `records` without waiting for the disk but to sync."""
        payloads = [payload for record in records for payload in record.payloads]
        return self._wal.ready([record.data for record in records]) and (
            not payloads or self._blobs.ready(payloads)
        )

    def more_room(self) -> list[Callable[[], None]]:
        """What to run, in any thread, so that `ready` stays true; see AppendFile.more_room."""
        if self._lock.lost:
            return []
        return [fill for fill in (self._wal.more_room(), *self._blobs.more_room()) if fill]

    def start_sync(self, syncer: Syncer, pieces: Sequence[Written], done: Done) -> None:
        """Sync what `steps` wrote, without waiting."""
        self._files.fdatasync_soon(syncer, pieces, done)

    def finish(self, steps: Steps[int], error: OSError | None = None) -> int:
        """See steps.drive."""
        return drive(steps, self._files, error)

    def steps(
        self, records: Sequence[Record], on_written: Callable[[int], None] | None = None
    ) -> Steps[int]:
        """Make a group durable, payloads and leaves; returns the index of its first leaf.

        Pauses where files must be synced (steps.py). One group at a time.

        Args:
            records: one to many.
            on_written: told that index when the leaves are with the system but not yet on disk.

        Raises:
            LogUnavailable: nothing was added; the same call may succeed later.
            LogDamaged: the disk does not return what it acknowledged.
        """
        self._lock.hold()
        self._check_there()
        self._wal.mend()  # or a frame that failed could come back beside the payloads of this group
        before = self._blobs.watermark
        payloads = [payload for record in records for payload in record.payloads]
        entries = [record.data for record in records]
        try:
            beside = (yield from self._blobs.begin(payloads)) if payloads else []
            first, bundle = yield from self._wal.steps(
                entries, self._blobs.ahead, on_written, beside
            )
        except AuditError:
            self._blobs.roll_back(before)
            raise
        self._blobs.commit()
        leaves = [record.leaf for record in records]
        if all(leaves):
            self._publisher.fresh.add(Stored(first, entries, leaves, bundle))
        return first

    def _check_there(self) -> None:
        try:
            self._wal.check_there()
            self._blobs.check_there()
        except OSError as exc:
            raise LogUnavailable(f"could not go on writing {exc.filename}: {exc.strerror}") from exc

    def destroy(self, subject: str) -> bool:
        """Destroy a subject's data keys (writer's thread); whether it had any."""
        self._lock.look()
        return self._blobs.destroy(subject)

    def key_slots(self, subject: str) -> list[int]:
        """The numbers of a subject's live key slots (writer's thread)."""
        return self._blobs.key_slots(subject)

    def destroy_slots(self, numbers: Sequence[int]) -> int:
        """Destroy the keys in these slots (writer's thread); how many were live."""
        self._lock.look()
        return self._blobs.destroy_slots(numbers)

    def live_slots(self) -> list[int]:
        """The numbers of all live key slots (writer's thread)."""
        return self._blobs.live_slots()

    def payload_mark(self) -> Watermark:
        """How far the payload files have grown, durably (writer's thread)."""
        return self._blobs.watermark

    def roll(self) -> int:
        """End the segments being written (writer's thread); the first leaf of the next one.

        Raises:
            LogUnavailable: the disk refused; appending goes on.
        """
        self._lock.look()
        self._blobs.roll()
        self._wal.roll()
        return self._wal.position.leaves

    def prepare(self) -> None:
        """Have the next checkpoint's tiles made as far as they can be; `publish` does the rest.

        Raises:
            LogUnavailable, LogDamaged: as `publish`.
        """
        self._lock.look()
        self._publisher.prepare(self._wal.position)

    def pause_with(self, pause: Callable[[], None]) -> None:
        """Have `prepare` and `publish` call this between pieces of work; see Publisher."""
        self._publisher.pause = pause

    def publish(self) -> Checkpoint:
        """Sign a checkpoint of everything durable.

        Raises:
            LogUnavailable: the disk refused; the last checkpoint stands.
            LogDamaged: the log does not hold what was signed.
        """
        self._lock.look()
        return self._publisher.publish(self._wal.position)

    def ended(self) -> str | None:
        """Why this is no longer the log's writer; None while it is."""
        try:
            self._lock.hold()
        except LogUnavailable as exc:
            return str(exc)
        return None

    @property
    def key(self) -> VerifierKey:
        """The key that signs checkpoints."""
        return self._publisher.key

    def rotate(self, signer: Signer, leaf: int) -> Checkpoint:
        """Let another key sign from now on; see Publisher.rotate."""
        self._lock.look()
        return self._publisher.rotate(self._wal.position, signer, leaf)

    def close(self) -> None:
        """Release the files and the lock. Signs nothing: call `publish` before."""
        self._blobs.close()
        self._wal.close()
        self._lock.close()


def _keys(directory: Path, keyring: Keyring, origin: str) -> tuple[Signer, KeyChain]:
    """Who signs, and all keys: of a log whose key was rotated, the newest one must be there.

    Raises:
        KeyFileError: it is not.
        LogDamaged: the rotations do not hold, or are of other keys.
    """
    notes = read_rotations(directory)
    signer = keyring.signer(origin)
    try:
        if notes:
            signer = keyring.signer_of(Rotation.parse(notes[-1]).new)
        return signer, KeyChain.build(signer.verifier_key, notes)
    except NoteError as exc:
        raise LogDamaged(
            directory / ROTATIONS_NAME, offset=None, expected="rotations", found=str(exc)
        ) from exc
