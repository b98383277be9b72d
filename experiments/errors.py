"""Errors of the experiments package, split by who is at fault.

Rule: an author's mistake (`DefinitionError`) lists every fault found, each with its file, line
and field; a caller's mistake is `UnitError`; a wrong number handed to a statistic is `InputError`.
Boundary: `status_hint` is only a hint; the doors in services decide what a client sees.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class ExperimentError(Exception):
    """Base of every error this package raises on purpose."""

    status_hint: ClassVar[int] = 500


class Fault(NamedTuple):
    """One mistake in a definition: where it stands, what is wrong, what to do."""

    file: str
    line: int  # counted from 1; 0 when the fault is not at one line
    field: str  # dotted, e.g. "arms[1].weight"; "" for the whole file
    problem: str
    hint: str  # "" when there is nothing useful to add

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        field = f" {self.field}:" if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{field} {self.problem}{hint}"


class DefinitionError(ExperimentError):
    """One or more experiment definitions are not usable; nothing was changed.

    `faults` lists them all, in file and line order; `file`, `line`, `field`, `problem` and
    `hint` are those of the first.
    """

    status_hint = 422

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        if not self.faults:
            raise ValueError("a DefinitionError needs at least one fault")
        self.file, self.line, self.field, self.problem, self.hint = self.faults[0]
        count = len(self.faults)
        head = "" if count == 1 else f"{count} faults:\n"
        super().__init__(head + "\n".join(str(fault) for fault in self.faults))


class UnitError(ExperimentError):
    """The unit that a caller sent cannot be assigned (empty, or not Unicode text)."""

    status_hint = 400


class InputError(ExperimentError):
    """A statistic was handed numbers outside its domain."""

    status_hint = 400
