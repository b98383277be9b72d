"""The audit report: what a compliance reviewer reads, and can verify.

Promises: every figure comes from records of the log up to one checkpoint; the same inputs give the
same bytes; one HTML file without scripts or a network; "insufficient evidence" and "not recorded"
are answers; text from records is never markup. Personal data appears only in worked examples, and
`worked_examples=0` leaves them out.
Must not know: servers, keys, experiments (the analysis is a callable that is handed in).
Read in this order: data.py (what a report holds), gather.py (one pass over the log), sections.py,
fair.py, trials.py, worked.py, build.py, words.py, charts.py, png.py, render.py with its templates.
"""

from .build import build
from .data import ReportData
from .gather import ExposureRow, OutcomeRow
from .render import render_html, render_json

__all__ = ["ExposureRow", "OutcomeRow", "ReportData", "build", "render_html", "render_json"]
