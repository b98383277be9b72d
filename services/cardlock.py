"""A card is held by one process of ours at a time: a lock file per card, for the process's life.

Rule: two gateways on one machine know nothing of each other; the lock is what stops the second from
computing on the first one's card by accident. The kernel lets go of it when the process ends,
however it ends, so a restarted runner finds its card free.
Limits: the lock lies in the machine's folder for temporary files; containers with folders of their
own, and other people's programs, are not seen.
Source: flock(2).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from runners.errors import DeviceUnavailable

__all__ = ["CardLock"]

_MODE: Final = 0o666  # another user's gateway must find it locked, not forbidden


class CardLock:
    """The hold on one card; `close` lets go, and so does the end of the process."""

    def __init__(self, card: str, folder: Path | None = None) -> None:
        """Take hold of `card`, as CUDA_VISIBLE_DEVICES names it.

        Raises:
            DeviceUnavailable: another process of ours holds it.
        """
        name = hashlib.sha256(card.encode()).hexdigest()[:12]
        path = (folder or Path(tempfile.gettempdir())) / f"weighbridge-card-{name}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, _MODE)
        except OSError as exc:
            raise DeviceUnavailable(f"could not look whether card {card} is free: {exc}") from exc
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._file)
            raise DeviceUnavailable(
                f"card {card} is in use by another runner or gateway on this machine: name another "
                "in WEIGHBRIDGE_GPUS, or set WEIGHBRIDGE_SHARE_GPU=true"
            ) from exc

    def close(self) -> None:
        """Let go."""
        os.close(self._file)
