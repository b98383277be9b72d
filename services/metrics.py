"""Prometheus figures of the data plane, read at BentoML's `/metrics`.

Rule: labels come from what is held and from closed lists, never from a caller's text, so their
number is bounded; a figure is a counter or a histogram of fixed buckets. BentoML sets
PROMETHEUS_MULTIPROC_DIR for its workers, and its endpoint adds up what they write there.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The figures of one process."""

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

        self._children: dict[tuple[str, str, str | None, str], tuple[Counter, Histogram]] = {}

    def decided(
        self, *, model: str, version: str, arm: str | None, origin: str, seconds: float
    ) -> None:
        """Count one answer."""
        key = (model, version, arm, origin)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = (
                self._decisions.labels(model, version, arm or "", origin),
                self._seconds.labels(model, version),
            )
        found[0].inc()
        found[1].observe(seconds)

    def refused(self, *, status: int, origin: str) -> None:
        """Count one refusal."""
        self._refusals.labels(str(status), origin).inc()
