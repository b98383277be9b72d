r"""The keys of the sealed parts of records: one for each subject, each can be destroyed alone.

A sealed part lies in a leaf and can never change, so its key must be what is destroyed. A key per
subject on disk would cost every new subject a durable write. So the keys are the leaves of a tree
of one-way functions (Goldreich, Goldwasser and Micali 1986), of which only the roots are stored,
and erasing is puncturing (Boneh and Waters 2013; Boyle, Goldwasser and Ivan 2014):

    root       of the first 2 bytes of a unit reference: 32 random bytes, stored
    child b    SHA-256(parent ‖ b): the path goes on with the next 3 bytes
    leaf       after 5 bytes: the AES-256-GCM key of every subject whose reference begins so

    blobs/seal.roots       "WBSEAL1\n", 12 bytes nonce, uint32 CRC-32 of the nonce, then 65,536
                           entries of 32 bytes, encrypted with AES-256-CTR under the master key and
                           that nonce; one that was punctured is all zeros. Then uint32 CRC-32 of
                           each entry
    blobs/seal/<4 hex>     a punctured root: "WBSEALP1", uint32 CRC-32 of the rest, uint16 number
                           of erasures, their ids (16 bytes each) and paths (3 bytes each), 12 bytes
                           nonce, AES-256-GCM of the nodes left: depth, path, 32 bytes each
Rule 1: puncturing stores the siblings along the path and a fresh leaf, durably, and then overwrites
the root, or the file of before, with zeros in place. Nobody can compute the old leaf again.
Rule 2: a subject that comes back gets the fresh leaf; what was sealed before stays lost.
Rule 3: 40 bits are told apart. Another subject with the same 40 bits is erased, too: with 10^7
subjects, once in 10^5 erasures.
Boundary: files; no event loop. Source: docs/adr/0014-erasure.md.
Read next: erasing.py (who punctures), subjects.py (the keys of payloads).
"""

import base64
import binascii
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from isal.isal_zlib import crc32

from .errors import LogDamaged, PayloadDamaged
from .events import Decision, DecisionV1
from .files import fsync_directory, make_directory, replace_file
from .keys import Keyring
from .mac import Mac
from .sealedpart import sealed_part

__all__ = ["ROOTS", "Seals", "View", "is_erased", "roots_lost", "roots_path"]

ROOTS = 1 << 16
_KEY_BYTES = 32
_DEPTH = 3
_MAGIC, _PUNCTURED = b"WBSEAL1\n", b"WBSEALP1"
_ROOTS_AT = 24
_CRCS_AT = _ROOTS_AT + ROOTS * _KEY_BYTES
_NONCE_BYTES = 12
_BYTES = [bytes([value]) for value in range(256)]
_NODE = struct.Struct(">B3s32s")
_COUNT = struct.Struct(">H")
_CRC = struct.Struct(">I")
_FILE_BYTES = _CRCS_AT + ROOTS * _CRC.size
_MARK_BYTES = 16 + _DEPTH
_NO_KEY = bytes(_KEY_BYTES)
_KEPT_ROOTS = 256
_REFERENCE = re.compile(r"[0-9a-f]{32}")


class _Marks(NamedTuple):
    """The part of a punctured root's file that needs no key, and where the rest begins."""

    erasures: list[tuple[bytes, bytes]]  # id, path
    head: bytes
    sealed: bytes


class View(NamedTuple):
    """The keys as they are on disk: roots, which of them are punctured, and nodes of those."""

    roots: bytes
    gone: frozenset[int]
    nodes: dict[int, dict[bytes, bytes]]


def roots_path(directory: Path) -> Path:
    """Where the roots lie, in the log's directory."""
    return directory / "blobs" / "seal.roots"


