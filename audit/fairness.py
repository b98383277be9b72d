"""Selection rates and impact ratios by group, over all decisions of a window.

Rule 1: counts every decision of a model that has a positive label, sampled for an explanation or
not, by arm and version, by attribute, and by pairs of attributes.
Rule 2: a group's impact ratio is its selection rate over the highest rate of a group with enough
evidence; below four fifths it is reported (29 CFR 1607.4 D, the four-fifths rule). It is a
screen, not a finding of discrimination.
Rule 3: fewer than `minimum_count` decisions, or nothing to compare with, is
`insufficient_evidence`: an answer of its own, never an "ok".
Rule 4: memory is bounded. Groups named in advance are always counted; of others the first
`MAX_GROUPS` are, and the rest are "other", so that invented names cannot push real ones out.
Rule 5: what goes on record stays for ever and stands beside the leaves that it counts. So there a
group of fewer than `smallest` people is part of "other": nobody's group can be told from a window
that hardly anybody else is in (the minimum frequency rule of statistical disclosure control:
Hundepool et al., Statistical Disclosure Control, 2012, 4.3.1). It is no more than that: where all
people of a window are of one group, that group is said.
Oracle in the tests: fairlearn. No IO and no clock here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeAlias

from .canonical import decimal

FOUR_FIFTHS = 0.8
MINIMUM_COUNT = 30
MAX_GROUPS = 32
SMALLEST = 5
OTHER = "other"
NOT_GIVEN = "not given"
PAIR = " × "

Verdict = Literal["ok", "below_four_fifths", "insufficient_evidence"]
SealedGroups: TypeAlias = Iterable[Sequence[Any]]
"""`[({"sex": "Female", "race": "Black"}, label, n), ...]`, as a decision's sealed part has it."""


@dataclass(slots=True)
class Count:
    """Decisions and positive ones, and whom they are about, as far as that is asked for."""

    n: int = 0
    positive: int = 0
    units: set[str] = field(default_factory=set)


class Cell(NamedTuple):
    """What is counted apart: an arm (None outside experiments), a version, an attribute."""

    arm: str | None
    version: str
    attribute: str


class Rate(NamedTuple):
    """One group of one cell."""

    group: str
    n: int
    positive: int
    selection_rate: float | None  # None without decisions
    impact_ratio: float | None  # None without evidence, or for want of a reference
    verdict: Verdict


class Judgement(NamedTuple):
    """The groups of a cell, in order of name, and the group they are compared with."""

    rates: tuple[Rate, ...]
    reference: str | None


