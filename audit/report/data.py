"""What a report holds: frozen values, all of them shown and all of them in the JSON.

Rule: times are Unix microseconds, latencies microseconds, shares and rates 0..1; None means that
the log does not say. Sequences are sorted, so that the same log gives the same report.
"""

from dataclasses import dataclass
from typing import Any, Literal

Answer = Literal["yes", "no", "not_checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The decisions with since_us <= time_us < until_us."""

    since_us: int
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One gateway process and the numbers of its answers, from the start of the log."""

    instance: str
    decisions: int
    complete_to: int  # every number up to here is accounted for
    refused: int  # numbers that a gap record explains
    missing: tuple[tuple[int, int], ...]  # ranges of numbers that nothing explains
    duplicates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """Whether the log is whole, as far as this report looked."""

    origin: str
    checkpoint: str  # the signed note
    signed_leaves: int | None
    leaves_read: int
    malformed: tuple[int, ...]  # leaves that were passed over
    first_leaf: int | None  # of the period
    last_leaf: int | None
    instances: tuple[Instance, ...]
    complete: bool  # no number missing, none twice
    verified: Answer  # by a full verification that was handed in
    problems: tuple[str, ...]
    verify_command: str
    event_counts: dict[str, int]  # in the period


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A registered model version."""

    model: str
    version: str
    digest: str
    runtime: str | None
    device: str | None
    evaluation: tuple[tuple[str, str], ...]
    leaf: int | None  # None: it decided, but no registration is in the log
    decisions: int  # in the period


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRow:
    """Decisions of one route, version and arm."""

    route: str
    version: str
    arm: str | None
    decisions: int
    rows: int
    share: float  # of the route's decisions
    reasons: dict[str, int]
    origins: dict[str, int]
    labels: dict[str, int]  # rows by label


@dataclass(frozen=True, slots=True, kw_only=True)
class StickyRow:
    """Whether units kept their arm in one experiment and epoch."""

    experiment: str
    epoch: int
    units: int
    returning: int  # units seen more than once
    moved: int  # units seen in more than one arm
    recomputed: int  # decisions whose arm was found again from slot and recorded definition
    mismatched: int
    unknown: int  # the definition is not in the log


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """Latency of one model version, microseconds."""

    model: str
    version: str
    n: int
    total: tuple[int, int, int]  # p50, p95, p99
    infer: tuple[int, int, int]
    queue: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialArm:
    """One arm of an experiment."""

    arm: str
    version: str
    share: float
    exposed: int
    observed: int
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialComparison:
    """One arm against the baseline."""

    arm: str
    baseline: str
    difference: float | None
    anytime: tuple[float, float] | None
    fixed: tuple[float, float] | None
    alpha: float
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One experiment and epoch, from the start of the epoch to the end of the period."""

    experiment: str
    experiment_version: str
    epoch: int
    model: str
    metric: str
    arms: tuple[TrialArm, ...]
    comparisons: tuple[TrialComparison, ...]
    srm_p: float
    srm_verdict: str
    crossed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FairGroup:
    """One group of a fairness table."""

    group: str
    n: int
    positive: int
    selection_rate: float | None
    impact_ratio: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FairTable:
    """Selection by group for one model, arm, version and attribute."""

    model: str
    arm: str | None
    version: str
    attribute: str
    positive_label: str | None
    minimum_count: int
    reference: str | None
    groups: tuple[FairGroup, ...]
    source: Literal["sealed", "windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainRow:
    """Explanations of one model version in the period."""

    model: str
    version: str
    selected: int
    explained: int
    skipped: int
    pending: int
    low_fit: int
    fit_median: float | None
    error_median: float | None
    cost_median_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """One explanation, drawn from its decrypted body."""

    decision: str
    leaf: int
    model: str
    version: str
    kind: str
    target_label: str
    probability: float
    fit_r2: float
    local_error: float
    low_fit: bool
    samples: int
    seed: str
    explainer: str
    features: tuple[dict[str, Any], ...]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """A whole report."""

    title: str
    period: Period
    made_us: int | None
    summary: tuple[str, ...]  # sentences
    log: LogState
    models: tuple[ModelRow, ...]
    traffic: tuple[TrafficRow, ...]
    sticky: tuple[StickyRow, ...]
    latencies: tuple[LatencyRow, ...]
    trials: tuple[Trial, ...]
    outcome_tally: dict[str, int]
    definitions_malformed: int  # of experiments that were not analysed
    fairness: tuple[FairTable, ...]
    fairness_unread: int  # decisions whose sealed part could not be opened
    explanations: tuple[ExplainRow, ...]
    skipped_by_reason: dict[str, int]
    sampling_rules: dict[str, int]
    worked: tuple[Worked, ...]
    worked_unreadable: int  # explanation bodies that are erased or missing
    notices: tuple[dict[str, Any], ...]  # alerts, and what people did
