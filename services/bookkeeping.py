"""What is counted and traced of an answer, after it has left.

Rule 1: nobody waits for it. Answers are noted as they are given, and entered together in the loop's
next turn, when their replies are with the system; `settle` enters what is left.
Rule 2: durations are counted by the monotonic clock; a span's moments are the wall clock's when the
request came, and so much later.
Boundary: counters and spans; a decision's record is recorder.py's, and was made before the reply.
Read next: metrics.py, statistics.py, telemetry.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from audit.receipts import Receipt

from .decision import Recorded, Taken
from .metrics import Metrics
from .router import Choice
from .statistics import Statistics
from .telemetry import Mark, Span, Telemetry

if TYPE_CHECKING:
    from .dataplane import Request

__all__ = ["Answered", "Books"]


class Answered(NamedTuple):
    """One recorded answer; times are nanoseconds of the monotonic clock.

    Attributes:
        taken: the answer.
        record: what was recorded.
        receipt: of the record.
        asked_ns: when the model was asked.
        recorded_ns: when the record was acknowledged.
        span: of a sampled request.
        infer_id: the span id that a runner elsewhere was told.
    """

    taken: Taken
    record: Recorded
    receipt: Receipt
    asked_ns: int
    recorded_ns: int
    span: Span | None
    infer_id: int


class Books:
    """The counters and spans of one process's answers."""

    def __init__(self, metrics: Metrics, telemetry: Telemetry) -> None:
        """Nothing was answered yet."""
        self._metrics = metrics
        self._telemetry = telemetry
        self.statistics = Statistics()
        self._answered: list[tuple[Answered, int]] = []

    def answered(self, answered: Answered) -> None:
        """Note an answer that is about to leave."""
        if not self._answered:
            asyncio.get_running_loop().call_soon(self.settle)
        self._answered.append((answered, time.monotonic_ns()))

    def settle(self) -> None:
        """Enter what was noted."""
        noted, self._answered = self._answered, []
        for answered, left_ns in noted:
            self._enter(answered, left_ns)

    def _enter(self, answered: Answered, left_ns: int) -> None:
        taken, span = answered.taken, answered.span
        request, choice = taken.request, taken.choice
        self.statistics.answered(
            (request.model, choice.version),
            taken.rows,
            taken.answer,
            request.started_ns,
            answered.asked_ns,
            taken.inferred_ns,
            answered.recorded_ns,
            request.unix(answered.recorded_ns),
        )
        self._metrics.decided(
            model=request.model,
            version=choice.version,
            arm=choice.arm,
            origin=request.origin,
            seconds=(left_ns - request.started_ns) / 1e9,
        )
        if span is not None:
            _tell(span, answered)
            span.end_ns = request.unix(left_ns)
            self._telemetry.finish(request.trace, span)

    def refused(self, request: Request, span: Span | None, error: Exception, status: int) -> None:
        """Enter a request that got no answer."""
        self._metrics.refused(status=status, origin=request.origin)
        if request.chosen:
            key = request.model, request.chosen
            self.statistics.failed(key, request.started_ns, time.monotonic_ns())
        if span is not None:
            span.error = type(error).__name__ if status >= 500 else ""
            span.attributes["error.type"] = type(error).__name__
            self.left(request, span)

    def left(self, request: Request, span: Span) -> None:
        """Enter the end of a request that got no answer, or whose caller went away."""
        span.end_ns = request.unix(time.monotonic_ns())
        self._telemetry.finish(request.trace, span)


def _tell(span: Span, answered: Answered) -> None:
    """Put into a span what happened after the route was chosen."""
    taken, record = answered.taken, answered.record
    moments = answered.asked_ns, taken.inferred_ns, answered.recorded_ns
    asked, inferred, recorded = map(taken.request.unix, moments)
    rows, leaf = {"weighbridge.rows": taken.rows}, {"weighbridge.leaf": answered.receipt.index}
    span.marks.append(Mark("infer", asked, inferred, rows, answered.infer_id))
    span.marks.append(Mark("append", inferred, recorded, leaf))
    span.attributes["weighbridge.decision"] = record.id
    span.flag = _flag(taken.choice, record.unit_ref)


def _flag(choice: Choice, unit_ref: str) -> dict[str, str] | None:
    """The `feature_flag.evaluation` event of the semantic conventions."""
    if choice.assignment is None or choice.arm is None:
        return None
    return {
        "feature_flag.key": choice.assignment.experiment,
        "feature_flag.provider.name": "weighbridge",
        "feature_flag.result.variant": choice.arm,
        "feature_flag.result.reason": "split" if choice.reason == "assigned" else "targeting_match",
        "feature_flag.version": choice.assignment.experiment_version,
        "feature_flag.context.id": unit_ref,
    }
