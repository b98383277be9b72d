"""`weighbridge audit verify --complete` and `--json`: what a program reads, and what counters say.

Rule: the log is held against itself and, where its metrics are given (the text that `/metrics`
shows, saved to a file), against the gateway. Reads files only.
"""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from audit.findings import Findings

from .cli_edge import printable, read_text

__all__ = ["findings_body", "print_json", "read_metrics"]

_NAME: Final = "weighbridge_records_total"
_LINE: Final = re.compile(rf"^{_NAME}[{{ \t].*$", re.M)
_RECORDS: Final = re.compile(  # a value, and perhaps when it was taken
    rf'{_NAME}\{{(?:[^}}]*,)?instance="([0-9a-f]{{8}})"[^}}]*\}} '
    r"([0-9]+(?:\.[0-9]+)?(?:e\+[0-9]{1,2})?)(?: [0-9]+)?"
)


def read_metrics(path: Path | None) -> dict[str, int]:
    """What each gateway process says that it recorded, from a saved `/metrics` page.

    Raises:
        ValueError: the page has no such figure, or one that cannot be read: it would pass unseen.
    """
    if path is None:
        return {}
    lines = _LINE.findall(read_text(path))
    if not lines:
        raise ValueError(f"could not read {path}: it has no {_NAME}")
    counts: dict[str, int] = {}
    for line in lines:
        if (found := _RECORDS.fullmatch(line.rstrip())) is None:
            raise ValueError(f"could not read {path}: {printable(line)} names no count")
        counts[found[1]] = counts.get(found[1], 0) + int(float(found[2]))
    return counts


def findings_body(findings: Findings) -> dict[str, Any]:
    """What `audit verify` found, as JSON types."""
    return {"ok": findings.ok, **asdict(findings)}


def print_json(body: dict[str, Any]) -> None:
    """Print for programs."""
    sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