@dataclass(slots=True)
class Window:
    """Counters of one model between two leaves of the log.

    Args:
        model: whose decisions are counted.
        positive_label: the answer that counts as selected, e.g. ">50K".
        minimum_count: decisions that a group needs before it is judged; at least 1.
        known: attribute -> group names that are always counted under their own name.
        smallest: `records` names groups of so many people; 0 for all.
    """

    model: str
    positive_label: str
    minimum_count: int = MINIMUM_COUNT
    known: Mapping[str, Iterable[str]] = field(default_factory=dict)
    smallest: int = 0
    first_leaf: int | None = None
    last_leaf: int = 0
    first_us: int = 0
    last_us: int = 0
    _cells: dict[Cell, dict[str, Count]] = field(default_factory=dict)

    def add(
        self,
        *,
        arm: str | None,
        version: str,
        groups: SealedGroups,
        leaf: int,
        time_us: int,
        unit: str = "",
    ) -> None:
        """Count one decision (its rows may belong to several groups); O(attributes squared)."""
        if self.first_leaf is None:
            self.first_leaf, self.first_us = leaf, time_us
        self.last_leaf = max(self.last_leaf, leaf)
        self.first_us, self.last_us = min(self.first_us, time_us), max(self.last_us, time_us)
        for attributes, label, n in groups:
            positive = n if label == self.positive_label else 0
            for attribute, group in _with_pairs(attributes):
                count = self._count(Cell(arm, version, attribute), group)
                count.n += n
                count.positive += positive
                if len(count.units) < self.smallest:
                    count.units.add(unit)

    def records(self) -> list[dict[str, Any]]:
        """The fields of a `fairness_window` event for each cell, in a fixed order.

        `id` and `time_us` are the caller's. Empty when nothing was counted.
        """
        if self.first_leaf is None:
            return []
        cells = sorted(self._cells, key=lambda c: (c.arm or "", c.version, c.attribute))
        return [self._record(cell, self.first_leaf) for cell in cells]

    def _count(self, cell: Cell, group: str) -> Count:
        groups = self._cells.get(cell)
        if groups is None:
            groups = {name: Count() for name in self.known.get(cell.attribute, ())}
            self._cells[cell] = groups
        if group not in groups and len(groups) >= MAX_GROUPS:
            group = OTHER
        return groups.setdefault(group, Count())

    def _record(self, cell: Cell, first_leaf: int) -> dict[str, Any]:
        counts = _without_small(self._cells[cell], self.smallest)
        judged = judge(counts, minimum_count=self.minimum_count)
        return {
            "model": self.model,
            "arm": cell.arm,
            "version": cell.version,
            "from_leaf": first_leaf,
            "to_leaf": self.last_leaf + 1,
            "from_us": self.first_us,
            "to_us": self.last_us,
            "attribute": cell.attribute,
            "groups": [_plain(rate) for rate in judged.rates],
            "reference_group": judged.reference,
            "minimum_count": self.minimum_count,
        }


def _without_small(counts: Mapping[str, Count], smallest: int) -> Mapping[str, Count]:
    """The groups of so many people, or of nobody; all others together."""
    large = {group: c for group, c in counts.items() if not c.n or len(c.units) >= smallest}
    small = [c for group, c in counts.items() if group not in large]
    if small:
        rest = [*small, large.get(OTHER, Count())]
        large[OTHER] = Count(sum(c.n for c in rest), sum(c.positive for c in rest))
    return large


def judge(counts: Mapping[str, Count], *, minimum_count: int = MINIMUM_COUNT) -> Judgement:
    """Rates, ratios and verdicts of the groups of one cell.

    Ratios exist when at least two groups have `minimum_count` decisions and the highest rate
    among them is above zero; ties for the highest go to the larger group, then by name.
    """
    enough = {group: c for group, c in counts.items() if c.n >= max(1, minimum_count)}
    best = min(
        enough, key=lambda g: (-enough[g].positive / enough[g].n, -enough[g].n, g), default=None
    )
    comparable = best is not None and len(enough) > 1 and enough[best].positive > 0
    top = enough[best].positive / enough[best].n if best is not None and comparable else 0.0
    rates = tuple(
        _rate(group, counts[group], top if group in enough else 0.0) for group in sorted(counts)
    )
    return Judgement(rates, best if comparable else None)


def _rate(group: str, count: Count, top: float) -> Rate:
    rate = count.positive / count.n if count.n else None
    if rate is None or not top:
        return Rate(group, count.n, count.positive, rate, None, "insufficient_evidence")
    ratio = rate / top
    verdict: Verdict = "ok" if ratio >= FOUR_FIFTHS else "below_four_fifths"
    return Rate(group, count.n, count.positive, rate, ratio, verdict)


def _with_pairs(attributes: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    named = sorted((name, str(value) or NOT_GIVEN) for name, value in attributes.items())
    yield from named
    for (one, a), (two, b) in combinations(named, 2):
        yield one + PAIR + two, a + PAIR + b


def _plain(rate: Rate) -> dict[str, Any]:
    return rate._asdict() | {
        "selection_rate": _text(rate.selection_rate),
        "impact_ratio": _text(rate.impact_ratio),
    }


def _text(number: float | None) -> str | None:
    return None if number is None else decimal(round(number, 6))
