"""Figures in words: the summary's sentences, and how numbers and times are written.

Rule: no figure without its count; no verdict beyond what the data says. Times are UTC.
"""

from dataclasses import replace
from datetime import UTC, datetime

from .data import FairTable, ReportData

VERDICTS = {
    "ok": "no concern",
    "below_four_fifths": "below four fifths",
    "insufficient_evidence": "insufficient evidence",
    "difference_found": "a difference is shown",
    "no_difference_shown": "no difference is shown",
    "void_sample_ratio": "void: the split is wrong",
    "mismatch": "mismatch",
    "no_data": "no data",
}


def summary(data: ReportData) -> ReportData:
    """The report with its summary written."""
    parts = (_traffic, _log, _malformed, _trials, _fair, _explained)
    return replace(data, summary=tuple(s for part in parts if (s := part(data))))


def _traffic(data: ReportData) -> str:
    total = sum(row.decisions for row in data.traffic)
    span = f"Between {moment(data.period.since_us)} and {moment(data.period.until_us)} (UTC)"
    if not total:
        return f"{span} no decisions were recorded."
    routes = len({row.route for row in data.traffic})
    versions = len({(row.route, row.version) for row in data.traffic})
    return (
        f"{span} {count(total, 'decision')} by {count(routes, 'model')} in "
        f"{count(versions, 'version')} {'was' if total == 1 else 'were'} recorded."
    )


def _log(data: ReportData) -> str:
    log = data.log
    if log.complete:
        text = "Every answer is accounted for: no process skipped a number or used one twice"
        refused = sum(i.refused for i in log.instances)
        text += f"; {count(refused, 'answer')} refused for want of a record." if refused else "."
    else:
        missing = sum(b - a + 1 for i in log.instances for a, b in i.missing)
        twice = sum(i.duplicates for i in log.instances)
        text = (
            f"The log is NOT complete: {count(missing, 'answer')} missing, "
            f"{count(twice, 'number')} used twice."
        )
    if log.verified == "no":
        return text + f" Verification FAILED with {count(len(log.problems), 'problem')}."
    if log.verified == "yes":
        return text + " The whole log verifies against its signed checkpoint."
    return text + " This report did not verify the signatures; the command below does."


def _malformed(data: ReportData) -> str:
    leaves = data.log.malformed
    if not leaves:
        return ""
    return (
        f"{count(len(leaves), 'malformed record')} {'was' if len(leaves) == 1 else 'were'} passed "
        f"over; the first is leaf {leaves[0]}."
    )


def _trials(data: ReportData) -> str:
    found = [c.verdict for trial in data.trials for c in trial.comparisons]
    if not found:
        return ""
    parts = [
        f"{found.count(verdict)} with {words}"
        for verdict, words in (
            ("difference_found", "a difference shown"),
            ("no_difference_shown", "no difference shown"),
            ("insufficient_evidence", "insufficient evidence"),
            ("void_sample_ratio", "a wrong split, hence void"),
        )
        if verdict in found
    ]
    return f"Of {count(len(found), 'comparison')} between arms: {listed(parts)}."


def _fair(data: ReportData) -> str:
    groups = [g for t in data.fairness if single(t) for g in t.groups]
    if not groups:
        return "No fairness counts are available for this period."
    low = sum(g.verdict == "below_four_fifths" for g in groups)
    thin = sum(g.verdict == "insufficient_evidence" for g in groups)
    return (
        f"Of {count(len(groups), 'group')} compared by model, arm and attribute, {low} "
        f"{'is' if low == 1 else 'are'} below four fifths of the highest selection rate, and for "
        f"{thin} there is insufficient evidence."
    )


def _explained(data: ReportData) -> str:
    rows = data.explanations
    selected = sum(r.selected for r in rows)
    if not selected:
        return "No decision was selected for an explanation."
    return (
        f"{count(selected, 'decision')} {'was' if selected == 1 else 'were'} selected for an "
        f"explanation: {sum(r.explained for r in rows)} explained, "
        f"{sum(r.skipped for r in rows)} skipped with a reason, "
        f"{sum(r.pending for r in rows)} pending; {sum(r.low_fit for r in rows)} of the "
        f"explanations fit too poorly to give reasons."
    )


def single(table: FairTable) -> bool:
    """Whether a fairness table is about one attribute, not a pair."""
    return "×" not in table.attribute


def count(n: int, noun: str) -> str:
    """`1 decision`, `1,204 decisions`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def moment(time_us: int) -> str:
    """`2026-11-20 14:03:05`, UTC, seconds."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def percent(share: float | None, digits: int = 1) -> str:
    """`12.5 %`, or a dash when there is nothing to show."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float | None) -> str:
    """A signed difference of rates in percentage points: `+2.1 pp`."""
    return "–" if difference is None else f"{100 * difference:+.1f} pp".replace("-", "−")


def interval(ends: tuple[float, float] | None) -> str:
    """`−1.0 to +5.2 pp`."""
    if ends is None:
        return "–"
    return f"{points(ends[0]).removesuffix(' pp')} to {points(ends[1])}"


def milliseconds(time_us: int) -> str:
    """Microseconds as milliseconds, three significant digits or so."""
    value = time_us / 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def short(text: str, length: int = 12) -> str:
    """The first characters of a digest, its algorithm left out."""
    return text.removeprefix("sha256:")[:length]


def verdict(name: str) -> str:
    """A verdict in words."""
    return VERDICTS.get(name, name)


def pairs(counts: dict[str, int]) -> str:
    """`http 310, grpc 94`, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {n:,}" for name, n in ordered) or "–"
