"""Writing the key files of sealed parts: making the roots, puncturing them, reading what is left.

Rule 1: what a file held is overwritten with zeros in place before another takes its name.
Rule 2: the folder is made after the roots; so roots that are missing beside it are lost, and never
made anew. Neither are they where a record of the log was sealed with them.
Boundary: files; no event loop. Read next: sealfiles.py (the formats), keytree.py (what the keys
are), seals.py (who uses this).
"""

import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from .errors import LogDamaged
from .files import fsync_directory, make_directory, replace_file
from .keytree import KEY_BYTES, NONCE_BYTES, ROOTS, View
from .reader import LogReader
from .sealedpart import is_sealed
from .sealfiles import (
    Mark,
    format_marks,
    format_punctured,
    format_roots,
    node_path,
    read_marked,
    roots_in,
    roots_path,
    whole,
    zero_entries,
    zeroing,
)

__all__ = ["SealRoots"]

_NODE = struct.Struct(">B3s32s")


class SealRoots:
    """The key files of one log, for who has the master key.

    Args:
        directory: the log's.
        wrap: 32 bytes, the key that hides the roots and nodes.
        random: makes so many random bytes.
    """

    def __init__(self, directory: Path, wrap: bytes, random: Callable[[int], bytes]) -> None:
        self._directory = directory
        self._wrap = wrap
        self._aead = AESGCM(wrap)
        self._random = random
        self._path = roots_path(directory)

    def create(self) -> None:
        """Make the roots, unless they are there. The folder beside them says that they were.

        Raises:
            LogDamaged: they were, and are not; or the log, which could say so, cannot be read.
        """
        folder = self._path.parent / "seal"
        if not self._path.exists():
            if folder.exists() or _has_sealed(self._directory):
                expected = "the keys of the sealed parts; restore it from the backup"
                raise LogDamaged(self._path, offset=None, expected=expected, found="no such file")
            make_directory(self._path.parent, mode=0o700)
            nonce = self._random(NONCE_BYTES)
            made = self._crypt(nonce, self._random(ROOTS * KEY_BYTES))
            replace_file(self._path, format_roots(nonce, made), mode=0o600)
        # If we crash here, the roots are there, and the next start makes the folder.
        make_directory(folder, mode=0o700)

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever a root was punctured, by whatever process; None without roots."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def view(self) -> View:
        """The roots as they are now.

        Raises:
            LogDamaged: their file is not whole.
        """
        found = roots_in(self._path.read_bytes())
        if found is None:
            raise LogDamaged(
                self._path, offset=0, expected=f"{ROOTS:,} whole roots", found="damage"
            )
        nonce, stored = found
        return View.of(self._crypt(nonce, stored), zero_entries(stored))

    def nodes(self, root: int) -> dict[bytes, bytes]:
        """What is left of a punctured root.

        Raises:
            LogDamaged: its file is missing or not whole, or another key hides it.
        """
        marked = read_marked(node_path(self._directory, root))
        if marked is None:
            raise self.damaged(root)
        try:
            nonce, sealed = marked.sealed[:NONCE_BYTES], marked.sealed[NONCE_BYTES:]
            raw = self._aead.decrypt(nonce, sealed, marked.head + root.to_bytes(2, "big"))
        except InvalidTag as exc:
            raise self.damaged(root) from exc
        return {path[:depth]: key for depth, path, key in _NODE.iter_unpack(raw)}

    def settle(self, root: int) -> None:
        """End a `replace` that was interrupted: the old file stands if it is whole, else the new.

        Raises:
            OSError: call again.
        """
        file = node_path(self._directory, root)
        fresh = file.with_suffix(".new")
        _overwrite(fresh.with_name(fresh.name + ".tmp"))
        if not fresh.exists():
            return
        if whole(file) is None and whole(fresh) is not None:
            fresh.replace(file)
        else:
            _overwrite(fresh)
            fresh.unlink()
        fsync_directory(file.parent)

    def replace(
        self,
        root: int,
        marks: list[Mark],
        nodes: Mapping[bytes, bytes],
        crash: Callable[[], object],
    ) -> None:
        """Let a punctured root's file say this, durably, and nothing of what it said before.

        Interrupted, `settle` ends it: where the old file is whole it counts, else the new one does.

        Raises:
            OSError: call again.
        """
        file = node_path(self._directory, root)
        make_directory(file.parent, mode=0o700)
        fresh = file.with_suffix(".new")
        replace_file(fresh, self._format(root, marks, nodes), mode=0o600)
        crash()
        _overwrite(file)
        crash()
        fresh.replace(file)
        fsync_directory(file.parent)

    def zero(self, root: int) -> None:
        """Overwrite a root with zeros, durably.

        Raises:
            OSError: call again.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Written also where it is zero already: the new time tells other processes.
            for offset, data in zeroing(root):
                os.pwrite(fd, data, offset)
            os.fsync(fd)
        finally:
            os.close(fd)

    def damaged(self, root: int) -> LogDamaged:
        """What to raise where a punctured root's file does not hold what it must."""
        file = node_path(self._directory, root)
        return LogDamaged(
            file, offset=None, expected="the keys of a punctured root", found="damage"
        )

    def _format(self, root: int, marks: list[Mark], nodes: Mapping[bytes, bytes]) -> bytes:
        head = format_marks(marks)
        raw = b"".join(_NODE.pack(len(path), path, key) for path, key in nodes.items())
        nonce = self._random(NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, raw, head + root.to_bytes(2, "big"))
        return format_punctured(head, sealed)

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        # CTR without a tag: what it hides is random and is written once; zeros follow, never
        # other keys. A damaged entry is a wrong key, which opens nothing.
        return Cipher(AES(self._wrap), CTR(nonce + bytes(4))).encryptor().update(data)


def _has_sealed(directory: Path) -> bool:
    """Whether a record of the log has a sealed part; only asked where there are no keys."""
    return any(is_sealed(entry) for _, entry in LogReader(directory).raw())


def _overwrite(file: Path) -> None:
    """Zeros in place of what a file holds, durably; nothing if there is none."""
    with suppress(FileNotFoundError), file.open("r+b", buffering=0) as opened:
        opened.write(bytes(file.stat().st_size))
        os.fdatasync(opened.fileno())
