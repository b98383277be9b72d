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

from .cli_edge import read_text

__all__ = ["findings_body", "print_json", "read_metrics"]

_RECORDS: Final = re.compile(
    r'^weighbridge_records_total\{(?:[^}]*,)?instance="([0-9a-f]{8})"[^}]*\} ([0-9.e+]+)$', re.M
)


def read_metrics(path: Path | None) -> dict[str, int]:
    """What each gateway process says that it recorded, from a saved `/metrics` page.

    Raises:
        ValueError: the page has no such figure.
    """
    if path is None:
        return {}
    found = _RECORDS.findall(read_text(path))
    if not found:
        raise ValueError(f"could not read {path}: it has no weighbridge_records_total")
    counts: dict[str, int] = {}
    for instance, value in found:
        counts[instance] = counts.get(instance, 0) + int(float(value))
    return counts


def findings_body(findings: Findings) -> dict[str, Any]:
    """What `audit verify` found, as JSON types."""
    return {"ok": findings.ok, **asdict(findings)}


def print_json(body: dict[str, Any]) -> None:
    """Print for programs."""
    sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
