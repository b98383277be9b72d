"""A report as one HTML file, and as JSON with the same figures.

Rule: autoescape is on and no template marks anything safe, so text from records cannot become
markup; the only style values that vary are numbers made here. No script, no address to fetch; what
HTML cannot hold, control characters, is shown as replaced.
The same data gives the same bytes.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..fairness import SMALLEST
from . import words
from .charts import fairness_chart, trial_chart
from .data import ReportData, Worked
from .highlight import pieces
from .overlay import overlay

TEMPLATES = Path(__file__).parent
TOP_FEATURES = 8
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
FILTERS = (
    "count", "interval", "milliseconds", "moment", "number", "pairs", "percent", "points",
    "short", "single", "verdict",
)  # fmt: skip


def render_html(data: ReportData) -> str:
    """The report as one self-contained page, UTF-8."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters.update({name: getattr(words, name) for name in FILTERS})
    return environment.get_template("report.html").render(
        r=data,
        smallest=SMALLEST,
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        fairness_chart=fairness_chart,
        trial_chart=trial_chart(data.trials),
        overlay=lambda w: overlay(w.details, w.features),
        pieces=lambda w: pieces(str(w.details.get("text", "")), w.features),
        top=top_features,
    )


def render_json(data: ReportData) -> bytes:
    """The report's figures as JSON: sorted keys, two spaces, UTF-8; rates to six digits."""
    text = json.dumps(_plain(asdict(data)), sort_keys=True, indent=2, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def top_features(worked: Worked) -> list[Mapping[str, Any]]:
    """The features of largest weight, with a bar width in percent of the largest."""
    ordered = sorted(worked.features, key=lambda f: (-abs(f["weight"]), f["name"]))[:TOP_FEATURES]
    top = max([abs(f["weight"]) for f in ordered], default=0.0) or 1.0
    return [{**f, "width": round(100 * abs(f["weight"]) / top, 1)} for f in ordered]


def _shown(value: Any) -> Any:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
