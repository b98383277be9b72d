"""SIGTERM under load, over both protocols: no request is lost, and no record."""

import os
import signal
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field

import grpc
import httpx
import pytest
import server as servers
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision
from audit.testing import check_log

INFER = "/v2/models/sentiment/infer"
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["fine"]}


@dataclass
class Callers:
    """Clients that call until the server is gone, and what became of each call."""

    server: servers.Server
    told: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    unheard: set[str] = field(default_factory=set)
    ready: list[int] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def over_http(self) -> None:
        with httpx.Client(base_url=self.server.http, timeout=20) as client:
            while not self.gone.is_set():
                unit = uuid.uuid4().hex
                try:
                    reply = client.post(
                        INFER, json={"inputs": [TEXT]}, headers={"x-weighbridge-unit": unit}
                    )
                except httpx.ConnectError:
                    return  # never sent
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    self.unheard.add(unit)  # an idle connection that was closed meanwhile
                    continue
                self.note(f"http {reply.status_code}", unit, ok=reply.status_code == 200)

    def over_grpc(self) -> None:
        with grpc.insecure_channel(self.server.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = pb.ModelInferRequest(model_name="sentiment")
            tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
            tensor.contents.bytes_contents.append(b"fine")
            while not self.gone.is_set():
                unit = uuid.uuid4().hex
                try:
                    stub.ModelInfer(request, timeout=20, metadata=[("x-weighbridge-unit", unit)])
                except grpc.RpcError as error:
                    self.note(f"grpc {error.code().name}", unit, ok=False)
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        return
                else:
                    self.note("grpc OK", unit, ok=True)

    def watch_readiness(self) -> None:
        with httpx.Client(base_url=self.server.http, timeout=20) as client:
            while not self.gone.is_set():
                try:
                    self.ready.append(client.get("/v2/health/ready").status_code)
                except httpx.TransportError:
                    return

    def note(self, kind: str, unit: str, *, ok: bool) -> None:
        self.told[kind] += 1
        (self.answered if ok else self.unheard).add(unit)


@pytest.mark.parametrize("runner", ["inprocess", "service"])
@pytest.mark.parametrize("engine", ["native", "grpcio"])
def test_a_stop_under_load_loses_nothing(home, runner, engine) -> None:
    started = servers.start(
        home,
        WEIGHBRIDGE_RUNNER=runner,
        WEIGHBRIDGE_GRPC_ENGINE=engine,
        WEIGHBRIDGE_EXPLAINER="false",
        WEIGHBRIDGE_MODELS="sentiment",
        WEIGHBRIDGE_NOTICE_S="0.5",
    )
    callers = Callers(started)
    kinds = [callers.over_http] * 6 + [callers.over_grpc] * 4 + [callers.watch_readiness]
    threads = [threading.Thread(target=kind) for kind in kinds]
    try:
        for thread in threads:
            thread.start()
        while sum(callers.told.values()) < 200:
            assert threads[0].is_alive(), callers.told
        os.kill(started.process.pid, signal.SIGTERM)
        assert started.process.wait(40) == 0
    finally:
        callers.gone.set()
        for thread in threads:
            thread.join(30)
        if started.process.poll() is None:
            started.stop(kill=True)
    fine = {"http 200", "grpc OK", "grpc UNAVAILABLE"}
    if engine == "grpcio":
        fine.add("grpc CANCELLED")  # it came in the moment of the stop; no servicer saw it
    assert set(callers.told) <= fine, callers.told
    assert callers.ready[0] == 200
    assert 503 in callers.ready, "readiness is told before the end"
    keyring = Keyring.load(home / "keys")
    recorded = {
        entry.event.unit_ref
        for entry in LogReader(home / "log").entries()
        if isinstance(entry.event, Decision)
    }
    answered = {keyring.unit_ref(unit) for unit in callers.answered}
    assert answered <= recorded, "every answer has a record"
    assert recorded <= answered, "every record was answered"
    check_log(home / "log", keyring.verifier_key("weighbridge.local/decisions"))
