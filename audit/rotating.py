"""Replacing the key that signs the log: the record, the rotation, and the key files, in this order.

Steps, and what a crash after each means to the next start (`finish`):
    1  keys/log.key.next   the new key, private                     it is thrown away
    2  the record          `key_rotation`, durable                  steps 3 and 4 are done
    3  rotations/<size>    the tree that both keys signed; from     step 4 is done; until then
                           here on the new key signs                 log.key.next signs (Log.open)
    4  keyring.id, log.key the new key takes the old one's place     the rename is done
Rule: the old private key is overwritten; nothing that it signed becomes invalid. A log that has a
rotation is never signed by the key before it, whatever lies in the key folder.
Boundary: asyncio, through the one writer.
Read next: rotation.py (the notes), keys.py (the files).
"""

import asyncio
import logging
from pathlib import Path
from typing import NamedTuple

from .errors import EventInvalid, KeyFileError
from .events import KeyRotation
from .keyfiles import drop_next, promote_next, read_next, write_next
from .notary import Notary
from .note import Signer, VerifierKey
from .reader import LogReader
from .record import decode, new_id, now_us

__all__ = ["Rotated", "Rotating"]

_LOGGER = logging.getLogger("weighbridge.audit")
_PURPOSE = "log"
_KIND = b'"type":"key_rotation"'
_MAX_TEXT = 1024


class Rotated(NamedTuple):
    """What a rotation did: the record's leaf, and the keys, as C2SP vkeys."""

    leaf: int
    old_key: str
    new_key: str


class Rotating:
    """Rotates the key of one log, through the notary of this process.

    Args:
        notary: the log's writer.
        keys: the key folder.
    """

    def __init__(self, notary: Notary, keys: Path) -> None:
        self._notary = notary
        self._keys = keys
        self._one = asyncio.Lock()

    async def rotate(self, *, actor: str, reason: str) -> Rotated:
        """Make a new key and sign with it from now on.

        Args:
            actor: who does it.
            reason: why; both are in clear in the log.

        Raises:
            EventInvalid: the reason or the actor is empty or too long.
            KeyFileError, LogUnavailable, OSError: the disk refused; call again, or start again.
        """
        for name, text in (("actor", actor), ("reason", reason)):
            if not text.strip() or len(text) > _MAX_TEXT:
                raise EventInvalid(f"could not rotate the key: give the {name}, in words")
        async with self._one:
            await self._finish()  # one that was interrupted comes first
            old = self._notary.verifier_key
            try:
                seed = await asyncio.to_thread(write_next, self._keys)
            except OSError as exc:
                raise KeyFileError(
                    "could not rotate the key: its folder refused the new one "
                    f"({exc.strerror}); the old one goes on, try again"
                ) from exc
            signer = Signer(self._notary.origin, seed)
            event = KeyRotation(
                id=new_id(),
                time_us=now_us(),
                purpose=_PURPOSE,
                old_key=str(old),
                new_key=str(signer.verifier_key),
                actor=actor,
                reason=reason,
            )
            receipt = await self._notary.append(event, durability="strict")
            await self._take_effect(signer, receipt.index)
            return Rotated(receipt.index, str(old), str(signer.verifier_key))

    async def finish(self) -> bool:
        """Finish a rotation that was interrupted; whether there was one.

        Raises:
            KeyFileError, LogUnavailable, LogDamaged, OSError: it could not be finished.
        """
        async with self._one:
            return await self._finish()

    async def _finish(self) -> bool:
        seed = await asyncio.to_thread(read_next, self._keys)
        if seed is None:
            return False
        signer = Signer(self._notary.origin, seed)
        if self._notary.verifier_key == signer.verifier_key:  # step 3 was reached
            await asyncio.to_thread(promote_next, self._keys)
        else:
            leaf = await asyncio.to_thread(self._recorded, signer.verifier_key)
            if leaf is None:
                await asyncio.to_thread(drop_next, self._keys)
                return False
            await self._take_effect(signer, leaf)
        _LOGGER.warning("finished a key rotation that was interrupted")
        return True

    async def _take_effect(self, signer: Signer, leaf: int) -> None:
        await self._notary.replace_signer(signer, leaf)
        await asyncio.to_thread(promote_next, self._keys)

    def _recorded(self, key: VerifierKey) -> int | None:
        """The leaf that says that `key` replaces the one in force."""
        for index, data in LogReader(self._notary.directory).raw():
            if _KIND in data:
                event = decode(data)
                if isinstance(event, KeyRotation) and event.new_key == str(key):
                    return index
        return None
