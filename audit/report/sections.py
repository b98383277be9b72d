"""The plain sections: log state, models, traffic, stickiness, latencies, explanations.

Rule: pure functions from what was gathered to the values of data.py.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ..events import AssignmentConfig, Decision
from ..findings import Findings
from ..record import as_mapping
from .data import (
    Answer,
    ExplainRow,
    Instance,
    LatencyRow,
    LogState,
    ModelRow,
    StickyRow,
    TrafficRow,
)
from .gather import Gathered


def log_state(
    found: Gathered, *, checkpoint: str, verification: Findings | None, verify_command: str
) -> LogState:
    """Completeness from the numbers in the log, and the verdict of a verification, if any."""
    missing: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for gap in found.completeness.missing():
        missing[gap.instance].append((gap.first, gap.last))
    done = found.completeness.instances()
    instances = tuple(
        Instance(
            instance=name,
            decisions=found.numbered[name],
            complete_to=done[name],
            refused=found.refused[name],
            missing=tuple(missing[name]),
            duplicates=found.repeated[name],
        )
        for name in sorted(done)
    )
    verified: Answer = "not_checked"
    if verification is not None:
        verified = "yes" if verification.ok else "no"
    origin, size = _note_head(checkpoint)
    return LogState(
        origin=origin,
        checkpoint=checkpoint,
        signed_leaves=size,
        leaves_read=found.leaves,
        malformed=tuple(found.malformed),
        first_leaf=found.first_leaf,
        last_leaf=found.last_leaf,
        instances=instances,
        complete=not any(i.missing or i.duplicates for i in instances),
        verified=verified,
        problems=tuple(str(p) for p in verification.problems) if verification else (),
        verify_command=verify_command,
        event_counts=dict(sorted(found.counts.items())),
    )


def _note_head(checkpoint: str) -> tuple[str, int | None]:
    lines = [*checkpoint.splitlines(), "", ""]
    return lines[0], int(lines[1]) if lines[1].isdigit() else None


def models(found: Gathered) -> tuple[ModelRow, ...]:
    """Every registered version, and those that decided without a registration."""
    used = Counter((d.model, d.version, d.digest) for _, d in found.decisions)
    rows = [
        ModelRow(
            model=event.model,
            version=event.version,
            digest=event.digest,
            runtime=event.runtime,
            device=event.device,
            evaluation=tuple(_flat(event.manifest_evaluation)),
            leaf=leaf,
            decisions=used.pop(key, 0),
        )
        for key, (leaf, event) in found.registered.items()
    ]
    rows += [
        ModelRow(
            model=model, version=version, digest=digest, runtime=None, device=None,
            evaluation=(), leaf=None, decisions=n,
        )
        for (model, version, digest), n in used.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda r: (r.model, r.version, r.digest)))


def _flat(evaluation: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in sorted(evaluation.items()):
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield name, str(value)


def traffic(found: Gathered) -> tuple[TrafficRow, ...]:
    """Counts and shares by route, version and arm."""
    parts: dict[tuple[str, str, str], list[Decision]] = defaultdict(list)
    for _, decision in found.decisions:
        parts[decision.route, decision.version, decision.arm_served or ""].append(decision)
    by_route = Counter(decision.route for _, decision in found.decisions)
    return tuple(
        TrafficRow(
            route=route,
            version=version,
            arm=arm or None,
            decisions=len(part),
            rows=sum(d.rows for d in part),
            share=len(part) / by_route[route],
            reasons=_counted(d.reason for d in part),
            origins=_counted(d.origin for d in part),
            labels=_summed(d.label_counts for d in part),
        )
        for (route, version, arm), part in sorted(parts.items())
    )


def sticky(found: Gathered) -> tuple[StickyRow, ...]:
    """Whether units kept their arm, and whether slots lead to the recorded arms."""
    parts: dict[tuple[str, int], list[Decision]] = defaultdict(list)
    for _, decision in found.decisions:
        if decision.reason == "assigned" and decision.experiment:
            parts[decision.experiment, decision.epoch].append(decision)
    return tuple(_sticky(key, part, found.configs) for key, part in sorted(parts.items()))


def _sticky(
    key: tuple[str, int], part: Sequence[Decision], configs: Mapping[str, AssignmentConfig]
) -> StickyRow:
    arms: dict[str, set[str]] = defaultdict(set)
    seen: Counter[str] = Counter(d.unit_ref for d in part)
    verdicts: Counter[str] = Counter()
    for decision in part:
        arms[decision.unit_ref].add(decision.arm_assigned or "")
        config = configs.get(decision.experiment_version or "")
        verdicts[_recheck(decision, config)] += 1
    return StickyRow(
        experiment=key[0],
        epoch=key[1],
        units=len(seen),
        returning=sum(n > 1 for n in seen.values()),
        moved=sum(len(found) > 1 for found in arms.values()),
        recomputed=verdicts["same"],
        mismatched=verdicts["other"],
        unknown=verdicts["unknown"],
    )


def _recheck(decision: Decision, config: AssignmentConfig | None) -> str:
    """Find the arm again from the recorded slot and definition."""
    if config is None or decision.slot is None:
        return "unknown"
    ranges: Any = config.definition.get("ranges", [])
    try:
        starts = [part["first"] for part in ranges]
        owner = ranges[bisect_right(starts, decision.slot) - 1]["arm"]
    except (LookupError, TypeError):  # no ranges, or malformed ones
        return "unknown"
    return "same" if owner == decision.arm_assigned else "other"


def latencies(found: Gathered) -> tuple[LatencyRow, ...]:
    """Quantiles by model and version (nearest rank)."""
    parts: dict[tuple[str, str], list[Mapping[str, int]]] = defaultdict(list)
    for _, decision in found.decisions:
        parts[decision.model, decision.version].append(decision.latency_us)
    return tuple(
        LatencyRow(
            model=model,
            version=version,
            n=len(part),
            total=_quantiles([x.get("total", 0) for x in part]),
            infer=_quantiles([x.get("infer", 0) for x in part]),
            queue=_quantiles([x.get("queue", 0) for x in part]),
        )
        for (model, version), part in sorted(parts.items())
    )


def _quantiles(values: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(values)
    p50, p95, p99 = (ordered[-(-len(ordered) * p // 100) - 1] for p in (50, 95, 99))
    return p50, p95, p99


def explanations(found: Gathered) -> tuple[ExplainRow, ...]:
    """Selected = explained + skipped + pending, by model and version."""
    parts: dict[tuple[str, str], list[Decision]] = defaultdict(list)
    for _, decision in found.decisions:
        if decision.sampling.get("selected") is True or decision.id in found.explained:
            parts[decision.model, decision.version].append(decision)
    return tuple(_explained(key, part, found) for key, part in sorted(parts.items()))


def _explained(key: tuple[str, str], part: Sequence[Decision], found: Gathered) -> ExplainRow:
    done = [found.explained[d.id][1] for d in part if d.id in found.explained]
    skipped = sum(d.id in found.skipped and d.id not in found.explained for d in part)
    return ExplainRow(
        model=key[0],
        version=key[1],
        selected=len(part),
        explained=len(done),
        skipped=skipped,
        pending=len(part) - len(done) - skipped,
        low_fit=sum(e.low_fit for e in done),
        fit_median=_median(float(e.fit_r2) for e in done),
        error_median=_median(float(e.local_error) for e in done),
        cost_median_ms=_median(float(e.cost_ms) for e in done),
    )


def skipped_by_reason(found: Gathered) -> dict[str, int]:
    """Why selected decisions of the period have no explanation."""
    wanted = {decision.id for _, decision in found.decisions} - set(found.explained)
    return _counted(e.reason for e in found.skipped.values() if e.decision in wanted)


def sampling_rules(found: Gathered) -> dict[str, int]:
    """By which rule decisions were selected."""
    return _counted(
        str(d.sampling.get("rule")) for _, d in found.decisions if d.sampling.get("selected")
    )


def notices(found: Gathered) -> tuple[dict[str, Any], ...]:
    """Alerts and what people did to answers, data, keys and models, in log order."""
    return tuple({"leaf": leaf} | dict(as_mapping(event)) for leaf, event in found.notices)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(median(found)) if found else None


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))
