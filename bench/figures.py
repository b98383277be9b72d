"""What a run measured: figures by name, and what each was made of.

Rule: figures are numbers, or lists of them; None says "not measured in this run".
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

__all__ = ["Figures"]

Value = float | list[float] | None


class Figures:
    """The figures of one run.

    Args:
        reach: what each should reach, in words, in the order in which they are shown.
    """

    def __init__(self, reach: Mapping[str, str]) -> None:
        self._reach = reach
        self.values: dict[str, Value] = {}
        self._notes: dict[str, str] = {}

    def note(self, key: str, value: Value, text: str) -> None:
        """Keep a figure and what it was made of."""
        self.values[key], self._notes[key] = value, text

    def show(self) -> None:
        """Print the table, and as the last line `BENCH` and a JSON object."""
        table = Table("figure", "reach", "seen", "from", box=None)
        for key, reach in self._reach.items():
            if key in self.values:
                table.add_row(key, reach, str(self.values[key]), self._notes[key])
        Console(width=120).print(table)
        print("BENCH", json.dumps(self.values))
