"""Outcomes joined to exposures: one value per unit, per experiment and epoch.

Rule 1: a unit belongs to the arm of its first exposure in an epoch, whatever happens later
(intention to treat); epochs are never pooled.
Rule 2: a unit's value is the first outcome recorded for it, in the order of the log. A value never
changes once it is there, so the analysis of a prefix of the log is a prefix of the analysis, and
looking often stays safe. (`first` by event time would not be: late events would rewrite it.)
Rule 3: an event id counts once; a repeat with another value is counted as a conflict.
Rule 4: a value outside [0, 1] is counted and left out: one sender's mistake spoils no analysis.
Boundary: rows in, arrays out; no files, no clock (`as_of_us` is an argument).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Exposure(Protocol):
    """What a decision record says about a unit; rows come in log order."""

    @property
    def decision(self) -> str:
        """The decision's id."""

    @property
    def unit(self) -> str:
        """The keyed hash of the unit, never the unit itself."""

    @property
    def experiment(self) -> str:
        """The experiment's name."""

    @property
    def epoch(self) -> int:
        """The epoch of the assignment."""

    @property
    def arm(self) -> str:
        """The arm that was assigned."""

    @property
    def time_us(self) -> int:
        """When it happened, Unix microseconds."""


class Outcome(Protocol):
    """What an outcome record says; rows come in log order."""

    @property
    def event_id(self) -> str:
        """The sender's id: the same id is the same event."""

    @property
    def decision(self) -> str | None:
        """The decision that it judges, if it names one."""

    @property
    def unit(self) -> str | None:
        """The unit's keyed hash, if it names no decision."""

    @property
    def metric(self) -> str:
        """What was measured."""

    @property
    def value(self) -> float:
        """How it came out, in the units of the metric."""

    @property
    def time_us(self) -> int:
        """When it happened, Unix microseconds."""


class Key(NamedTuple):
    """One analysis: an experiment in one epoch."""

    experiment: str
    epoch: int


class Tally(NamedTuple):
    """What was left out of the analysis, and why."""

    duplicates: int  # the same event id with the same value again
    conflicts: int  # the same event id with another value
    unmatched: int  # no exposure to go with it
    repeated: int  # a further outcome of a unit that has one
    early: int  # the outcome happened before the exposure
    late: int  # it happened after the window
    out_of_range: int  # the value is not within 0..1


@dataclass(slots=True)
class Joined:
    """One experiment and epoch. Arrays are in log order."""

    key: Key
    arm_of: dict[str, str] = field(default_factory=dict)  # unit -> arm, in order of exposure
    first_us: dict[str, int] = field(default_factory=dict)  # unit -> its first exposure
    values: dict[str, float] = field(default_factory=dict)  # unit -> value, in order of arrival
    crossed: set[str] = field(default_factory=set)  # units seen in more than one arm

    def exposed(self, arm: str) -> int:
        """How many units belong to `arm`."""
        return sum(found == arm for found in self.arm_of.values())

    def sample(self, arm: str) -> FloatArray:
        """The values of the arm's units that have one, in order of arrival."""
        found = [value for unit, value in self.values.items() if self.arm_of[unit] == arm]
        return np.array(found, dtype=np.float64)


class Join(NamedTuple):
    """All analyses of one metric, and what was left out."""

    parts: Mapping[Key, Joined]
    tally: Tally


def join(
    exposures: Iterable[Exposure],
    outcomes: Iterable[Outcome],
    *,
    metrics: Mapping[str, str],
    window_us: int | None = None,
) -> Join:
    """Join outcomes to the first exposure of their unit.

    Args:
        exposures: in log order; only units that were assigned, not forced ones.
        outcomes: in log order; late, repeated and out of order as they come.
        metrics: experiment -> the metric it is judged by; others are ignored for it.
        window_us: outcomes later than this after the first exposure do not count.

    Returns:
        One `Joined` for each experiment and epoch; O(exposures + outcomes).
    """
    parts, decisions = _expose(exposures)
    by_unit: dict[str, list[Joined]] = defaultdict(list)
    for part in parts.values():
        for unit in part.arm_of:
            by_unit[unit].append(part)
    seen: dict[str, float] = {}
    count = dict.fromkeys(Tally._fields, 0)
    for outcome in outcomes:
        if outcome.event_id in seen:
            same = seen[outcome.event_id] == outcome.value
            count["duplicates" if same else "conflicts"] += 1
            continue
        seen[outcome.event_id] = outcome.value
        for verdict in _credit(outcome, decisions, by_unit, metrics, window_us):
            if verdict:
                count[verdict] += 1
    return Join(parts, Tally(**count))


def _expose(exposures: Iterable[Exposure]) -> tuple[dict[Key, Joined], dict[str, tuple[Key, str]]]:
    parts: dict[Key, Joined] = {}
    decisions: dict[str, tuple[Key, str]] = {}
    for row in exposures:
        key = Key(row.experiment, row.epoch)
        part = parts.setdefault(key, Joined(key))
        decisions[row.decision] = (key, row.unit)
        if part.arm_of.setdefault(row.unit, row.arm) != row.arm:
            part.crossed.add(row.unit)
        earliest = part.first_us.get(row.unit, row.time_us)
        part.first_us[row.unit] = min(earliest, row.time_us)
    return parts, decisions


def _credit(
    outcome: Outcome,
    decisions: Mapping[str, tuple[Key, str]],
    by_unit: Mapping[str, list[Joined]],
    metrics: Mapping[str, str],
    window_us: int | None,
) -> Iterable[str]:
    """Store the outcome where it belongs; yield why not, or "" for each place it went."""
    named = decisions.get(outcome.decision) if outcome.decision else None
    unit = named[1] if named else outcome.unit
    known = by_unit.get(unit or "", [])
    known = [part for part in known if metrics.get(part.key.experiment) == outcome.metric]
    if named:
        known = [part for part in known if part.key == named[0]]
    else:
        known = _latest_epochs(known, unit or "", outcome.time_us)
    if not known or unit is None:
        yield "unmatched"
    for part in known:
        yield _place(part, unit or "", outcome, window_us)


def _latest_epochs(parts: list[Joined], unit: str, time_us: int) -> list[Joined]:
    """Of each experiment, the last epoch whose exposure of the unit is not after `time_us`."""
    best: dict[str, Joined] = {}
    for part in sorted(parts, key=lambda p: p.first_us[unit]):
        if part.key.experiment not in best or part.first_us[unit] <= time_us:
            best[part.key.experiment] = part
    return list(best.values())


def _place(part: Joined, unit: str, outcome: Outcome, window_us: int | None) -> str:
    delay = outcome.time_us - part.first_us[unit]
    if delay < 0:
        return "early"
    if window_us is not None and delay > window_us:
        return "late"
    if not 0.0 <= outcome.value <= 1.0:  # false for NaN, too
        return "out_of_range"
    if unit in part.values:
        return "repeated"
    part.values[unit] = outcome.value
    return ""
