"""What a verification found: in words a reviewer can read, and in fields a program can.

Rule: a problem is evidence that does not hold; a note is something a reviewer should know and
that proves nothing wrong. Files are named relative to the log. What cannot be printed, in the name
of a file of a copied log say, is escaped: it would write its own lines and colours into a report.
Read next: verify.py.
"""

from dataclasses import dataclass, field


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
        steps: what was checked, in order, in words.
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

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.problems

    def text(self) -> str:
        """The findings as a page of plain text."""
        lines = [f"log        {self.origin or '(unknown)'}"]
        lines.append(f"leaves     {self.leaves}, of which {self.signed_leaves} are signed")
        lines += [f"checked    {step}" for step in self.steps]
        lines += [f"counted    {value} {name}" for name, value in sorted(self.counts.items())]
        lines += [f"note       {note}" for note in self.notes]
        lines += [f"PROBLEM    {problem}" for problem in self.problems]
        count = len(self.problems)
        verdict = "everything verifies" if self.ok else f"{count} problem{'s' * (count > 1)}"
        return "\n".join([*lines, f"result     {verdict}", ""])


def printable(text: str) -> str:
    r"""`text` with what cannot be printed escaped, as Python does: `\n`, `\x1b`, `\udcff`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Collector:
    """Gathers problems and notes while the steps run; says each thing once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.steps: list[str] = []
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
