"""Prometheus figures of the data plane, read at BentoML's `/metrics`.

Rule: labels come from what is held and from closed lists, never from a caller's text, so their
number is bounded; a figure is a counter or a histogram of fixed buckets. BentoML sets
PROMETHEUS_MULTIPROC_DIR for its workers, and its endpoint adds up what they write there.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

__all__ = ["Metrics"]

_FLUSH_S = 0.5
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)


class Metrics:
    """The figures of one process.

    Attributes:
        answered: how many answers were given.
        recorded: the recorder's name in the log, and how many answers it recorded.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the figures."""
        self._decisions = Counter(
            "weighbridge_decisions",
            "Answers that were recorded and given.",
            ["model", "version", "arm", "origin"],
            registry=registry,
        )
        self._refusals = Counter(
            "weighbridge_refusals",
            "Calls that were refused, by HTTP status of the refusal.",
            ["status", "origin"],
            registry=registry,
        )
        self._seconds = Histogram(
            "weighbridge_decision_seconds",
            "From the parsed request to the recorded answer.",
            ["model", "version"],
            buckets=_SECONDS,
            registry=registry,
        )

        self._records = Counter(
            "weighbridge_records",
            "Answers that were recorded, by the gateway process that the log names.",
            ["instance"],
            registry=registry,
        )
        self.recorded: Callable[[], tuple[str, int]] = lambda: ("", 0)
        self._told = 0
        self.answered = 0
        self._tallies: dict[tuple[str, str, str | None, str], tuple[list[int], list[float]]] = {}
        self._later: asyncio.TimerHandle | None = None

    def decided(
        self, *, model: str, version: str, arm: str | None, origin: str, seconds: float
    ) -> None:
        """Count one answer; `flush` hands it on."""
        self.answered += 1
        key = (model, version, arm, origin)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = [0] * len(_SECONDS), [0.0]
        tally[0][min(bisect_left(_SECONDS, seconds), len(_SECONDS) - 1)] += 1
        tally[1][0] += seconds
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Hand on what was counted since the last time.

        A value of prometheus_client in multi-process mode is a place in a shared file, and each
        change of one costs as much as a small model's share of a batch.
        """
        if self._later is not None:
            self._later.cancel()
            self._later = None
        for (model, version, arm, origin), (counts, total) in self._tallies.items():
            answers = sum(counts)
            if not answers:
                continue
            self._decisions.labels(model, version, arm or "", origin).inc(answers)
            seconds = self._seconds.labels(model, version)
            for place, count in enumerate(counts):
                if count:
                    seconds._buckets[place].inc(count)
                    counts[place] = 0
            seconds._sum.inc(total[0])
            total[0] = 0.0

        instance, recorded = self.recorded()
        if recorded > self._told:
            self._records.labels(instance).inc(recorded - self._told)
            self._told = recorded

    def refused(self, *, status: int, origin: str) -> None:
        """Count one refusal."""
        self._refusals.labels(str(status), origin).inc()
