"""From the log's entries to a report.

Rule: pure: no clock, no files; the same entries and answers give an equal report.
"""

from collections.abc import Mapping

from ..fairness import MINIMUM_COUNT
from ..findings import Findings
from . import sections
from .data import Period, ReportData
from .fair import Sealed, fairness
from .gather import Entries, gather
from .trials import Analyse, trials
from .words import summary
from .worked import Payload, worked_examples

VERIFY_COMMAND = "weighbridge audit verify"


def build(
    entries: Entries,
    *,
    payload: Payload,
    sealed: Sealed | None,
    checkpoint: str,
    since_us: int,
    until_us: int,
    completeness: Findings | None = None,
    analyse: Analyse | None = None,
    positive_labels: Mapping[str, str] | None = None,
    minimum_count: int = MINIMUM_COUNT,
    worked_per_model: int = 2,
    verify_command: str = VERIFY_COMMAND,
    title: str = "Audit report",
    made_us: int | None = None,
) -> ReportData:
    """Read the log once and count.

    Args:
        entries: (leaf, event) in log order, from leaf 0 up to the checkpoint's size.
        payload: (decision id, name) -> decrypted bytes, None when erased or missing.
        sealed: a decision's opened sealed part ({"groups": ...}), None when it cannot be opened;
            None for the whole argument falls back on recorded fairness windows.
        checkpoint: the signed note that the report is about, as text.
        since_us: first moment of the period, Unix microseconds, included.
        until_us: last moment, excluded.
        completeness: what `verify_log` found, if the caller ran it.
        analyse: `experiments.estimate.analyse`, or None to leave experiments out.
        positive_labels: model -> the label that counts as selected.
        minimum_count: decisions that a group needs before it is judged.
        worked_per_model: explanations drawn for each model version; 0 shows no personal data.
        verify_command: what the reader is told to run.
        title: the report's heading.
        made_us: when it was made; None leaves it out, so that two reports are equal.

    Raises:
        ValueError: the period is empty.
    """
    if until_us <= since_us:
        raise ValueError(
            "could not build a report: the period is empty; it must begin before it ends"
        )
    found = gather(entries, Period(since_us=since_us, until_us=until_us))
    fair = fairness(
        found,
        sealed=sealed,
        positive_labels=positive_labels or {},
        minimum_count=minimum_count,
    )
    trial = trials(found, analyse)
    examples = worked_examples(found, payload, worked_per_model)
    return summary(
        ReportData(
            title=title,
            period=found.period,
            made_us=made_us,
            summary=(),
            log=sections.log_state(
                found,
                checkpoint=checkpoint,
                verification=completeness,
                verify_command=verify_command,
            ),
            models=sections.models(found),
            traffic=sections.traffic(found),
            sticky=sections.sticky(found),
            latencies=sections.latencies(found),
            trials=trial.trials,
            outcome_tally=trial.tally,
            definitions_malformed=trial.malformed,
            fairness=fair.tables,
            fairness_unread=fair.unread,
            explanations=sections.explanations(found),
            skipped_by_reason=sections.skipped_by_reason(found),
            sampling_rules=sections.sampling_rules(found),
            worked=examples.worked,
            worked_unreadable=examples.unreadable,
            notices=sections.notices(found),
        )
    )
