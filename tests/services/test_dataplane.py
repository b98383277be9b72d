"""What is measured of a decision holds while an operator sets the wall clock back."""

import asyncio
import time
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from prometheus_client import CollectorRegistry

from audit.receipts import Receipt
from runners.batch import Answer
from runners.errors import ModelNotReady
from runners.tensor import Signature, Tensor, TensorSpec
from services.dataplane import DataPlane, Request
from services.decision import Recorded, Taken
from services.metrics import Metrics
from services.oip import message
from services.router import Choice
from services.telemetry import Mark, Span, TraceIds

HOUR_NS = 3_600_000_000_000
X = TensorSpec("x", "FP32", (-1,))
MODEL = "m", "1"


class Fleet:
    """One version of one model, which answers or says that it is not ready."""

    def __init__(self, *, refusing: bool) -> None:
        self.refusing = refusing
        manifest = SimpleNamespace(signature=Signature((X,), (X,)))
        self.only = SimpleNamespace(manifest=manifest, served=self, state="READY")
        self.slots = {MODEL: self.only}

    def versions(self, _: str) -> list[str]:
        return ["1"]

    def ready(self, *_: str) -> Any:
        return self.only

    slot = ready

    async def infer(self, batch: Any, rows: int, *, deadline: float) -> Answer:
        if self.refusing:
            raise ModelNotReady("not now")
        return Answer({"x": batch["x"]}, 0.0, 0.0, rows)


class Recorder:
    """Keeps what it was asked to record."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    async def record(self, taken: Taken) -> tuple[Recorded, Receipt]:
        self.taken.append(taken)
        return Recorded("id", "unit", b"", ()), Receipt("log", 0, bytes(32))


class World:
    """A data plane; every look at its wall clock finds it an hour earlier."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refusing: bool = False) -> None:
        back = count(time.time_ns(), -HOUR_NS)
        monkeypatch.setattr(time, "time_ns", lambda: next(back))
        self.spans: list[Span] = []
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.recorder = Recorder()
        telemetry = SimpleNamespace(finish=lambda _, span: self.spans.append(span))
        chosen = Choice("1", "no_experiment", None, None)
        self.plane = DataPlane(
            fleet=Fleet(refusing=refusing),
            router=SimpleNamespace(choose=lambda *_, **__: chosen),
            recorder=self.recorder,
            telemetry=telemetry,
            metrics=self.metrics,
            timeout_s=1.0,
        )

    async def ask(self) -> Request:
        tensor = Tensor("x", "FP32", np.zeros(1, np.float32))
        ids = TraceIds(1, 2, 0, sampled=True, state="")
        request = Request("m", "1", {"x": tensor}, "http", ids, request_id="r")
        try:
            await self.plane.infer(request)
        finally:
            await asyncio.sleep(0)
            self.metrics.flush()
        return request

    @property
    def told(self) -> dict[str, Any]:
        return self.plane.books.statistics.told([MODEL])


def in_order(span: Span) -> bool:
    marks: list[Mark] = span.marks
    times = [span.start_ns, *(t for mark in marks for t in mark[1:3]), span.end_ns]
    return times == sorted(times)


async def test_a_wall_clock_that_goes_back_makes_no_duration_negative(monkeypatch) -> None:
    world = World(monkeypatch)
    request = await world.ask()
    (taken,) = world.recorder.taken
    assert taken.inferred_ns >= request.started_ns, "what the record's total_us is made of"
    sums = world.told["model_stats"][0]["inference_stats"]
    assert sums["success"]["count"] == 1
    assert min(found["ns"] for found in sums.values()) >= 0
    ParseDict(world.told, message("ModelStatisticsResponse")())  # gRPC's are unsigned
    tags = {"model": "m", "version": "1"}
    assert world.registry.get_sample_value("weighbridge_decision_seconds_sum", tags) >= 0


async def test_a_span_keeps_the_wall_clock_of_its_request(monkeypatch) -> None:
    world = World(monkeypatch)
    request = await world.ask()
    (span,) = world.spans
    assert span.start_ns == request.unix_ns
    assert [mark.name for mark in span.marks] == ["route", "infer", "append"]
    assert in_order(span)


async def test_a_refusal_is_not_counted_with_a_negative_duration(monkeypatch) -> None:
    world = World(monkeypatch, refusing=True)
    with pytest.raises(ModelNotReady):
        await world.ask()
    failed = world.told["model_stats"][0]["inference_stats"]["fail"]
    assert failed["count"] == 1
    assert failed["ns"] >= 0
    assert in_order(world.spans[0])
