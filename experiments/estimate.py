"""What an experiment says so far: one summary per experiment and epoch.

Rule: never pools epochs; the verdict rests on the anytime-valid interval alone. The
fixed-horizon interval stands beside it for readers who know it, and is not for stopping.
A sample ratio mismatch voids the comparison. Too little data is an answer of its own. A definition
that does not say what is compared is passed over and counted: the others are still analysed.
Boundary: rows in (any object with the fields of `Exposure` and `Outcome`), NamedTuples out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from .definition import BUCKETS
from .outcomes import Exposure, Join, Joined, Key, Outcome, Tally, join
from .sequential import Interval, difference_sequence, fixed_horizon
from .srm import Srm, srm

ALPHA = 0.05
Verdict = Literal[
    "difference_found", "no_difference_shown", "insufficient_evidence", "void_sample_ratio"
]


class ArmSummary(NamedTuple):
    """One arm in one epoch."""

    arm: str
    version: str
    share: float  # promised, 0..1
    exposed: int  # units
    observed: int  # units with an outcome
    rate: float | None  # mean outcome of the observed units, 0..1


class Comparison(NamedTuple):
    """An arm against the first arm of the definition."""

    arm: str
    baseline: str
    difference: float | None  # rate of `arm` minus rate of `baseline`
    anytime: Interval | None  # holds however often one looks
    fixed: Interval | None  # not for stopping
    alpha: float  # error of each interval; shared out when there are several comparisons
    verdict: Verdict


class Summary(NamedTuple):
    """One experiment in one epoch."""

    experiment: str
    experiment_version: str
    epoch: int
    model: str
    metric: str
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    srm: Srm
    crossed: int  # units seen in more than one arm: 0 while assignment is sticky


class Analysis(NamedTuple):
    """All experiments of a period, and what did not count: outcomes, malformed definitions."""

    summaries: tuple[Summary, ...]
    tally: Tally
    malformed: int


def analyse(
    exposures: Iterable[Exposure],
    outcomes: Iterable[Outcome],
    definitions: Iterable[Mapping[str, Any]],
    *,
    alpha: float = ALPHA,
) -> Analysis:
    """Summarise every experiment and epoch that has a definition.

    Args:
        exposures: assigned units in log order.
        outcomes: in log order; values of the experiment's metric within 0..1.
        definitions: canonical definitions (`Definition.canonical()` with its `version` under
            "experiment_version"), as the log's `assignment_config` events hold them.
        alpha: error of an experiment's comparisons together, over all looks.
    """
    given = list(definitions)
    sound = [definition for definition in given if _is_sound(definition)]
    known = {Key(str(d["name"]), int(d["epoch"])): d for d in sound}
    metrics = {key.experiment: str(d["metric"]) for key, d in known.items()}
    joined: Join = join(exposures, outcomes, metrics=metrics)
    keys = sorted(key for key in joined.parts if key in known)
    summaries = [summarise(joined.parts[key], known[key], alpha=alpha) for key in keys]
    return Analysis(tuple(summaries), joined.tally, len(given) - len(sound))


def _is_sound(definition: Mapping[str, Any]) -> bool:
    """Whether it has what a summary is made of: names, and arms that share all buckets."""
    arms = definition.get("arms")
    if type(definition.get("epoch")) is not int or not isinstance(arms, list | tuple):
        return False
    named = all(type(definition.get(field)) is str for field in ("name", "model", "metric"))
    return named and all(map(_is_arm, arms)) and sum(arm["weight"] for arm in arms) == BUCKETS


def _is_arm(arm: object) -> bool:
    if not isinstance(arm, Mapping) or type(arm.get("weight")) is not int or arm["weight"] < 0:
        return False
    return type(arm.get("name")) is str and type(arm.get("version")) is str


def summarise(part: Joined, definition: Mapping[str, Any], *, alpha: float = ALPHA) -> Summary:
    """The summary of one experiment in one epoch."""
    arms = tuple(_arm(part, arm) for arm in definition["arms"])
    split = _srm(part, arms)
    each = alpha / max(1, len(arms) - 1)
    return Summary(
        experiment=part.key.experiment,
        experiment_version=str(definition.get("experiment_version", "")),
        epoch=part.key.epoch,
        model=str(definition["model"]),
        metric=str(definition["metric"]),
        arms=arms,
        comparisons=tuple(_compare(part, arm, arms[0], each, split) for arm in arms[1:]),
        srm=split,
        crossed=len(part.crossed),
    )


def _arm(part: Joined, arm: Mapping[str, Any]) -> ArmSummary:
    name = str(arm["name"])
    sample = part.sample(name)
    return ArmSummary(
        arm=name,
        version=str(arm["version"]),
        share=int(arm["weight"]) / BUCKETS,
        exposed=part.exposed(name),
        observed=int(sample.size),
        rate=float(sample.mean()) if sample.size else None,
    )


def _srm(part: Joined, arms: Sequence[ArmSummary]) -> Srm:
    live = [arm for arm in arms if arm.share > 0]
    index = {arm.arm: i for i, arm in enumerate(live)}
    seen = [index[arm] for arm in part.arm_of.values() if arm in index]
    return srm(seen, [arm.share for arm in live])


def _compare(
    part: Joined, arm: ArmSummary, baseline: ArmSummary, alpha: float, split: Srm
) -> Comparison:
    one, two = part.sample(arm.arm), part.sample(baseline.arm)
    anytime = difference_sequence(one, two, alpha=alpha)
    known = arm.rate is not None and baseline.rate is not None
    return Comparison(
        arm=arm.arm,
        baseline=baseline.arm,
        difference=arm.rate - baseline.rate if known else None,  # type: ignore[operator]  # both known
        anytime=anytime,
        fixed=fixed_horizon(one, two, alpha=alpha),
        alpha=alpha,
        verdict=_verdict(anytime, split),
    )


def _verdict(anytime: Interval | None, split: Srm) -> Verdict:
    if split.verdict == "mismatch":
        return "void_sample_ratio"
    if anytime is None:
        return "insufficient_evidence"
    return "difference_found" if anytime.low > 0 or anytime.high < 0 else "no_difference_shown"
