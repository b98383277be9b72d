"""What the gateway costs over the bare backend: every figure a ratio of two rates in one run.

Run `python -m bench.serving [--seconds S] [--rounds N] [--soak MINUTES] [--only KEY,…]`: it starts
each server on one core, sends load from another, prints a table and, as its last line, `BENCH` and
a JSON object. Nothing is asserted.
Rule 1: both servers of a ratio are up at the same time and take turns, and the median of the
rounds' ratios counts, so that a noisy machine disturbs both alike.
Rule 2: "full" is routing by an experiment, tracing at 10 % to a collector that answers, and the
strict audit log with its default sampling; the explainer, which works off the path, is not started.
Read next: load.py (the clients), bare.py (the ceilings), servers.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from runners.tensor import DTYPES, format_raw
from services.oip import message

from .figures import Figures
from .load import GrpcRequest, Load, grpc_request, http_request, load_grpc, load_http
from .servers import ROOT, SERVER_CORE, Started, free_port, gateway, home_of, started

Measure = Callable[[Started], Awaitable[Load]]
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNIT = {"x-weighbridge-unit": "alice"}
_REACH = {
    "json64_full": ">= 0.65",
    "json64_noaudit": ">= 0.90",
    "binary_over_json": ">= 1.15",
    "p50_1_strict": "<= 4",
    "p50_1_bounded": "<= 2",
    "p99_64_full": "<= 2",
    "grpc_native_full": ">= 2.0",
    "grpc_grpcio_full": ">= 0.80",
    "runner_over_inprocess": ">= 0.90",
    "over_plain_bentoml": ">= 8",
    "rss_growth": "<= 1.05",
    "gateway_rss_mb": "<= 300",
    "start_s": "<= 12",
}


class Bench:
    """One run: its servers, its requests, its figures."""

    def __init__(self, models: Path, *, seconds: float, rounds: int, otlp: int) -> None:
        self.models, self.seconds, self.rounds = models, seconds, rounds
        self.full = {
            "WEIGHBRIDGE_EXPLAINER": "false",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
        }
        self.found = Figures(_REACH)
        example = json.loads((ROOT / "services" / "example.json").read_text())
        self.row = json.dumps(example, separators=(",", ":")).encode()
        self.raw_row = _infer_message("income", example["inputs"])

    # --- servers ----------------------------------------------------------------------------

    def serve(self, app: str = "services.gateway:Gateway", **settings: str) -> _Opened:
        """A gateway, ready."""
        return _Opened(self.models, lambda home: gateway(home, app, **self.full, **settings))

    def bare(self, kind: str) -> _Opened:
        """A ceiling, ready."""
        port = free_port()
        command = ["-m", "bench.bare", kind, str(port), "income", "1"]
        return _Opened(
            self.models, lambda home: started(command, home, "", port=port, grpc_port=port)
        )

    def plain(self) -> _Opened:
        """Plain BentoML, ready."""
        port = free_port()
        command = ["-m", "bentoml", "serve", "bench.bare:Plain", "--port", str(port)]
        which = {"BENCH_MODEL": "income", "BENCH_VERSION": "1"}
        return _Opened(
            self.models, lambda home: started(command, home, "/readyz", port=port, **which)
        )

    # --- load -------------------------------------------------------------------------------

    def http(self, connections: int = 64, path: str = "/v2/models/income/infer") -> Measure:
        """One row as JSON."""
        return self.post(path, self.row, {"content-type": "application/json"}, connections)

    def post(self, path: str, body: bytes, headers: dict[str, str], connections: int) -> Measure:
        """Any body over HTTP."""

        async def measure(server: Started) -> Load:
            request = http_request(server.port, path, body, headers | _UNIT)
            return await load_http(
                server.port, request, connections=connections, seconds=self.seconds
            )

        return measure

    def grpc(self) -> Measure:
        """One row as raw tensors, 64 calls in flight on four channels."""

        async def measure(server: Started) -> Load:
            request: GrpcRequest = grpc_request(server.grpc_port, _INFER, self.raw_row, _UNIT)
            return await load_grpc(
                server.grpc_port, request, connections=4, in_flight=64, seconds=self.seconds
            )

        return measure

    async def compare(
        self, below: tuple[Started, Measure], above: tuple[Started, Measure]
    ) -> tuple[list[Load], list[Load]]:
        """Take turns; what both gave in every round, after a round that does not count."""
        found: tuple[list[Load], list[Load]] = ([], [])
        for number in range(self.rounds + 1):
            for kept, (server, measure) in zip(found, (below, above), strict=True):
                load = await measure(server)
                if load.failed:
                    raise SystemExit(f"{load.failed} requests failed; see {server}")
                if number:
                    kept.append(load)
        return found

    def note(self, key: str, figure: float, text: str) -> None:
        """Keep a figure and what it was made of."""
        self.found.note(key, round(figure, 3), text)


class _Opened:
    """A server for the length of an `async with`; starting it does not stop the collector."""

    def __init__(
        self, models: Path, open_in: Callable[[Path], AbstractContextManager[Started]]
    ) -> None:
        self._models, self._open, self._stack = models, open_in, contextlib.ExitStack()

    async def __aenter__(self) -> Started:
        home = self._stack.enter_context(home_of(self._models))
        return await asyncio.to_thread(self._stack.enter_context, self._open(home))

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)


def _ratio(loads: tuple[list[Load], list[Load]], of: Callable[[Load], float]) -> float:
    """The median over the rounds of the second over the first."""
    return statistics.median(of(above) / of(below) for below, above in zip(*loads, strict=True))


def _said(loads: tuple[list[Load], list[Load]], of: Callable[[Load], float], unit: str) -> str:
    below, above = (statistics.median(map(of, side)) for side in loads)
    return f"{above:,.2f} of {below:,.2f} {unit}"


async def over_the_ceiling(bench: Bench) -> None:
    """HTTP JSON against the bare application, and plain BentoML."""
    rate, p50 = (lambda load: load.rate), (lambda load: load.quantile(0.5) * 1e3)
    async with bench.bare("asgi") as ceiling:
        async with bench.serve() as full:
            bench.note("start_s", full.start_s, "process start to ready, eight versions")
            bench.note("gateway_rss_mb", full.memory_mb(), "MB resident, before load")
            loads = await bench.compare((ceiling, bench.http()), (full, bench.http()))
            bench.note("json64_full", _ratio(loads, rate), _said(loads, rate, "requests/s"))
            tail = lambda load: load.quantile(0.99) * 1e3  # noqa: E731
            bench.note("p99_64_full", _ratio(loads, tail), _said(loads, tail, "ms"))
            loads = await bench.compare((ceiling, bench.http(1)), (full, bench.http(1)))
            bench.note("p50_1_strict", _ratio(loads, p50), _said(loads, p50, "ms"))
            async with bench.plain() as plain:
                loads = await bench.compare(
                    (plain, bench.http(path="/infer")), (full, bench.http())
                )
                bench.note("over_plain_bentoml", _ratio(loads, rate), _said(loads, rate, "req/s"))
            bench.note("gateway_rss_mb", full.memory_mb(), "MB resident, after this load")
        async with bench.serve(WEIGHBRIDGE_DURABILITY="bounded") as bounded:
            loads = await bench.compare((ceiling, bench.http(1)), (bounded, bench.http(1)))
            bench.note("p50_1_bounded", _ratio(loads, p50), _said(loads, p50, "ms"))
        async with bench.serve("bench.unrecorded:Gateway") as unrecorded:
            loads = await bench.compare((ceiling, bench.http()), (unrecorded, bench.http()))
            bench.note("json64_noaudit", _ratio(loads, rate), _said(loads, rate, "requests/s"))


async def binary(bench: Bench) -> None:
    """The digits CNN: the same image as JSON and as binary tensors, both ways."""
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 6:9, 8:20] = 255
    head = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1]}
    as_json = json.dumps({"inputs": [head | {"data": image.ravel().tolist()}]}).encode()
    sized = head | {"parameters": {"binary_data_size": image.nbytes}}
    text = {"inputs": [sized], "parameters": {"binary_data_output": True}}
    part = json.dumps(text, separators=(",", ":")).encode()
    length = {"inference-header-content-length": str(len(part))}
    path = "/v2/models/digits/infer"
    async with bench.serve() as full:
        loads = await bench.compare(
            (full, bench.post(path, as_json, {}, 64)),
            (full, bench.post(path, part + image.tobytes(), length, 64)),
        )
    rate = lambda load: load.rate  # noqa: E731
    bench.note("binary_over_json", _ratio(loads, rate), _said(loads, rate, "requests/s"))


async def grpc(bench: Bench) -> None:
    """Both engines against a bare `grpc.aio` server."""
    rate = lambda load: load.rate  # noqa: E731
    async with bench.bare("grpc") as ceiling:
        for engine in ("native", "grpcio"):
            async with bench.serve(WEIGHBRIDGE_GRPC_ENGINE=engine) as full:
                loads = await bench.compare((ceiling, bench.grpc()), (full, bench.grpc()))
            bench.note(f"grpc_{engine}_full", _ratio(loads, rate), _said(loads, rate, "calls/s"))


async def runner(bench: Bench) -> None:
    """Models in services of their own against models in the gateway."""
    rate = lambda load: load.rate  # noqa: E731
    async with bench.serve() as inside, bench.serve(WEIGHBRIDGE_RUNNER="service") as apart:
        loads = await bench.compare((inside, bench.http()), (apart, bench.http()))
    bench.note("runner_over_inprocess", _ratio(loads, rate), _said(loads, rate, "requests/s"))


async def soak(bench: Bench, minutes: float) -> None:
    """Memory under load: at the end over the end of the first minute."""
    if not minutes:
        bench.found.note("rss_growth", None, "not measured")
        return
    bench.seconds = 60
    async with bench.serve() as full:
        sizes = []
        for _ in range(max(2, round(minutes))):
            load = await bench.http()(full)
            sizes.append(full.memory_mb())
            if load.failed:
                raise SystemExit(f"{load.failed} requests failed under load")
    text = f"{sizes[-1]:.0f} MB after {len(sizes)} minutes, {sizes[0]:.0f} after 1"
    bench.note("rss_growth", sizes[-1] / sizes[0], text)


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[int]:
    """An OTLP endpoint that takes everything and keeps nothing; its port."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                place = head.lower().find(b"content-length:")
                await reader.readexactly(int(head[place + 15 :].split(b"\r", 1)[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _infer_message(model: str, inputs: list[dict[str, Any]]) -> bytes:
    request = message("ModelInferRequest")(model_name=model)
    for tensor in inputs:
        dtype = DTYPES[tensor["datatype"]]
        data = [text.encode() for text in tensor["data"]] if dtype.hasobject else tensor["data"]
        request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        request.raw_input_contents.append(format_raw(np.array(data, dtype=dtype)))
    data = request.SerializeToString()
    return bytes(data)


async def run(options: argparse.Namespace) -> Bench:
    """All cases, or those asked for."""
    cases: dict[str, Callable[[Bench], Awaitable[None]]] = {
        "http": over_the_ceiling,
        "binary": binary,
        "grpc": grpc,
        "runner": runner,
    }
    async with collector() as otlp:
        bench = Bench(options.models, seconds=options.seconds, rounds=options.rounds, otlp=otlp)
        for name, case in cases.items():
            if not options.only or name in options.only.split(","):
                await case(bench)
        if not options.only or "soak" in options.only.split(","):
            await soak(bench, options.soak)
    return bench


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--soak", type=float, default=10.0, help="minutes of load; 0 leaves it out")
    parser.add_argument("--only", default="", help="http, binary, grpc, runner, soak")
    home = Path(os.environ.get("WEIGHBRIDGE_HOME", ".weighbridge")).absolute()
    parser.set_defaults(models=home)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - {SERVER_CORE} or {SERVER_CORE})
    uvloop.run(run(parser.parse_args())).found.show()


if __name__ == "__main__":
    main()
