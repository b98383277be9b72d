"""What each version did since the start, in the shapes of Triton's statistics extension.

Source: Triton Inference Server, "Statistics Extension"; docs/protocol.md, "Statistics".
Rule 1: plain counters, written by the event loop alone: no lock, no label, no clock of their own.
Rule 2: only versions that are held have counters, so a caller's text cannot make one.
Rule 3: a batch that several requests shared is counted once: each request brings its share of it,
and the shares of one batch add up to one. A request that ran in pieces brings all of them.
Read next: dataplane.py (who counts), admin.py (who answers).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from runners.batch import Answer

__all__ = ["Counters", "Statistics"]

_NS = 1e9


@dataclass(slots=True)
class Counters:
    """One version's sums; seconds are kept as they were measured and told as nanoseconds."""

    answered: int = 0
    rows: int = 0
    executions: float = 0.0
    last_ns: int = 0
    total_s: float = 0.0
    input_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    failed: int = 0
    failed_s: float = 0.0
    batches: dict[int, list[float]] = field(default_factory=dict)

    def told(self, name: str, version: str) -> dict[str, Any]:
        """One element of `model_stats`."""
        count = self.answered
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ns // 1_000_000,
            "inference_count": self.rows,
            "execution_count": round(self.executions),
            "inference_stats": {
                "success": _duration(count, self.total_s),
                "fail": _duration(self.failed, self.failed_s),
                "queue": _duration(count, self.queue_s),
                "compute_input": _duration(count, self.input_s),
                "compute_infer": _duration(count, self.infer_s),
                "compute_output": _duration(count, self.output_s),
                "cache_hit": _duration(0, 0.0),
                "cache_miss": _duration(0, 0.0),
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": _duration(round(runs), 0.0),
                    "compute_infer": _duration(round(runs), seconds),
                    "compute_output": _duration(round(runs), 0.0),
                }
                for size, (runs, seconds) in sorted(self.batches.items())
            ],
            "memory_usage": [],
        }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * _NS)}


class Statistics:
    """The counters of one process, by exact name and version."""

    def __init__(self) -> None:
        """Nothing was counted yet."""
        self._held: dict[tuple[str, str], Counters] = {}

    def answered(  # noqa: PLR0917  one call on the path of every request: positions are cheaper
        self,
        key: tuple[str, str],
        rows: int,
        answer: Answer,
        began_ns: int,
        asked_ns: int,
        inferred_ns: int,
        recorded_ns: int,
        unix_ns: int,
    ) -> None:
        """Count one recorded answer.

        Args:
            key: name and version, both held.
            rows: the request's rows.
            answer: says how long it queued and ran, and in which batch.
            began_ns: when the request came; like the next three by the monotonic clock.
            asked_ns: when its model was asked.
            inferred_ns: when the model had answered.
            recorded_ns: when the record was acknowledged.
            unix_ns: the same moment as Unix time.
        """
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = Counters()
        found.answered += 1
        found.rows += rows
        found.last_ns = unix_ns
        found.total_s += (recorded_ns - began_ns) / _NS
        found.input_s += (asked_ns - began_ns) / _NS
        found.output_s += (recorded_ns - inferred_ns) / _NS
        found.queue_s += answer.queue_s
        found.infer_s += answer.infer_s
        size = answer.batch_rows or rows
        share = rows / size if rows <= size else float(-(-rows // size))
        found.executions += share
        batch = found.batches.get(size)
        if batch is None:
            batch = found.batches[size] = [0.0, 0.0]
        batch[0] += share
        batch[1] += min(share, 1.0) * answer.infer_s

    def failed(self, key: tuple[str, str], began_ns: int, ended_ns: int) -> None:
        """Count a request of a held version that got no answer."""
        found = self._held.setdefault(key, Counters())
        found.failed += 1
        found.failed_s += (ended_ns - began_ns) / _NS

    def told(self, versions: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """`{"model_stats": [...]}` of `versions`, in that order; zeros where nothing was asked."""
        none = Counters()
        return {"model_stats": [self._held.get(key, none).told(*key) for key in versions]}
