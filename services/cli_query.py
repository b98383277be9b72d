"""`weighbridge audit parquet` and `query`: hand the log on, ask it in SQL.

Rule: what is shown comes from the log itself or from what was made of it; on the live log it is on
record first who asked for what (accessed.py). The column engines are imported by the commands that
need them, never by a server.
"""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from audit.findings import amount

from .accessed import Actor, LogFolder, Reason, check_outside, open_reader, record_access
from .cli_edge import for_programs
from .cli_table import print_rows
from .settings import settings

__all__ = ["parquet", "query"]

console = Console(markup=False, highlight=False)
_TABLE_ROWS = 1000


def parquet(
    *,
    to: Annotated[
        str, typer.Option(help="a folder, or any URL that fsspec knows; home's parquet/ if empty")
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="also what is signed of the segment being written")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; compare what is there with the log")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop-pruned", help="only remove what the log does not hold any more")
    ] = False,
    log: LogFolder = None,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Write what is new of the signed log as Parquet files, by type and day."""
    if every + check + drop > 1:
        raise ValueError("could not choose: give one of --all, --check and --drop-pruned")
    columnar = _columnar("parquet")
    reader = open_reader(log)
    destination = columnar.Destination(to or str(_default_parquet()))
    if destination.local is not None:
        check_outside(destination.local)
    record_access(
        settings(),
        reader.directory,
        action="parquet",
        target=f"{'check of ' if check else ''}{destination.name}",
        actor=actor,
        reason=reason,
    )
    if drop:
        dropped = columnar.drop_pruned(reader, destination)
        console.print(f"removed {dropped} pruned leaves from {destination.name}", soft_wrap=True)
        return
    if check:
        problems = columnar.check(reader, destination)
        for problem in problems:
            console.print(problem, soft_wrap=True)
        if problems:
            console.print("export to an empty folder with `audit parquet --to`, and use that one")
        else:
            held = _words(destination.manifest().leaves)
            console.print(f"{held} are in {destination.name}, as in the log", soft_wrap=True)
        raise typer.Exit(1 if problems else 0)
    before = destination.manifest()
    manifest = columnar.export(reader, destination, all_signed=every)
    new = len(manifest.leaves) - (len(before.leaves) if before else 0)
    held = _words(manifest.leaves)
    console.print(f"wrote {new} leaves; {destination.name} now holds {held}", soft_wrap=True)
    if not every and manifest.end < reader.size():
        console.print("the rest is in the segment that is being written; --all writes it, too")


def query(
    sql: Annotated[str, typer.Argument(help="one SELECT; a table per type: decision, outcome, …")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="comma separated, with a head")] = False,
    parquet: Annotated[
        str, typer.Option("--parquet", help="where `audit parquet` wrote; home's if empty")
    ] = "",
    log: LogFolder = None,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Ask the signed log in SQL (DuckDB); tables only, no file and no network."""
    if as_json and as_csv:
        raise ValueError("could not run the query: give --json or --csv, not both")
    engine, columnar = _columnar("sql"), _columnar("parquet")
    reader = open_reader(log)
    record_access(
        settings(), reader.directory, action="query", target=sql, actor=actor, reason=reason
    )
    where = parquet or ("" if log else str(_default_parquet()))
    destination = columnar.Destination(where) if where else None
    with engine.Tables(reader, destination) as tables:
        found = tables.ask(sql)
        if tables.copied and destination is not None:
            said = f"note: {_words(tables.copied)} come from {destination.name}, a copy"
            typer.echo(f"{said}; `audit parquet --check` compares it with the log", err=True)
        if tables.pruned:
            typer.echo(f"note: {amount(tables.pruned, 'leaves')} pruned, in no table", err=True)
        if as_csv or as_json:
            for_programs()
        if as_csv:
            lines = csv.writer(sys.stdout, lineterminator="\n")
            lines.writerow(found.columns)
            lines.writerows(map(_cells, found.rows))
        elif as_json:
            _print_json(found.columns, found.rows)
        else:
            _print_rows(found.columns, found.rows)


def _words(leaves: range) -> str:
    if not leaves:
        return "no leaves"
    return f"the leaves {leaves[0]} to {leaves[-1]}"


def _print_rows(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Tables of so many rows that memory is bounded; the usual answer is one."""
    part = list(islice(rows, _TABLE_ROWS))
    while True:
        print_rows(columns, list(map(_cells, part)))
        if not (part := list(islice(rows, _TABLE_ROWS))):
            return


def _print_json(columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    if len(set(columns)) < len(columns):
        raise ValueError("could not print the rows: two columns have one name; rename with AS")
    for row in rows:
        found = orjson.dumps(dict(zip(columns, row, strict=True)), default=_plain)
        sys.stdout.write(found.decode() + "\n")


def _cells(row: tuple[Any, ...]) -> list[Any]:
    """A row for people and spreadsheets: lists and objects are JSON there, bytes are hex digits."""
    return [
        orjson.dumps(value, default=_plain).decode()
        if isinstance(value, list | dict)
        else value.hex()
        if isinstance(value, bytes)
        else value
        for value in row
    ]


def _plain(value: object) -> object:
    """What JSON has no form for: sums are whole numbers where they can be, the rest is text."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) and abs(value) < 1 << 63 else str(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _columnar(name: str) -> Any:
    """The module of the column engines, which are an extra."""
    try:
        return importlib.import_module(f"audit.{name}")
    except ModuleNotFoundError as exc:
        raise ValueError(
            f"could not import {exc.name}: install the extra, pip install 'weighbridge[query]'"
        ) from exc


def _default_parquet() -> Path:
    return settings().home.absolute() / "parquet"
