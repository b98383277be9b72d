"""What a run measured: figures by name, and what each was made of.

Rule: figures are numbers, or lists of them; None says "not measured in this run". Beside them
stands which interpreter ran, and how fast it is: builds of one version differ by half; and what the
host gave to other machines meanwhile: where that is more than a few hundredths, no tail of a
distribution is this program's.
"""

from __future__ import annotations

import json
import platform
import timeit
from collections.abc import Mapping

import psutil
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
        self._before = psutil.cpu_times()

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
        print(f"{_interpreter()}; {self._stolen()}")
        print("BENCH", json.dumps(self.values))

    def _stolen(self) -> str:
        """How much of the processor time that was wanted other machines had (proc(5), "steal")."""
        now, before = psutil.cpu_times(), self._before
        took = {name: getattr(now, name) - getattr(before, name) for name in now._fields}
        stolen = took.get("steal", 0.0)
        wanted = sum(took.get(name, 0.0) for name in ("user", "system", "softirq")) + stolen
        return f"other machines had {stolen / max(wanted, 1e-9):.0%} of the processor time wanted"


def _interpreter() -> str:
    """Which Python this is, and what it takes for a little of everything, at best."""
    table = dict.fromkeys(range(256), 1)

    def step(number: int) -> int:
        return table.get(number & 255, 0) + len(str(number))

    count = 20_000
    ns = 1e9 / count * min(timeit.repeat(lambda: list(map(step, range(count))), number=1))
    return f"Python {platform.python_version()}, {ns:.0f} ns for a call and a lookup"
