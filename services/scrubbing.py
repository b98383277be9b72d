"""What was derived from a subject's payloads and lies beside the log: reports with its decisions.

Rule: a report below the home folder that names a decision of the subject is removed, because it may
show what was kept of it; it can be made again, without. The index and the log hold references and
commitments only, and stay. Copies elsewhere are out of our reach.
Boundary: files; no event loop.
"""

from __future__ import annotations

import re
from pathlib import Path

from audit.index import Index
from audit.reader import LogReader

__all__ = ["scrub_reports"]

_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def scrub_reports(reports: Path, log: Path, unit_ref: str) -> list[str]:
    """Remove the files below `reports` that name a decision of `unit_ref`; their names.

    Raises:
        OSError: a file could not be read or removed.
        LogDamaged: the log could not be read.
    """
    files = [path for path in sorted(reports.rglob("*")) if path.is_file()]
    if not files:
        return []
    removed = []
    reader = LogReader(log)
    known: dict[bytes, bool] = {}
    with Index(log) as index:
        for path in files:
            text = path.read_bytes()
            for name in set(_ID.findall(text)):
                if name not in known:
                    leaf = index.find(name.decode())
                    event = reader.entry(leaf).event if leaf is not None else None
                    known[name] = getattr(event, "unit_ref", None) == unit_ref
                if known[name]:
                    _destroy(path)
                    removed.append(path.relative_to(reports).as_posix())
                    break
    return removed


def _destroy(path: Path) -> None:
    """Overwrite and remove, so that the bytes are not left in free blocks where they stood."""
    with path.open("r+b", buffering=0) as file:
        file.write(bytes(path.stat().st_size))
    path.unlink()
