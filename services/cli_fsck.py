"""`weighbridge audit fsck`: what lies in the log's folder, file by file, in plain words.

Rule: reads only, also beside a running gateway; `--repair` makes derived files anew or leaves them
to the next start, and does nothing else. Exit status 0: clean; 1: something that the next start
mends, or that is said what to do about; 2: damage, or it could not look. What it shows are files,
no records, so no access is recorded.
"""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console

from audit.errors import NotFound
from audit.findings import amount
from audit.fsck import Report, Seen, inspect
from audit.note import VerifierKey
from audit.repair import rebuild_derived
from audit.snapshot import SNAPSHOTS
from audit.writerlock import has_writer

from .accessed import LogFolder, LogKey, trusted_key
from .settings import settings

__all__ = ["fsck"]

console = Console(markup=False, highlight=False, soft_wrap=True)
_REPAIR = (
    "make tiles and index anew from the log, and remove what the next start makes anew "
    f"({' and '.join(SNAPSHOTS)}) and files that never got their name; no more"
)
_SAID = {0: "clean", 1: "something to mend, no damage", 2: "damage"}


def fsck(
    *,
    repair: Annotated[bool, typer.Option("--repair", help=_REPAIR)] = False,
    every: Annotated[bool, typer.Option("--all", help="also name what is as it must be")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    log: LogFolder = None,
    public_key: LogKey = None,
) -> None:
    """Explain what lies in the log's folder: what it means, and what to do about it."""
    chosen = settings()
    directory = log or chosen.log_dir
    if not directory.is_dir():
        raise NotFound(f"there is no log in {directory}; start a server, or give --log FOLDER")
    key = VerifierKey.parse(trusted_key(public_key))
    parquet = None if log else chosen.home.absolute() / "parquet"
    report = inspect(directory, key, parquet=parquet)
    done: list[str] = []
    if repair:
        if has_writer(directory):
            raise ValueError("could not repair: a server writes this log; stop it first")
        wrong = {one.path for one in report.seen if one.path.startswith("tile/")}
        done = rebuild_derived(directory, key, wrong)
        report = inspect(directory, key, parquet=parquet)
    if as_json:
        body = {
            "status": report.status,
            "repaired": done,
            "seen": [one._asdict() for one in report.seen if every or one.level != "fine"],
        }
        sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _show(report, done, every=every)
    raise typer.Exit(report.status)


def _show(report: Report, done: list[str], *, every: bool) -> None:
    for name in done:
        console.print(f"made anew or removed: {name}")
    for one in report.seen:
        if every or one.level != "fine":
            console.print(_line(one))
    fine = sum(one.level == "fine" for one in report.seen)
    read = amount(report.findings.leaves, "leaves")
    console.print(f"{read} read; as they must be: {amount(fine, 'files')}")
    console.print(f"result     {_SAID[report.status]}")


def _line(one: Seen) -> str:
    means = f" ({one.means})" if one.means else ""
    todo = f"; to do: {one.todo}" if one.todo and one.todo != "nothing" else ""
    return f"{one.level:10} {one.path}: {one.what}{means}{todo}"
