"""Rows on a screen or in a file: nothing of them is cut off.

Rule 1: where the columns do not fit the terminal, each row is printed as lines of name and value,
as psql does when told to expand. What goes elsewhere is as wide as it needs to be.
Rule 2: a cell is text without control characters; what is not there is empty.
Boundary: printing; rows are the caller's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from .cli_edge import printable

__all__ = ["counted", "print_rows", "shown"]

console = Console(markup=False, highlight=False)
_WIDEST = 1 << 16


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, or its rows one below the other where it is too wide for the terminal."""
    table = Table(*map(shown, columns), box=None)
    cells = [[shown(value) for value in row] for row in rows]
    for row in cells:
        table.add_row(*row)
    needs = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    if not sys.stdout.isatty():
        Console(width=max(needs, console.width), markup=False, highlight=False).print(table)
    elif needs <= console.width:
        console.print(table)
    else:
        _print_apart([shown(name) for name in columns], cells)


def shown(value: object) -> str:
    """A value as a cell: nothing for None, no control characters."""
    return printable("" if value is None else str(value))


def counted(count: int, thing: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _print_apart(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    names = max(map(len, columns), default=0)
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, value in zip(columns, row, strict=True):
            console.print(f"{name:<{names}}  {value}".rstrip(), soft_wrap=True)