class Seals:
    """Seals and opens the private parts of records; punctures. For one thread at a time.

    Args:
        directory: the log's.
        keyring: holds the master key.
        create: make the roots where there never were any; else nothing can be opened then.

    Raises:
        LogDamaged: the file of the roots is damaged, or is no longer there.
    """

    def __init__(self, directory: Path, keyring: Keyring, *, create: bool = False) -> None:
        self._directory = directory
        self._keyring = keyring
        self._wrap = keyring.derived("seal-roots")
        self._aead = AESGCM(self._wrap)
        self._path = roots_path(directory)
        self._stamp = (0, 0)
        # Swapped whole, because one thread may puncture while another seals.
        self._view = View(b"", frozenset(range(ROOTS)), {})
        if create:
            self._create()
        self.refresh()

    def _create(self) -> None:
        """Make the roots, unless they are there. The folder beside them says that they were."""
        folder = self._path.parent / "seal"
        if not self._path.exists():
            if folder.exists():
                expected = "the keys of the sealed parts; restore it from the backup"
                raise LogDamaged(self._path, offset=None, expected=expected, found="no such file")
            make_directory(self._path.parent, mode=0o700)
            nonce = self._keyring.random(_NONCE_BYTES)
            made = self._crypt(nonce, self._keyring.random(ROOTS * _KEY_BYTES))
            head = _MAGIC + nonce + _CRC.pack(crc32(nonce))
            replace_file(self._path, head + made + _crcs(made), mode=0o600)
        # If we crash here, the roots are there, and the next start makes the folder.
        make_directory(folder, mode=0o700)

    def refresh(self) -> None:
        """Forget keys that another process has destroyed since.

        Raises:
            LogDamaged: the file of the roots is damaged.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        raw = self._path.read_bytes()
        nonce = _nonce_in(raw)
        if nonce is None:
            raise LogDamaged(
                self._path, offset=0, expected=f"{_FILE_BYTES} bytes of roots", found="damage"
            )
        stored = raw[_ROOTS_AT:_CRCS_AT]
        self._view = View(self._crypt(nonce, stored), _zero_entries(stored), {})
        self._stamp = stamp

    def seal(self, data: bytes, unit_ref: str, decision: str) -> str:
        """Encrypt the private part of a record; the inverse of `open`."""
        nonce = self._keyring.random(_NONCE_BYTES)
        sealed = AESGCM(self.key(unit_ref)).encrypt(nonce, data, decision.encode())
        return binascii.b2a_base64(nonce + sealed, newline=False).decode()

    def open(self, sealed: str, unit_ref: str, decision: str) -> bytes | None:
        """Decrypt what `seal` made for the same subject and record; None if the subject was erased.

        Raises:
            PayloadDamaged: changed bytes, another record's bytes, or another keyring.
        """
        self.refresh()
        try:
            raw = base64.b64decode(sealed, validate=True)
            key = AESGCM(self.key(unit_ref))
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], decision.encode())
        except (InvalidTag, ValueError) as exc:
            if self.erased(unit_ref):
                return None
            raise PayloadDamaged(f"could not open the sealed part of {decision}: {exc!r}") from exc

    def secret(self, decision: Decision) -> dict[str, Any] | None:
        """What the sealed part of a record says: `groups` and `nonce`; None if it was erased.

        Raises:
            PayloadDamaged: as `open`, or no gateway sealed this.
        """
        sealed = decision.sealed or ""
        if not _REFERENCE.fullmatch(decision.unit_ref):
            raise PayloadDamaged(f"could not open the sealed part of {decision.id}: it is nobody's")
        if isinstance(decision, DecisionV1):  # its key follows from the master key alone
            raw: bytes | None = self._keyring.open(sealed, decision.id)
        else:
            raw = self.open(sealed, decision.unit_ref, decision.id)
        return None if raw is None else sealed_part(raw, decision.id)

    def nonce(self, unit_ref: str, purpose: str) -> bytes:
        """16 bytes to commit with: the same for the same purpose until the subject is erased."""
        return Mac(self.key(unit_ref)).digest(b"nonce\x00" + purpose.encode())[:16]

    def key(self, unit_ref: str) -> bytes:
        """The key of a subject, 32 bytes; the one of now, if it was erased."""
        path = bytes.fromhex(unit_ref[:10])
        root = path[0] << 8 | path[1]
        view = self._view
        if root in view.gone:
            return self._punctured_key(view, root, path[2:])
        key = view.roots[root * 32 : root * 32 + 32]
        key = sha256(key + _BYTES[path[2]]).digest()
        key = sha256(key + _BYTES[path[3]]).digest()
        return sha256(key + _BYTES[path[4]]).digest()

    def lend(self) -> tuple[bytes, list[int]]:
        """All roots, and which of them are punctured and therefore zeros; for lent_seals.py."""
        self.refresh()
        roots, gone = bytearray(self._view.roots), sorted(self._view.gone)
        for root in gone:
            roots[root * _KEY_BYTES : root * _KEY_BYTES + _KEY_BYTES] = _NO_KEY
        return bytes(roots), gone

    def erased(self, unit_ref: str) -> bool:
        """Whether this subject was erased at least once; says nothing of its data since."""
        path = bytes.fromhex(unit_ref[:10])
        marks = _read_marks(_node_path(self._directory, path[0] << 8 | path[1]))
        return marks is not None and any(found == path[2:] for _, found in marks.erasures)

    def puncture(self, unit_ref: str, erasure: str, *, crash: Callable[[], object] = int) -> None:
        """Destroy the key of a subject, durably, for the erasure of this id; once.

        Args:
            unit_ref: the subject.
            erasure: the id of the record that says so.
            crash: called between the steps, for tests.

        Raises:
            OSError: call again.
            LogDamaged: a file of keys is damaged.
        """
        self.refresh()
        whole = bytes.fromhex(unit_ref[:10])
        root, path = whole[0] << 8 | whole[1], whole[2:]
        file = _node_path(self._directory, root)
        _settle(file)
        mark = (bytes.fromhex(erasure.replace("-", "")), path)
        marks = _read_marks(file)
        done = [] if marks is None else marks.erasures
        if mark not in done:
            nodes = {b"": self._view.roots[root * 32 : root * 32 + 32]}
            if marks is not None:
                nodes = dict(self._read_nodes(root))
            elif root in self._view.gone:
                raise self._damaged(file)
            _cut(nodes, path)
            nodes[path] = self._keyring.random(_KEY_BYTES)
            make_directory(file.parent, mode=0o700)
            fresh = file.with_suffix(".new")
            replace_file(fresh, self._format([*done, mark], nodes, root), mode=0o600)
            # If we crash here or below, `puncture` runs again, because the log says that it must.
            # Where the old file is whole it counts; where it is not, the new one does.
            crash()
            _overwrite(file)
            crash()
            fresh.replace(file)
            fsync_directory(file.parent)
        crash()
        self._zero_root(root)
        self.refresh()

    # --- the tree -----------------------------------------------------------------------------

    def _punctured_key(self, view: View, root: int, path: bytes) -> bytes:
        nodes = view.nodes.get(root)
        if nodes is None:
            if len(view.nodes) >= _KEPT_ROOTS:
                view.nodes.clear()
            nodes = view.nodes[root] = self._read_nodes(root)
        for depth in range(_DEPTH + 1):
            key = nodes.get(path[:depth])
            if key is not None:
                for byte in path[depth:]:
                    key = sha256(key + _BYTES[byte]).digest()
                return key
        raise self._damaged(_node_path(self._directory, root))

    def _read_nodes(self, root: int) -> dict[bytes, bytes]:
        file = _node_path(self._directory, root)
        marks = _read_marks(file)
        if marks is None:
            raise self._damaged(file)
        try:
            nonce, sealed = marks.sealed[:_NONCE_BYTES], marks.sealed[_NONCE_BYTES:]
            raw = self._aead.decrypt(nonce, sealed, marks.head + root.to_bytes(2, "big"))
        except InvalidTag as exc:
            raise self._damaged(file) from exc
        return {path[:depth]: key for depth, path, key in _NODE.iter_unpack(raw)}

    def _format(
        self, erasures: list[tuple[bytes, bytes]], nodes: dict[bytes, bytes], root: int
    ) -> bytes:
        head = _COUNT.pack(len(erasures)) + b"".join(name + path for name, path in erasures)
        raw = b"".join(
            _NODE.pack(len(path), path.ljust(_DEPTH, b"\0"), key) for path, key in nodes.items()
        )
        nonce = self._keyring.random(_NONCE_BYTES)
        rest = head + nonce + self._aead.encrypt(nonce, raw, head + root.to_bytes(2, "big"))
        return _PUNCTURED + _CRC.pack(crc32(rest)) + rest

    # --- files --------------------------------------------------------------------------------

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        # CTR without a tag: what it hides is random and is written once; zeros follow, never
        # other keys. A damaged entry is a wrong key, which opens nothing.
        return Cipher(AES(self._wrap), CTR(nonce + bytes(4))).encryptor().update(data)

    def _zero_root(self, root: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Written also where it is zero already: the new time tells other processes.
            crc = _CRC.pack(crc32(_NO_KEY))
            os.pwrite(fd, crc, _CRCS_AT + root * _CRC.size)
            os.pwrite(fd, _NO_KEY, _ROOTS_AT + root * _KEY_BYTES)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._stamp = (0, 0)

    def _damaged(self, file: Path) -> LogDamaged:
        return LogDamaged(
            file, offset=None, expected="the keys of a punctured root", found="damage"
        )


def _nonce_in(raw: bytes) -> bytes | None:
    """The nonce of the roots' file; None if that is not whole."""
    nonce = raw[len(_MAGIC) : len(_MAGIC) + _NONCE_BYTES]
    whole = len(raw) == _FILE_BYTES and raw.startswith(_MAGIC)
    crc = raw[_ROOTS_AT - _CRC.size : _ROOTS_AT]
    return nonce if whole and crc == _CRC.pack(crc32(nonce)) else None


