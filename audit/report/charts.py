"""The charts: impact ratios with the four-fifths line, and differences with their intervals.

Rule: drawn by matplotlib as SVG with a fixed hash salt and no metadata, so that the same figures
give the same bytes; each chart is an `img` of its own (ids of two charts never meet) and says in
its alternative text what it shows.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..fairness import FOUR_FIFTHS
from .data import FairTable, Trial
from .words import interval, number, percent, points, verdict

INK, GREY, BLUE, ORANGE = "#1b1f24", "#8a929c", "#1f5fa8", "#c86214"
STYLE: Any = {
    "svg.hashsalt": "weighbridge",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.parse_math": False,  # names from records are text, whatever they hold
}


class Chart(NamedTuple):
    """A `data:` address and what it shows, in words."""

    uri: str
    alt: str


def fairness_chart(table: FairTable) -> Chart:
    """Bars of the impact ratio by group, and the line at four fifths."""
    groups = list(reversed(table.groups))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.62 + 0.34 * len(groups)), layout="constrained")
        axes = figure.add_subplot()
        for y, group in enumerate(groups):
            if group.impact_ratio is None:
                note = f"insufficient evidence, n = {group.n:,}"
                axes.text(0.01, y, note, va="center", color="#5a626c", style="italic")
                continue
            low = group.verdict == "below_four_fifths"
            axes.barh(y, group.impact_ratio, height=0.62, color=ORANGE if low else BLUE)
            label = (
                f"{number(group.impact_ratio)}  ({percent(group.selection_rate)}, n = {group.n:,})"
            )
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # over the dashed line
            axes.text(group.impact_ratio + 0.012, y, label, va="center", fontsize=9, bbox=box)
        axes.axvline(FOUR_FIFTHS, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
        axes.set_yticks(range(len(groups)), [_clip(g.group) for g in groups])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.38)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8 = ⅘", "1"])
        axes.set_xlabel("impact ratio: selection rate over the highest group's")
        return Chart(_uri(figure), _fairness_alt(table))


def _fairness_alt(table: FairTable) -> str:
    parts = [
        f"{g.group}: {number(g.impact_ratio)}, {verdict(g.verdict)}"
        if g.impact_ratio is not None
        else f"{g.group}: insufficient evidence ({g.n} decisions)"
        for g in table.groups
    ]
    return f"Impact ratio by {table.attribute}, line at four fifths. " + "; ".join(parts) + "."


def trial_chart(trials: Sequence[Trial]) -> Chart | None:
    """Differences with anytime-valid intervals; None when there is none to draw."""
    rows = [
        (f"{t.experiment}, epoch {t.epoch}: {c.arm}", c)
        for t in trials
        for c in t.comparisons
        if c.anytime is not None and c.difference is not None
    ]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.8 + 0.4 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, (_, c) in enumerate(reversed(rows)):
            _interval_row(axes, y, c)
        axes.axvline(0, color=INK, linewidth=1.0, zorder=0)
        axes.set_yticks(range(len(rows)), [_clip(name, 40) for name, _ in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("difference to the baseline, percentage points")
        alt = "; ".join(f"{n}: {points(c.difference)}, {interval(c.anytime)}" for n, c in rows)
        return Chart(_uri(figure), f"Differences with anytime-valid intervals. {alt}.")


def _interval_row(axes: Any, y: int, c: Any) -> None:
    shown = c.verdict == "difference_found"
    colour = BLUE if shown else GREY
    axes.plot([100 * c.anytime[0], 100 * c.anytime[1]], [y, y], color=colour, linewidth=2.2)
    if c.fixed is not None:
        ends = [100 * c.fixed[0], 100 * c.fixed[1]]
        axes.plot(ends, [y, y], "|", color=INK, markersize=8)
    axes.plot([100 * c.difference], [y], "o", color=colour, markersize=6)


def _clip(text: str, length: int = 28) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _uri(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    target = io.StringIO()
    figure.savefig(
        target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    return "data:image/svg+xml;base64," + base64.b64encode(target.getvalue().encode()).decode()
