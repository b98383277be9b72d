"""Every kind of event the log can hold, one frozen dataclass each.

Rule: `type` and `schema` are part of the bytes; a field is never renamed or removed within one
schema number. Integers are below 2^53; a number that is not an integer is a decimal string (see
canonical.decimal); times are Unix microseconds; digests and hashes are lower-case hex. No event
holds a person's raw data: units are keyed hashes, inputs and outputs are commitments.
Read next: record.py (the bytes).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .canonical import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events share: a UUIDv7 and the time in Unix microseconds."""

    type: ClassVar[str] = ""
    schema: ClassVar[int] = 1
    id: str
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Event):
    """One answer of a model: who was assigned to what, what served, and commitments to the data.

    `instance` (8 hex digits) and `seq` (1, 2, 3, …) number the answers of one gateway process
    without gaps, so that a reviewer can prove completeness from the log alone. `sealed` is under
    the subject's key (seals.py).
    """

    type: ClassVar[str] = "decision"
    schema: ClassVar[int] = 2
    instance: str
    seq: int
    origin: str  # "http" | "grpc" | "native" | "v1"
    route: str
    unit_ref: str
    unit_source: str  # "header" | "parameter" | "request_id"
    experiment: str | None = None
    experiment_version: str | None = None
    epoch: int = 0
    slot: int | None = None
    arm_assigned: str | None = None
    arm_served: str | None = None
    propensity: str | None = None
    reason: str  # "assigned" | "version_named" | "forced" | "no_experiment"
    model: str
    version: str
    digest: str
    runtime: str
    device: str
    input_commitment: str
    output_commitment: str
    sealed: str | None = None
    rows: int
    label_counts: dict[str, int]
    label: str | None = None
    score: str | None = None
    threshold: str | None = None
    sampling: dict[str, JSON]  # {"rule", "probability", "selected"}
    trace_id: str | None = None
    span_id: str | None = None
    latency_us: dict[str, int]  # {"queue", "infer", "total"}
    durability: str  # "strict" | "bounded" | "async"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionV1(Decision):
    """As a decision was written before erasure: `sealed` is under a key of the record's id."""

    schema: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentConfig(Event):
    """An experiment's definition, recorded before it takes effect."""

    type: ClassVar[str] = "assignment_config"
    experiment: str
    experiment_version: str
    epoch: int
    model: str
    definition: dict[str, JSON]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered(Event):
    """A model version became known to this installation, with its evaluation."""

    type: ClassVar[str] = "model_registered"
    model: str
    version: str
    digest: str
    device: str | None = None
    runtime: str | None = None
    manifest_evaluation: dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromoted(Event):
    """Traffic of a model moved forward to a version."""

    type: ClassVar[str] = "model_promoted"
    model: str
    version: str
    digest: str
    previous_version: str | None = None
    actor: str = "weighbridge"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRolledBack(Event):
    """Traffic of a model moved back to an earlier version."""

    type: ClassVar[str] = "model_rolled_back"
    model: str
    version: str
    digest: str
    previous_version: str | None = None
    actor: str = "weighbridge"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Event):
    """What became of a decision or a unit, reported later. `event_id` makes it idempotent."""

    type: ClassVar[str] = "outcome"
    decision: str | None = None
    unit_ref: str | None = None
    metric: str
    value: str
    event_id: str
    observed_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRecord(Event):
    """An explanation was made; its body is an encrypted payload, here is what may be public."""

    type: ClassVar[str] = "explanation"
    decision: str
    model: str
    version: str
    digest: str
    kind: str
    target_label: str
    explainer: str
    explainer_version: str
    seed: str
    samples: int
    fit_r2: str
    local_error: str
    stability: str | None = None
    cost_ms: int
    low_fit: bool
    body_commitment: str
    row: int = 0  # which row of the decision
    n_features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationSkipped(Event):
    """A decision was selected for an explanation and has none, and why."""

    type: ClassVar[str] = "explanation_skipped"
    decision: str
    reason: str
    detail_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessWindow(Event):
    """Selection rates by group over the leaves [from_leaf, to_leaf)."""

    type: ClassVar[str] = "fairness_window"
    model: str
    arm: str | None
    version: str
    from_leaf: int
    to_leaf: int
    from_us: int
    to_us: int
    attribute: str
    groups: list[dict[str, JSON]]  # {group, n, positive, selection_rate, impact_ratio, verdict}
    reference_group: str | None = None
    minimum_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Event):
    """A guardrail, a drift or a fairness limit was crossed."""

    type: ClassVar[str] = "alert"
    name: str
    severity: str  # "info" | "warn" | "critical"
    message: str
    model: str | None = None
    details: dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(Event):
    """A person replaced a model's answer."""

    type: ClassVar[str] = "override"
    decision: str
    actor: str
    reason: str
    label_before: str | None = None
    label_after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure(Event):
    """A subject's keys are destroyed: its payloads and sealed parts are unreadable from here on.

    Recorded before the deed, so that one that was interrupted is finished at the next start.
    `key_slots` are the slots of its data keys, by which the deed can be checked without any key.
    """

    type: ClassVar[str] = "erasure"
    unit_ref: str
    actor: str
    reason: str
    key_slots: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHold(Event):
    """A subject's data must be kept (`action` "hold"), or need no longer be ("release")."""

    type: ClassVar[str] = "legal_hold"
    unit_ref: str
    action: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Event):
    """Somebody read personal data or changed a setting."""

    type: ClassVar[str] = "access"
    actor: str
    action: str
    target: str | None = None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation(Event):
    """The key of a purpose ("log") was replaced: both public keys, as C2SP vkeys (rotation.py)."""

    type: ClassVar[str] = "key_rotation"
    purpose: str
    old_key: str
    new_key: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch(Event):
    """A process began an epoch: commits to the sampling key it will use, reveals the last one."""

    type: ClassVar[str] = "epoch"
    instance: str | None = None
    epoch: int
    sampling_commitment: str
    revealed_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """Sequence numbers [first_seq, last_seq] of an instance were consumed by refused answers."""

    type: ClassVar[str] = "gap"
    instance: str
    first_seq: int
    last_seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(Event):
    """How far a gateway process has counted, so that answers after its last record show, too.

    Of the numbers up to `seq`, `recorded` are acknowledged and `refused` were not; the others are
    on their way. `answered` replies were handed out; `traced` of them have a span of their own.
    With `final` the process ends, and nothing is on its way.
    """

    type: ClassVar[str] = "counters"
    instance: str
    seq: int
    recorded: int
    refused: int
    answered: int
    traced: int
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(Event):
    """A record that pruning takes from its place, repeated because it is still in force.

    `path` are the hashes (hex) beside the way from leaf `was_leaf` up to its subtree in the
    frontier of the first `first_leaf` leaves, which the `pruned` record after this one states.
    """

    type: ClassVar[str] = "carried"
    was_leaf: int
    record: dict[str, JSON]
    first_leaf: int
    path: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned(Event):
    """The leaves [from_leaf, first_leaf) are gone for good; recorded before the deed.

    `first_leaf` is C2SP's minimum index, a multiple of 256; the whole segments before leaf
    `kept_from` go, and what of them shares a bundle with kept leaves is kept without payloads.
    `frontier` are the roots (hex) of the complete subtrees of the first `first_leaf` leaves,
    largest first. `numbers` says for each gateway process up to where its answers were accounted
    for: {"instance", "through", "ahead": [[first, last], …]}.
    """

    type: ClassVar[str] = "pruned"
    from_leaf: int
    first_leaf: int
    kept_from: int
    tree_size: int
    root: str
    frontier: list[str]
    segments: int
    first_payloads: int  # the number of the first payload segment that is kept
    until_us: int  # the newest time among what goes
    numbers: list[dict[str, JSON]]
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event of a type or schema written by a newer version: kept whole, read by name."""

    body: dict[str, Any]


ALL: tuple[type[Event], ...] = (
    Decision,
    DecisionV1,
    AssignmentConfig,
    ModelRegistered,
    ModelPromoted,
    ModelRolledBack,
    Outcome,
    ExplanationRecord,
    ExplanationSkipped,
    FairnessWindow,
    Alert,
    Override,
    Erasure,
    LegalHold,
    Access,
    KeyRotation,
    Epoch,
    Gap,
    Counters,
    Carried,
    Pruned,
)