def damaged_keys(directory: Path) -> Iterator[tuple[Path, int]]:
    """Every file of these keys that is not whole, and where; needs no key."""
    path = roots_path(directory)
    raw = path.read_bytes() if path.exists() else b""
    stored = raw[_ROOTS_AT:_CRCS_AT]
    if raw and _nonce_in(raw) is None:
        yield path, 0
    elif raw and raw[_CRCS_AT:] != (found := _crcs(stored)):
        pairs = zip(_CRC.iter_unpack(raw[_CRCS_AT:]), _CRC.iter_unpack(found), strict=True)
        wrong = next(place for place, (said, is_) in enumerate(pairs) if said != is_)
        yield path, _ROOTS_AT + wrong * _KEY_BYTES
    for file in sorted((directory / "blobs" / "seal").glob("[0-9a-f]" * 4)):
        if _read_marks(file) is None:
            yield file, 0


def roots_lost(directory: Path) -> bool:
    """Whether the roots are gone: the folder beside them is made after them. Needs no key."""
    return (directory / "blobs" / "seal").is_dir() and not roots_path(directory).exists()


def is_erased(directory: Path, unit_ref: str, erasure: str) -> bool:
    """Whether the key files hold no key for what an erasure took; needs no key.

    True where there are no key files at all: records of schema 1 have other keys.
    """
    whole = bytes.fromhex(unit_ref[:10])
    root = whole[0] << 8 | whole[1]
    try:
        with roots_path(directory).open("rb") as file:
            file.seek(_ROOTS_AT + root * _KEY_BYTES)
            stored = file.read(_KEY_BYTES)
    except FileNotFoundError:
        return True
    marks = _read_marks(_node_path(directory, root))
    mark = (bytes.fromhex(erasure.replace("-", "")), whole[2:])
    return stored == _NO_KEY and marks is not None and mark in marks.erasures


