"""Retention in a running gateway: prune at the start and then regularly what passes its ceiling.

Rule: where no retention is set nothing is ever pruned, but what was begun is finished. A run that
fails is said in the log and made again; it never stands in the way of an answer. Of a witness
counts what it cosigned, verified, as it lies beside the log.
Boundary: settings to the audit room's objects; audit/pruning.py prunes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from audit.cosignature import cosignatures
from audit.cosigned import cosigned_path
from audit.erasing import Erasing
from audit.errors import AuditError
from audit.findings import amount
from audit.keys import Keyring
from audit.notary import Notary
from audit.pruning import Pruning
from audit.retention import parse_retention
from audit.rotation import chain_of

from .settings import Settings
from .tasks import begin
from .witnesses import parse_witnesses

__all__ = ["Retaining", "cosigned_sizes", "open_pruning"]

log = logging.getLogger("weighbridge")


def cosigned_sizes(settings: Settings, keyring: Keyring) -> Mapping[str, int]:
    """How many leaves each configured witness has cosigned, from what lies beside the log."""
    found = {}
    chain = chain_of(settings.log_dir, keyring.verifier_key(settings.origin))
    for address in parse_witnesses(settings.witnesses):
        found[address.key.name] = 0
        with suppress(OSError, AuditError, UnicodeDecodeError):  # as if it had never cosigned
            note = cosigned_path(settings.log_dir, address.key).read_text(encoding="utf-8")
            if cosignatures(note, [address.key]):
                found[address.key.name] = chain.open(note).size
    return found


def open_pruning(notary: Notary, erasing: Erasing, settings: Settings, keyring: Keyring) -> Pruning:
    """Pruning by the settings' policy."""
    return Pruning(
        notary,
        erasing,
        parse_retention(settings.retention),
        cosigned=lambda: cosigned_sizes(settings, keyring),
    )


class Retaining:
    """Looks regularly what has passed its ceiling."""

    def __init__(self, pruning: Pruning, settings: Settings) -> None:
        """Begin, in a running loop, unless no retention is set."""
        self._pruning = pruning
        self._interval_s = settings.retention_interval_s
        self._task: asyncio.Task[None] | None = None
        if parse_retention(settings.retention).any:
            self._task = begin(self._run(), "retention")

    async def close(self) -> None:
        """Look no more; a pruning that is under way is finished by the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                done = await self._pruning.keep_to_ceilings(round(self._interval_s * 1_000_000))
            except (AuditError, OSError) as exc:
                log.error("the audit log could not be pruned: %s", exc)
            else:
                if done is not None:
                    log.warning(
                        "pruned %s of the audit log, which begins at leaf %d now; leaf %d says so",
                        amount(done.segments, "segments"),
                        done.first_leaf,
                        done.leaf,
                    )
            await asyncio.sleep(self._interval_s)
