"""The file of API keys as a running server sees it: followed without a restart.

Rule 1: a change takes effect within a second of its being written: the file is looked at when a
key is used, at most once a second, so that an idle server does nothing.
Rule 2: a file that is gone grants nothing. One that is damaged changes nothing and is reported
once: half of a hand-made edit must neither lock everybody out nor let anybody in.
Boundary: one file; who is asked is in guard.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from .apikeys import ApiKey, KeyFileDamaged, matches, read
from .principal import Principal

__all__ = ["KeyBook"]

log = logging.getLogger("weighbridge")
_LOOK_S = 1.0
Stamp = tuple[int, int, int]


class KeyBook:
    """The usable keys of a file."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Read the file now; a missing one is an empty one.

        Args:
            path: the file that `weighbridge apikey` writes.
            clock: monotonic seconds.
            now: Unix seconds.

        Raises:
            KeyFileDamaged: it is not a file of API keys.
        """
        self._path = path
        self._clock = clock
        self._now = now
        self._entries: dict[str, ApiKey] = {}
        self._stamp: Stamp | None = None
        self._looked = clock()
        self._load(self._look())

    def principal(self, text: str) -> Principal | None:
        """Whom the key `text` stands for; None when it is no usable key."""
        if self._clock() - self._looked >= _LOOK_S:
            self._refresh()
        found = matches(text, self._entries, self._now())
        return None if found is None else found.principal

    def usable(self) -> int:
        """How many keys can be used now."""
        now = self._now()
        return sum(entry.usable(now) for entry in self._entries.values())

    def _look(self) -> Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self, stamp: Stamp | None) -> None:
        try:
            self._entries = {} if stamp is None else read(self._path)
        except FileNotFoundError:
            self._entries, stamp = {}, None
        self._stamp = stamp

    def _refresh(self) -> None:
        """Read the file again if it changed; a few microseconds if not."""
        self._looked = self._clock()
        stamp = self._look()
        if stamp == self._stamp:
            return
        try:
            self._load(stamp)
        except (KeyFileDamaged, OSError) as exc:
            self._stamp = stamp  # reported once per change
            log.error("the API keys were not changed: %s", exc)
        else:
            log.warning("API keys were read again: %d can be used", self.usable())
