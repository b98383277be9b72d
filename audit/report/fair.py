"""The fairness tables: recounted from the sealed parts, or else from recorded windows.

Rule: where the sealed groups can be opened and the positive label is known, every decision of the
period is counted anew; otherwise the `fairness_window` records of the period are added up (they
are disjoint) and judged again. A table says which it was. Neither names groups of a few people.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..events import Decision, FairnessWindow
from ..fairness import MINIMUM_COUNT, SMALLEST, Count, Window, judge
from .data import FairGroup, FairTable
from .gather import Gathered
from .words import single

Sealed = Callable[[Decision], Mapping[str, Any] | None]


class Fair(NamedTuple):
    """All tables, and how many decisions could not be counted."""

    tables: tuple[FairTable, ...]
    unread: int


def fairness(
    found: Gathered,
    *,
    sealed: Sealed | None,
    positive_labels: Mapping[str, str],
    minimum_count: int = MINIMUM_COUNT,
) -> Fair:
    """Tables by model, attribute, arm and version."""
    recounted, unread = _recount(found, sealed, positive_labels, minimum_count)
    models = {table.model for table in recounted}
    summed = [t for t in _from_windows(found.windows, positive_labels) if t.model not in models]
    tables = sorted(
        [*recounted, *summed],
        key=lambda t: (t.model, not single(t), t.attribute, t.arm or "", t.version),
    )
    return Fair(tuple(tables), unread)


def _recount(
    found: Gathered,
    sealed: Sealed | None,
    positive_labels: Mapping[str, str],
    minimum_count: int,
) -> tuple[list[FairTable], int]:
    windows: dict[str, Window] = {}
    unread = 0
    for leaf, decision in found.decisions if sealed is not None else ():
        label = positive_labels.get(decision.model)
        if label is None or sealed is None:
            continue
        part = sealed(decision)
        if part is None:
            unread += 1
            continue
        fresh = Window(decision.model, label, minimum_count, smallest=SMALLEST)
        window = windows.setdefault(decision.model, fresh)
        window.add(
            arm=decision.arm_served,
            version=decision.version,
            groups=part.get("groups") or [],
            leaf=leaf,
            time_us=decision.time_us,
            unit=decision.unit_ref,
        )
    tables = [
        _table(record, model, window.positive_label)
        for model, window in windows.items()
        for record in window.records()
    ]
    return tables, unread


def _table(record: Mapping[str, Any], model: str, label: str) -> FairTable:
    return FairTable(
        model=model,
        arm=record["arm"],
        version=record["version"],
        attribute=record["attribute"],
        positive_label=label,
        minimum_count=record["minimum_count"],
        reference=record["reference_group"],
        groups=tuple(_group(g) for g in record["groups"]),
        source="sealed",
    )


def _group(fields: Mapping[str, Any]) -> FairGroup:
    rate, ratio = fields["selection_rate"], fields["impact_ratio"]
    return FairGroup(
        group=fields["group"],
        n=fields["n"],
        positive=fields["positive"],
        selection_rate=None if rate is None else float(rate),
        impact_ratio=None if ratio is None else float(ratio),
        verdict=fields["verdict"],
    )


def _from_windows(
    windows: Iterable[FairnessWindow], positive_labels: Mapping[str, str]
) -> Iterable[FairTable]:
    cells: dict[tuple[str, str, str, str], dict[str, Count]] = {}
    minimum: dict[tuple[str, str, str, str], int] = {}
    for event in windows:
        key = (event.model, event.attribute, event.arm or "", event.version)
        minimum[key] = max(minimum.get(key, 0), event.minimum_count)
        counts = cells.setdefault(key, {})
        for fields in event.groups:
            count = counts.setdefault(str(fields["group"]), Count())
            count.n += int(str(fields["n"]))
            count.positive += int(str(fields["positive"]))
    for key, counts in cells.items():
        judged = judge(counts, minimum_count=minimum[key])
        yield FairTable(
            model=key[0],
            attribute=key[1],
            arm=key[2] or None,
            version=key[3],
            positive_label=positive_labels.get(key[0]),
            minimum_count=minimum[key],
            reference=judged.reference,
            groups=tuple(FairGroup(**rate._asdict()) for rate in judged.rates),
            source="windows",
        )
