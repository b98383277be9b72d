"""Seals with the keys on disk: makes and opens sealed parts, and destroys a subject's key.

Rule 1: puncturing stores the siblings along the path and a fresh leaf, durably, and then overwrites
the root, or the file of before, with zeros in place. Nobody can compute the old leaf again.
Rule 2: a subject that comes back gets the fresh leaf; what was sealed before stays lost.
Rule 3: what another process destroyed is forgotten at the next look (`refresh`).
Boundary: files; no event loop. Source: docs/adr/0014-erasure.md.
Read next: keytree.py (the keys), sealroots.py (their files), erasing.py (who punctures),
subjects.py (the keys of payloads).
"""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import PayloadDamaged
from .events import Decision, DecisionV1
from .keys import Keyring
from .keytree import (
    KEY_BYTES,
    NO_KEY,
    NONCE_BYTES,
    Place,
    Sealer,
    View,
    leaf_below,
    place_of,
    punctured,
)
from .sealedpart import sealed_part
from .sealfiles import Mark, marks_of
from .sealroots import SealRoots

__all__ = ["Seals"]

_KEPT_ROOTS = 256
_REFERENCE = re.compile(r"[0-9a-f]{32}")


class Seals(Sealer):
    """Seals and opens the private parts of records; punctures. For one thread at a time.

    Args:
        directory: the log's.
        keyring: holds the master key.
        create: make the roots where there never were any; else nothing can be opened then.

    Raises:
        LogDamaged: the file of the roots is damaged, or is no longer there.
    """

    def __init__(self, directory: Path, keyring: Keyring, *, create: bool = False) -> None:
        super().__init__(keyring)
        self._directory = directory
        self._files = SealRoots(directory, keyring.derived("seal-roots"), keyring.random)
        self._stamp: tuple[int, int] | None = None
        if create:
            self._files.create()
        self.refresh()

    def refresh(self) -> None:
        """Forget keys that another process has destroyed since.

        Raises:
            LogDamaged: the file of the roots is damaged.
        """
        stamp = self._files.stamp()
        if stamp is not None and stamp != self._stamp:
            self._view, self._stamp = self._files.view(), stamp

    def open(self, sealed: str, unit_ref: str, decision: str) -> bytes | None:
        """Decrypt what `seal` made for the same subject and record; None if the subject was erased.

        Raises:
            PayloadDamaged: changed bytes, another record's bytes, or another keyring.
        """
        self.refresh()
        try:
            raw = base64.b64decode(sealed, validate=True)
            key = AESGCM(self.key(unit_ref))
            return key.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], decision.encode())
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

    def lend(self) -> tuple[bytes, list[int]]:
        """All roots, and which of them are punctured and therefore zeros; for lent_seals.py."""
        self.refresh()
        roots, gone = bytearray(self._view.roots), sorted(self._view.gone)
        for root in gone:
            roots[root * KEY_BYTES : (root + 1) * KEY_BYTES] = NO_KEY
        return bytes(roots), gone

    def derived(self, purpose: str) -> bytes:
        """A key for one purpose, which only who has the master key can make; 32 bytes."""
        return self._keyring.derived(purpose)

    def erased(self, unit_ref: str) -> bool:
        """Whether this subject was erased at least once; says nothing of its data since."""
        place = place_of(unit_ref)
        return any(mark.path == place.path for mark in marks_of(self._directory, place))

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
        place = place_of(unit_ref)
        self._files.settle(place.root)
        mark = Mark.of(erasure, place.path)
        marks = marks_of(self._directory, place)
        if mark not in marks:
            nodes = self._nodes(place, marks)
            fresh = self._keyring.random(KEY_BYTES)
            left = punctured(nodes, place.path, fresh)
            # If we crash in here or below, `puncture` runs again: the log says that it must.
            self._files.replace(place.root, [*marks, mark], left, crash)
        crash()
        self._files.zero(place.root)
        self._stamp = None
        self.refresh()

    def _nodes(self, place: Place, marks: list[Mark]) -> dict[bytes, bytes]:
        """What a root's subjects have now: the root itself, or what earlier erasures left."""
        if marks:
            return self._files.nodes(place.root)
        if place.root in self._view.gone:
            raise self._files.damaged(place.root)
        return {b"": self._view.roots[place.root * KEY_BYTES : (place.root + 1) * KEY_BYTES]}

    def _punctured_key(self, view: View, place: Place) -> bytes:
        nodes = view.nodes.get(place.root)
        if nodes is None:
            if len(view.nodes) >= _KEPT_ROOTS:
                view.nodes.clear()
            nodes = view.nodes[place.root] = self._files.nodes(place.root)
        key = leaf_below(nodes, place.path)
        if key is None:
            raise self._files.damaged(place.root)
        return key
