"""The demo: held-out rows of all four data sets through a running gateway, then the evidence.

Rule: third-party clients only (tritonclient over HTTP and gRPC, httpx): what works here works for a
user. Every figure that is printed was read from the server's answers or from the log.
Boundary: needs the extra `dev`; starts a server when none answers, and stops only that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from rich.console import Console
from rich.progress import Progress

from audit.reader import LogReader
from audit.record import Decision, ExplanationRecord, ExplanationSkipped, FairnessWindow
from audit.verify import verify_log
from runners.reference import TASKS, heldout

from .masterkey import load_keyring
from .reporting import write_report
from .settings import Settings

__all__ = ["run"]

_START_S = 90.0
_EXPLAIN_S = 60.0
_DATATYPES = {"|u1": "UINT8", "<i8": "INT64", "<f4": "FP32", "|O": "BYTES"}


def run(settings: Settings, *, rows: int, console: Console) -> int:
    """Replay, report, verify; returns the exit status (0 when everything held).

    Raises:
        ValueError: the settings ask for credentials or TLS, which the demo does not speak.
    """
    if settings.auth != "none" or settings.tls_cert:
        raise ValueError(
            "the demo calls without credentials and TLS: run it on a home folder of its own, "
            "without WEIGHBRIDGE_AUTH and WEIGHBRIDGE_TLS_CERT"
        )
    with _server(settings, console) as base:
        outcomes: list[dict[str, Any]] = []
        with Progress(console=console, transient=True) as progress:
            for model in TASKS:
                bar = progress.add_task(f"{model}: {rows} rows", total=rows)
                for outcome in _replay(settings, model, rows):
                    outcomes.append(outcome)
                    progress.advance(bar)
        told = httpx.post(f"{base}/v1/outcomes", json={"outcomes": outcomes}, timeout=60)
        told.raise_for_status()
        console.print(
            f"{len(outcomes)} decisions made, {told.json()['recorded']} outcomes reported"
        )
        _explain_one(base, settings, console)
        _await_explanations(settings, console)
        written = write_report(settings, since="", until="", out=None, examples=2)
    trusted = str(load_keyring(settings).verifier_key(settings.origin))
    found = verify_log(settings.log_dir, trusted)
    console.print(found.text(), soft_wrap=True, markup=False, highlight=False)
    console.print("\nLook at:")
    for path in written:
        console.print(f"  {path}", soft_wrap=True)
    console.print("  weighbridge audit verify", "  weighbridge audit show DECISION", sep="\n")
    return 0 if found.ok else 1


@contextlib.contextmanager
def _server(settings: Settings, console: Console) -> Iterator[str]:
    """The address of a server that answers; one is started if none does, and stopped at the end."""
    base = f"http://{settings.host}:{settings.http_port}"
    if _ready(base):
        console.print(f"using the server at {base}")
        yield base
        return
    console.print(f"starting a server at {base}")
    log = settings.home / "demo-server.log"
    command = [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)  # noqa: S603  our own interpreter
    try:
        deadline = time.monotonic() + _START_S
        while not _ready(base):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise OSError(f"the server did not start: {' '.join(said)} (all of it: {log})")
            time.sleep(0.25)
        yield base
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(40)


def _ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/v2/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _replay(settings: Settings, model: str, rows: int) -> Iterator[dict[str, Any]]:
    """Send held-out rows one by one, alternating HTTP and gRPC; yield what became of each."""
    batch, labels = heldout(model, settings.data_dir)
    http = httpclient.InferenceServerClient(f"{settings.host}:{settings.http_port}")
    grpc = grpcclient.InferenceServerClient(f"{settings.host}:{settings.grpc_port}")
    with contextlib.closing(http), contextlib.closing(grpc):
        for place, client in zip(range(min(rows, len(labels))), cycle((http, grpc))):
            row = {name: data[place : place + 1] for name, data in batch.items()}
            unit = _unit(model, row, place)
            library = httpclient if client is http else grpcclient
            result = client.infer(
                model, _inputs(library, row), headers={"x-weighbridge-unit": unit}
            )
            answered = int(result.as_numpy("label").reshape(-1)[0])
            yield _outcome(model, result, answered, int(labels[place]))


def _unit(model: str, row: Mapping[str, np.ndarray[Any, Any]], place: int) -> str:
    """Who asks: the user of a rating, otherwise one of 300 visitors."""
    if model == "recommend":
        return f"user-{row['user_id'].reshape(-1)[0]}"
    return f"visitor-{place % 300}"


def _inputs(library: Any, row: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    found = []
    for name, data in row.items():
        tensor = library.InferInput(name, list(data.shape), _DATATYPES[data.dtype.str])
        tensor.set_data_from_numpy(data)
        found.append(tensor)
    return found


def _outcome(model: str, result: Any, answered: int, truth: int) -> dict[str, Any]:
    """What became of a decision: was it right; and for a recommendation, did the person like it."""
    decision = _decision(result.get_response())
    metric, value = ("liked", truth) if model == "recommend" else ("correct", answered == truth)
    return {
        "event_id": f"demo-{decision}",
        "decision": decision,
        "metric": metric,
        "value": int(value),
    }


def _decision(response: Any) -> str:
    """The decision id among the parameters of a reply: JSON over HTTP, a message over gRPC."""
    if isinstance(response, dict):
        return str(response["parameters"]["weighbridge_decision"])
    return str(response.parameters["weighbridge_decision"].string_param)


def _explain_one(base: str, settings: Settings, console: Console) -> None:
    """Ask for one explanation at once, over V1, as KServe's clients do."""
    batch, _ = heldout("income", settings.data_dir)
    instance = {
        name: data[0, 0].decode() if isinstance(data[0, 0], bytes) else data[0, 0].item()
        for name, data in batch.items()
    }
    reply = httpx.post(
        f"{base}/v1/models/income:explain", json={"instances": [instance]}, timeout=60
    )
    if reply.status_code != 200:
        console.print(f"no explanation on demand: {reply.json()['error']}")
        return
    found = reply.json()["explanation"]
    strongest = [found["features"][place] for place in found["reasons"][:3]]
    reasons = "; ".join(f"{item['condition']} ({item['weight']})" for item in strongest)
    console.print(f"income said {found['target_label']} because: {reasons}", markup=False)


def _await_explanations(settings: Settings, console: Console) -> None:
    """Wait until every selected decision is settled and fairness is counted, a minute at most."""
    deadline = time.monotonic() + _EXPLAIN_S
    reader = LogReader(settings.log_dir)
    selected: set[str] = set()
    settled: set[str] = set()
    counted, position = 0, reader.first()
    with console.status("waiting for explanations and fairness windows"):
        while time.monotonic() < deadline:
            end = reader.size()
            for entry in reader.entries(position, end):
                if isinstance(entry.event, Decision) and entry.event.sampling["selected"]:
                    selected.add(entry.event.id)
                elif isinstance(entry.event, ExplanationRecord | ExplanationSkipped):
                    settled.add(entry.event.decision)
                elif isinstance(entry.event, FairnessWindow):
                    counted += 1
            position = end
            if selected <= settled and counted:
                break
            time.sleep(0.25)
    pending = len(selected - settled)
    console.print(
        f"{len(selected)} decisions selected for explanation, {len(selected & settled)} settled, "
        f"{pending} pending; {counted} fairness windows written"
    )