def _cut(nodes: dict[bytes, bytes], path: bytes) -> None:
    """Replace the node above `path` by its siblings along the way, without the leaf itself."""
    depth = next(d for d in range(_DEPTH + 1) if path[:d] in nodes)
    key = nodes.pop(path[:depth])
    for place in range(depth, _DEPTH):
        for byte in range(256):
            if byte != path[place]:
                nodes[path[:place] + _BYTES[byte]] = sha256(key + _BYTES[byte]).digest()
        key = sha256(key + _BYTES[path[place]]).digest()


def _node_path(directory: Path, root: int) -> Path:
    return directory / "blobs" / "seal" / f"{root:04x}"


def _read_marks(file: Path) -> _Marks | None:
    """What a punctured root's file says in clear; None if there is no whole file.

    One that was being replaced when the process ended is spoken for by its successor beside it.
    """
    return _whole(file) or _whole(file.with_suffix(".new"))


def _whole(file: Path) -> _Marks | None:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    rest = raw[len(_PUNCTURED) + _CRC.size :]
    if raw[: len(_PUNCTURED)] != _PUNCTURED or len(rest) < _COUNT.size:
        return None
    if _CRC.unpack_from(raw, len(_PUNCTURED))[0] != crc32(rest):
        return None
    end = _COUNT.size + _COUNT.unpack_from(rest)[0] * _MARK_BYTES
    marks = [
        (rest[at : at + 16], rest[at + 16 : at + _MARK_BYTES])
        for at in range(_COUNT.size, end, _MARK_BYTES)
    ]
    return _Marks(marks, rest[:end], rest[end:])


def _crcs(stored: bytes) -> bytes:
    keys = [crc32(key) for (key,) in struct.iter_unpack(f"{_KEY_BYTES}s", stored)]
    return struct.pack(f">{len(keys)}I", *keys)


def _settle(file: Path) -> None:
    """End a replacement that was interrupted: the old file stands if it is whole, else the new."""
    fresh = file.with_suffix(".new")
    _overwrite(fresh.with_name(fresh.name + ".tmp"))
    if not fresh.exists():
        return
    if _whole(file) is None and _whole(fresh) is not None:
        fresh.replace(file)
    else:
        _overwrite(fresh)
        fresh.unlink()
    fsync_directory(file.parent)


def _zero_entries(stored: bytes) -> frozenset[int]:
    """Which entries are all zeros; random ones never are."""
    found, at = [], stored.find(_NO_KEY)
    while at >= 0:
        entry = -(-at // _KEY_BYTES)
        if stored[entry * _KEY_BYTES : (entry + 1) * _KEY_BYTES] == _NO_KEY:
            found.append(entry)
        at = stored.find(_NO_KEY, entry * _KEY_BYTES + 1)
    return frozenset(found)


def _overwrite(file: Path) -> None:
    """Zeros in place of what a file holds, durably; nothing if there is none."""
    with suppress(FileNotFoundError), file.open("r+b", buffering=0) as opened:
        opened.write(bytes(file.stat().st_size))
        os.fdatasync(opened.fileno())
