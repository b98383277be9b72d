"""The experiments' section: rows for the analysis, and its answer in this package's values.

Boundary: the analysis is handed in (services give `experiments.estimate.analyse`), because audit
and experiments do not import one another; what it returns is read by attribute names.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from .data import Trial, TrialArm, TrialComparison
from .gather import ExposureRow, Gathered, OutcomeRow

Analyse: TypeAlias = Callable[
    [Iterable[ExposureRow], Iterable[OutcomeRow], Iterable[Mapping[str, Any]]], Any
]


class Trials(NamedTuple):
    """All experiments, and what did not count: outcomes, malformed definitions."""

    trials: tuple[Trial, ...]
    tally: dict[str, int]
    malformed: int


def trials(found: Gathered, analyse: Analyse | None) -> Trials:
    """Analyse all exposures and outcomes up to the end of the period."""
    if analyse is None:
        return Trials((), {}, 0)
    definitions = [
        dict(config.definition) | {"experiment_version": version}
        for version, config in sorted(found.configs.items())
    ]
    analysis = analyse(found.exposures, found.outcomes, definitions)
    return Trials(
        tuple(_trial(summary) for summary in analysis.summaries),
        dict(analysis.tally._asdict()),
        analysis.malformed,
    )


def _trial(summary: Any) -> Trial:
    return Trial(
        experiment=summary.experiment,
        experiment_version=summary.experiment_version,
        epoch=summary.epoch,
        model=summary.model,
        metric=summary.metric,
        arms=tuple(TrialArm(**arm._asdict()) for arm in summary.arms),
        comparisons=tuple(_comparison(c) for c in summary.comparisons),
        srm_p=summary.srm.p_value,
        srm_verdict=summary.srm.verdict,
        crossed=summary.crossed,
    )


def _comparison(found: Any) -> TrialComparison:
    fields = found._asdict()
    for name in ("anytime", "fixed"):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    return TrialComparison(**fields)
