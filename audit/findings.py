"""What a verification found: in words a reviewer can read, and in fields a program can.

Rule: a problem is evidence that does not hold; a note is something a reviewer should know and
that proves nothing wrong. A step was checked if all of it was, and holds. It failed if it has a
problem. If neither, a note says why, unless nobody asked for it. Files are named relative to the
log. What cannot be printed, in the name of a file of a copied log say, is escaped: it would write
its own lines and colours into a report.
Read next: verify.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_MANY: Final = (
    "answers bundles bytes checkpoints events files groups instances numbers payloads problems "
    "records rotations segments slots steps tiles"
)
_ONE: Final = {word: word.removesuffix("s") for word in _MANY.split()} | {
    "leaves": "leaf",
    "witnesses": "witness",
}
STEPS: Final = (
    "1 the checkpoint is signed by the given key",
    "2 the write-ahead log is whole and in order",
    "3 the leaves give the signed root",
    "4 tiles and bundles hold what the leaves say",
    "5 the earlier checkpoint is a prefix of this log",
    "6 every entry is a canonical event",
    "7 the numbers of every instance are complete",
    "8 the committed marker agrees",
    "9 payload files and key slots are whole",
    "10 what witnesses cosigned is a prefix of this log",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not verify, and where it lies."""

    step: int
    message: str
    file: str | None = None
    offset: int | None = None
    leaf: int | None = None

    def __str__(self) -> str:
        place = [] if self.file is None else [self.file]
        if self.offset is not None:
            place.append(f"byte {self.offset}")
        if self.leaf is not None:
            place.append(f"leaf {self.leaf}")
        where = ", ".join(place)
        return (
            f"step {self.step}: {where}: {self.message}"
            if where
            else (f"step {self.step}: {self.message}")
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of verify_log.

    Attributes:
        origin: the log's name, from its checkpoint; None if that does not verify.
        signed_leaves: how many leaves the signed checkpoint covers.
        leaves: how many leaves the log holds.
        problems: what does not hold; empty if all is well.
        notes: what a reviewer should know.
        steps: what was checked and holds, in order, in words.
        failed: the steps that have a problem, in the same words.
        read: whether the log could be read; else nothing but `problems` was looked at.
        counts: how many of what were seen: events by type, files, instances.
        instances: for each gateway instance how many answers are accounted for without a hole.
    """

    origin: str | None
    signed_leaves: int
    leaves: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    steps: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    read: bool = True

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.problems

    def text(self) -> str:
        """The findings as a page of plain text."""
        lines = [f"log        {self.origin or '(unknown)'}"]
        lines.append(f"leaves     {self.leaves}, of which {self.signed_leaves} are signed")
        judged = dict.fromkeys(self.steps, "checked") | dict.fromkeys(self.failed, "FAILED")
        lines += [f"{judged[step]:10} {step}" for step in STEPS if step in judged]
        lines += [
            f"counted    {amount(value, name)}" for name, value in sorted(self.counts.items())
        ]
        lines += [f"note       {note}" for note in self.notes]
        lines += [f"PROBLEM    {problem}" for problem in self.problems]
        verdict = "everything verifies" if self.ok else amount(len(self.problems), "problems")
        return "\n".join([*lines, f"result     {verdict}", ""])


def amount(number: int, things: str) -> str:
    """`number` of some things, named in the plural: `2 key slots`, `1 key slot`."""
    if number == 1:
        words = things.split(" ")
        place = next((n for n, word in enumerate(words) if word in _ONE), None)
        if place is not None:
            words[place] = _ONE[words[place]]
        things = " ".join(words)
    return f"{number} {things}"


def printable(text: str) -> str:
    r"""`text` with what cannot be printed escaped, as Python does: `\n`, `\x1b`, `\udcff`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Collector:
    """Gathers problems and notes while the steps run; says each thing once."""

    def __init__(self, unasked: Iterable[int] = ()) -> None:
        """`unasked` are the numbers of steps that nobody asked for."""
        self._unchecked = set(unasked)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.counts: dict[str, int] = {}

    def problem(
        self,
        step: int,
        message: str,
        *,
        file: str | None = None,
        offset: int | None = None,
        leaf: int | None = None,
    ) -> None:
        """Add a problem."""
        name = None if file is None else printable(file)
        found = Problem(step, printable(message), name, offset, leaf)
        if found not in self.problems:
            self.problems.append(found)

    def note(self, text: str) -> None:
        """Add a note."""
        text = printable(text)
        if text not in self.notes:
            self.notes.append(text)

    def count(self, name: str, by: int = 1) -> None:
        """Count something."""
        self.counts[name] = self.counts.get(name, 0) + by

    def unchecked(self, *steps: int, why: str, partly: bool = False) -> None:
        """Take note that steps were not checked, or `partly`; silently without a reason."""
        asked = sorted({*steps} - self._unchecked)
        self._unchecked.update(asked)
        if asked and why:
            which = f"step{'s' * (len(asked) > 1)} {', '.join(map(str, asked))}"
            self.note(f"{which} not checked{' in full' * partly}: {why}")

    def findings(
        self,
        *,
        origin: str | None = None,
        signed_leaves: int = 0,
        leaves: int = 0,
        instances: Mapping[str, int] | None = None,
        read: bool = True,
    ) -> Findings:
        """What was found, in the order of the steps; the arguments are those of Findings."""
        failed = {problem.step for problem in self.problems}
        held = set(range(1, len(STEPS) + 1)) - failed - self._unchecked if read else set()
        return Findings(
            origin=origin,
            signed_leaves=signed_leaves,
            leaves=leaves,
            problems=tuple(sorted(self.problems, key=lambda problem: problem.step)),
            notes=tuple(self.notes),
            steps=tuple(STEPS[step - 1] for step in sorted(held)),
            failed=tuple(STEPS[step - 1] for step in sorted(failed)),
            counts=self.counts,
            instances=dict(instances or {}),
            read=read,
        )
