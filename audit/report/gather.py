"""One pass over the log: everything the report needs, sorted by kind.

Rule: entries come in log order, all of them up to the checkpoint. Numbering, models and
experiments are read from the start of the log; counts are of the period alone. A record that holds
what it cannot (shapes.py) was once taken over the link: it is passed over and counted as malformed,
but its number is accounted for where it has one, as `audit verify` does it. What a decision of the
period names lies before it in the log, so it counts whatever its time says: a clock may have been
ahead.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, cast

from ..completeness import Completeness
from ..events import (
    Alert,
    AssignmentConfig,
    Decision,
    Erasure,
    Event,
    ExplanationRecord,
    ExplanationSkipped,
    FairnessWindow,
    Gap,
    KeyRotation,
    LegalHold,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    Outcome,
    Override,
    Pruned,
)
from ..record import original
from ..shapes import flaw
from .data import Period

Entries: TypeAlias = Iterable[tuple[int, Event]]
NOTICES = (
    Alert, Override, Erasure, LegalHold, Pruned, KeyRotation, ModelPromoted, ModelRolledBack
)  # fmt: skip
# An explanation of the period may be written after its end; for the others see `finish`.
_DATED_LATER = ExplanationRecord | ExplanationSkipped | AssignmentConfig | ModelRegistered


class ExposureRow(NamedTuple):
    """A decision as the analysis of experiments needs it."""

    decision: str
    unit: str
    experiment: str
    epoch: int
    arm: str
    time_us: int


class OutcomeRow(NamedTuple):
    """An outcome as the analysis of experiments needs it."""

    event_id: str
    decision: str | None
    unit: str | None
    metric: str
    value: float
    time_us: int


@dataclass(slots=True)
class Gathered:
    """What one pass found."""

    period: Period
    leaves: int = 0
    malformed: list[int] = field(default_factory=list)  # leaves that were passed over
    first_leaf: int | None = None
    last_leaf: int | None = None
    decisions: list[tuple[int, Decision]] = field(default_factory=list)  # of the period
    exposures: list[ExposureRow] = field(default_factory=list)  # up to its end
    outcomes: list[OutcomeRow] = field(default_factory=list)  # up to its end
    configs: dict[str, AssignmentConfig] = field(default_factory=dict)  # by version hash
    registered: dict[tuple[str, str, str], tuple[int, ModelRegistered]] = field(
        default_factory=dict
    )
    explained: dict[str, tuple[int, ExplanationRecord]] = field(default_factory=dict)
    skipped: dict[str, ExplanationSkipped] = field(default_factory=dict)
    windows: list[FairnessWindow] = field(default_factory=list)
    notices: list[tuple[int, Event]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    completeness: Completeness = field(default_factory=Completeness)
    numbered: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def entry(self, leaf: int, event: Event) -> None:
        """Take in one leaf."""
        event = original(event)  # one that was carried over when the log was pruned
        self.leaves = max(self.leaves, leaf + 1)
        if flaw(event) is not None:
            self.malformed.append(leaf)
            if _is_numbered(event):
                self._number(event)
            return
        self._number(event)
        if event.time_us >= self.period.until_us and not isinstance(event, _DATED_LATER):
            return
        self._context(leaf, event)
        if event.time_us < self.period.since_us or event.time_us >= self.period.until_us:
            return
        self.counts[event.type] += 1
        self.first_leaf = leaf if self.first_leaf is None else self.first_leaf
        self.last_leaf = leaf
        if isinstance(event, Decision):
            self.decisions.append((leaf, event))
        elif isinstance(event, FairnessWindow):
            self.windows.append(event)
        elif isinstance(event, NOTICES):
            self.notices.append((leaf, event))

    def finish(self) -> None:
        """Forget what is of after the period, unless a decision of the period names it."""
        until_us = self.period.until_us
        used = {(made.model, made.version, made.digest) for _, made in self.decisions}
        self.registered = {
            key: (leaf, event)
            for key, (leaf, event) in self.registered.items()
            if key in used or event.time_us < until_us
        }
        assigned = {made.experiment_version for _, made in self.decisions}
        self.configs = {
            version: event
            for version, event in self.configs.items()
            if version in assigned or event.time_us < until_us
        }

    def _number(self, event: Event) -> None:
        if isinstance(event, Decision):
            self.numbered[event.instance] += 1
            if not self.completeness.decision(event.instance, event.seq, event.time_us):
                self.repeated[event.instance] += 1
        elif isinstance(event, Gap):
            self.refused[event.instance] += event.last_seq - event.first_seq + 1
            self.completeness.gap(event.instance, event.first_seq, event.last_seq)
        elif isinstance(event, Pruned):
            for said in event.numbers:
                ahead = cast("list[list[int]]", said["ahead"])
                through = cast("int", said["through"])
                spans = [(first, last) for first, last in ahead]
                self.completeness.resume(str(said["instance"]), through, spans)

    def _context(self, leaf: int, event: Event) -> None:
        if isinstance(event, Decision):
            self._expose(event)
        elif isinstance(event, Outcome):
            self._outcome(event)
        elif isinstance(event, AssignmentConfig):
            self.configs[event.experiment_version] = event
        elif isinstance(event, ModelRegistered):
            self.registered.setdefault((event.model, event.version, event.digest), (leaf, event))
        elif isinstance(event, ExplanationRecord):
            self.explained.setdefault(event.decision, (leaf, event))
        elif isinstance(event, ExplanationSkipped):
            self.skipped.setdefault(event.decision, event)

    def _expose(self, event: Decision) -> None:
        if event.reason == "assigned" and event.experiment and event.arm_assigned:
            self.exposures.append(
                ExposureRow(
                    event.id,
                    event.unit_ref,
                    event.experiment,
                    event.epoch,
                    event.arm_assigned,
                    event.time_us,
                )
            )

    def _outcome(self, event: Outcome) -> None:
        try:
            value = float(event.value)
        except ValueError:
            value = float("nan")  # counted as out of range by the analysis
        self.outcomes.append(
            OutcomeRow(
                event.event_id,
                event.decision,
                event.unit_ref,
                event.metric,
                value,
                event.observed_us,
            )
        )


def _is_numbered(event: Event) -> bool:
    """Whether a malformed record still says well whose number it accounts for."""
    if isinstance(event, Decision):
        numbers = [event.seq]
    elif isinstance(event, Gap):
        numbers = [event.first_seq, event.last_seq]
    else:
        return False
    return type(event.instance) is str and all(type(n) is int and n >= 1 for n in numbers)


def gather(entries: Entries, period: Period) -> Gathered:
    """Read all entries once; O(entries) time, memory for the decisions' rows."""
    found = Gathered(period)
    for leaf, event in entries:
        found.entry(leaf, event)
    found.finish()
    return found
