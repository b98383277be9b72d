"""Encrypted payloads: what a decision was made from, erasable without touching the log.

    blobs/<8 digits>.seg     records (blobfile.py)
    blobs/subjects.keys      slots of 128 bytes, one data key per subject, wrapped by the master key

Rule: only the notary writes, and the bytes are durable when the leaf that commits to them is
acknowledged; a group whose payloads are not whole is one that recovery does not believe. The
write-ahead log notes how far these files had grown, so a shortened one is noticed. Destroying a
subject's slot makes its payloads unreadable and changes no leaf.
Read next: blobfile.py (the formats), subjects.py (the slots), payloads.py (reading).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .appendfile import AppendFile
from .blobfile import (
    NONCE_BYTES,
    SEGMENT_HEADER_BYTES,
    Payload,
    blob_segment_path,
    format_blob_header,
    format_record,
)
from .canonical import dumps_checked
from .errors import LogDamaged, LogUnavailable
from .files import FileLayer, make_directory, replace_file
from .frames import Watermark
from .keys import Keyring
from .steps import Steps
from .subjects import SubjectKeys
from .syncer import Written

__all__ = ["BLOB_SEGMENT_BYTES", "Blobs"]

_RESERVE_BYTES = 1 << 20
BLOB_SEGMENT_BYTES = 256 << 20
_OVERHEAD_BYTES = 256  # of a record beside its payload, names of ours counted
_AT_ONCE = 16


class Blobs:
    """The write end of the payload files, for one thread.

    Args:
        directory: the log's directory.
        keyring: holds the master key, and the source of nonces.
        watermark: how much of the files the log vouches for; the rest is cut off.
        files: the system calls.
        segment_bytes: a segment that has grown beyond this is followed by a new one.

    Raises:
        LogDamaged: the files are shorter than the log says, or a slot is damaged.
    """

    def __init__(
        self,
        directory: Path,
        keyring: Keyring,
        watermark: Watermark,
        files: FileLayer,
        *,
        segment_bytes: int = BLOB_SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._random = keyring.random
        self._files = files
        self._segment_bytes = segment_bytes
        make_directory(directory / "blobs", mode=0o700)
        self._number = watermark.blob_segment
        self.cut_bytes = self._cut_orphans(watermark)
        self._subjects = SubjectKeys(directory, keyring, watermark.subjects, files)
        size = max(watermark.blob_bytes, SEGMENT_HEADER_BYTES)
        self._file = AppendFile(self._path(), size, files, reserve=_RESERVE_BYTES)

    @property
    def watermark(self) -> Watermark:
        """How far the files have grown, durably."""
        return Watermark(self._number, self._file.size, self._subjects.count)

    def ready(self, payloads: Sequence[Payload]) -> bool:
        """Whether `steps` can take `payloads` without waiting for the disk but to sync."""
        length = sum(len(payload.data) + _OVERHEAD_BYTES for payload in payloads)
        return (
            self._file.size < self._segment_bytes
            and self._file.ready(length)
            and self._subjects.ready(len(payloads))
        )

    def more_room(self) -> list[Callable[[], None] | None]:
        """See AppendFile.more_room."""
        return [self._file.more_room(), self._subjects.more_room()]

    def check_there(self) -> None:
        """See AppendFile.check_there."""
        self._file.check_there()
        self._subjects.check_there()

    def begin(self, payloads: Sequence[Payload]) -> Steps[list[Written]]:
        """Encrypt and write; returns the pieces to sync to make that durable. See steps.py.

        `commit` or `roll_back` must follow, the latter also when it raises.

        Raises:
            LogUnavailable: the disk refused; nothing that was acknowledged is affected.
        """
        try:
            # If we crash before the leaves follow: bytes that nothing vouches for, which recovery
            # cuts off. So slots and records may be synced side by side.
            slots, syncs = self._subjects.begin([payload.subject for payload in payloads])
            records: list[bytes] = []
            for start in range(0, len(payloads), _AT_ONCE):
                if start:
                    yield []
                end = start + _AT_ONCE
                records += self._records(payloads[start:end], slots[start:end])
            if self._file.size >= self._segment_bytes:
                self._roll()
            return [*syncs, self._file.begin(b"".join(records))]
        except OSError as exc:
            raise LogUnavailable(f"could not store payloads: {exc}") from exc

    @property
    def ahead(self) -> Watermark:
        """How far the files have grown, if what was begun becomes durable."""
        return Watermark(self._number, self._file.end, self._subjects.ahead)

    def commit(self) -> None:
        """Believe what `begin` wrote, now that it is durable."""
        self._subjects.commit()
        self._file.commit()

    def roll_back(self, watermark: Watermark) -> None:
        """Forget what was begun since `watermark`: the next `begin` cuts it off first."""
        self._subjects.roll_back(watermark.subjects)
        same = watermark.blob_segment == self._number
        self._file.roll_back(
            max(watermark.blob_bytes, SEGMENT_HEADER_BYTES) if same else self._file.size
        )

    def destroy(self, subject: str) -> bool:
        """Destroy the data keys of `subject`; whether it had any.

        Raises:
            LogUnavailable: the disk refused; call again.
        """
        try:
            return self._subjects.destroy(subject)
        except OSError as exc:
            raise LogUnavailable(f"could not destroy a data key: {exc}") from exc

    def key_slots(self, subject: str) -> list[int]:
        """The numbers of the live key slots of `subject`."""
        return self._subjects.slots_of(subject)

    def live_slots(self) -> list[int]:
        """The numbers of all live key slots."""
        return self._subjects.live()

    def destroy_slots(self, numbers: Sequence[int]) -> int:
        """Destroy the keys in these slots; how many were live.

        Raises:
            LogUnavailable: the disk refused; call again.
        """
        try:
            return self._subjects.destroy_slots(numbers)
        except OSError as exc:
            raise LogUnavailable(f"could not destroy data keys: {exc}") from exc

    def roll(self) -> None:
        """End the segment being written and begin another, unless it is empty.

        If we crash before a record follows, recovery removes the empty one.

        Raises:
            LogUnavailable: the disk refused; the segment goes on.
        """
        if self._file.size > SEGMENT_HEADER_BYTES:
            try:
                self._roll()
            except OSError as exc:
                raise LogUnavailable(f"could not begin a payload segment: {exc}") from exc

    def close(self) -> None:
        """Release the files."""
        self._file.close()
        self._subjects.close()

    def _records(self, payloads: Sequence[Payload], slots: Sequence[int]) -> list[bytes]:
        """Encrypt each; those of one subject mostly follow one another, and share a cipher."""
        records, last, cipher, start = [], -1, None, 0
        nonces = self._random(NONCE_BYTES * len(payloads))
        for (decision_id, name, _, data), slot in zip(payloads, slots, strict=True):
            if cipher is None or slot != last:
                last, cipher = slot, AESGCM(self._subjects.key(slot))
            meta = dumps_checked({"id": decision_id, "name": name, "slot": slot})  # of our making
            nonce = nonces[start : start + NONCE_BYTES]
            start += NONCE_BYTES
            records.append(format_record(meta, nonce + cipher.encrypt(nonce, data, meta)))
        return records

    def _roll(self) -> None:
        path = blob_segment_path(self._directory, self._number + 1)
        self._file.close()
        replace_file(path, format_blob_header(self._number + 1), mode=0o600)
        self._number += 1
        self._file = AppendFile(path, SEGMENT_HEADER_BYTES, self._files, reserve=_RESERVE_BYTES)

    def _path(self) -> Path:
        return blob_segment_path(self._directory, self._number)

    def _cut_orphans(self, watermark: Watermark) -> int:
        """Remove what no leaf vouches for; how many bytes that was."""
        number, cut = self._number + 1, 0
        while (later := blob_segment_path(self._directory, number)).exists():
            cut += later.stat().st_size
            later.unlink()
            number += 1
        path = self._path()
        if not path.exists() and watermark.blob_bytes == 0:
            replace_file(path, format_blob_header(self._number), mode=0o600)
        size = path.stat().st_size if path.exists() else -1
        if size < watermark.blob_bytes:
            found = f"{size} bytes" if size >= 0 else "no such file"
            raise LogDamaged(
                path, offset=None, expected=f"{watermark.blob_bytes} bytes", found=found
            )
        with path.open("rb") as file:
            file.seek(max(watermark.blob_bytes, SEGMENT_HEADER_BYTES))
            return cut + len(file.read().rstrip(b"\0"))  # the rest was reserved, and is no orphan
