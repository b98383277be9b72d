"""Retention on a real gateway: pruned under load, by command and by itself; then proven."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
import server as servers

from audit.reader import LogReader
from tests.conftest import link_models

SETTINGS = {
    "WEIGHBRIDGE_MODELS": "income",
    "WEIGHBRIDGE_PAYLOADS": "all",
    "WEIGHBRIDGE_EXPLAINER": "false",
}


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    link_models(trained_home, tmp_path)
    return tmp_path


def predict(client: httpx.Client, gateway: servers.Server, unit: str) -> tuple[str, int]:
    """Decision and leaf."""
    body = orjson.loads((servers.ROOT / "services" / "example.json").read_bytes())
    reply = client.post(
        f"{gateway.http}/v2/models/income/infer",
        json=body,
        headers={"x-weighbridge-unit": unit},
        timeout=30,
    )
    reply.raise_for_status()
    leaf = reply.headers["x-weighbridge-receipt"].rpartition("#")[2]
    return reply.headers["x-weighbridge-decision"], int(leaf)


@contextlib.contextmanager
def load(gateway: servers.Server, answered: list[tuple[str, int]]) -> Iterator[None]:
    """Callers at work; what they were answered is in `answered`."""
    stop, failed = threading.Event(), list[BaseException]()

    def call() -> None:
        try:
            with httpx.Client() as client:
                while not stop.is_set():
                    answered.append(predict(client, gateway, f"unit {len(answered)}"))
        except BaseException as error:  # noqa: BLE001  the test fails with it below
            failed.append(error)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert not failed, failed


def prune(gateway: servers.Server, *words: str, within_s: float = 60) -> dict[str, int]:
    """Prune as soon as it is allowed."""
    deadline = time.monotonic() + within_s
    while True:
        done = gateway.cli("audit", "prune", "--reason", "test", "--json", *words)
        if done.returncode == 0:
            found: dict[str, int] = orjson.loads(done.stdout)
            return found
        assert "must be kept for" in done.stderr or "covers" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr


def test_it_is_pruned_beside_a_gateway_under_load_and_still_proves_itself(home) -> None:
    answered: list[tuple[str, int]] = []
    settings = SETTINGS | {"WEIGHBRIDGE_RETENTION": "2s.."}
    with servers.running(home, **settings) as gateway:
        with httpx.Client() as client:
            old, _ = predict(client, gateway, "the first")
        with load(gateway, answered):
            dry = gateway.cli("audit", "prune", "--dry-run")
            assert (dry.returncode, "nothing would go" in dry.stdout) == (0, True), dry.stderr
            while len(answered) < 400:
                time.sleep(0.01)
            first = gateway.cli("audit", "prune", "--roll", "--reason", "too early")
            assert (first.returncode, "must be kept" in first.stderr) == (2, True), first.stderr
            done = prune(gateway)
            after = len(answered)
            beside = gateway.cli("audit", "fsck", "--json")
            assert beside.returncode == 0, beside.stdout
            verified = gateway.cli("audit", "verify", "--complete")
            assert verified.returncode == 0, verified.stdout
            while len(answered) < after + 50:
                time.sleep(0.01)
        assert done["first_leaf"] >= 256
        page = home / "metrics.txt"
        page.write_text(httpx.get(f"{gateway.http}/metrics").text)
        counted = gateway.cli("audit", "verify", "--complete", "--metrics", str(page))
        assert counted.returncode == 0, counted.stdout
        gone = gateway.cli("audit", "show", old)
        assert (gone.returncode, "were pruned, as leaf" in gone.stderr) == (2, True), gone.stderr
        kept = next(one for one, leaf in answered if leaf >= done["first_leaf"])
        assert gateway.cli("audit", "prove", kept, "--out", str(home / "p")).returncode == 0
        pack = gateway.cli("audit", "export", "-o", str(home / "e.zip"))
        assert "the log was pruned before leaf" in pack.stdout, pack.stdout + pack.stderr

    stopped = servers.stopped(home, **settings)
    whole = orjson.loads(stopped.cli("audit", "verify", "--complete", "--json").stdout)
    assert (whole["ok"], whole["problems"]) == (True, []), whole["problems"]
    (one,) = whole["instances"].values()
    assert one["ended"]
    assert one["counted"]["seq"] == one["counted"]["answered"] == len(answered) + 1
    held = {entry.event.id: entry.index for entry in LogReader(home / "log").entries()}
    for decision, leaf in answered:
        if leaf >= done["first_leaf"]:
            assert held[decision] == leaf
    # Without a gateway, and then with one again.
    again = prune(stopped, "--roll")
    assert again["first_leaf"] > done["first_leaf"]
    with servers.running(home, **settings) as gateway:
        with httpx.Client() as client:
            predict(client, gateway, "the last")
        assert gateway.cli("audit", "fsck").returncode == 0
        assert gateway.cli("audit", "verify", "--complete").returncode == 0


def test_the_gateway_keeps_to_the_ceilings_by_itself(home) -> None:
    settings = SETTINGS | {
        "WEIGHBRIDGE_RETENTION": "1s..3s",
        "WEIGHBRIDGE_RETENTION_INTERVAL_S": "0.5",
    }
    with servers.running(home, **settings) as gateway, httpx.Client() as client:
        for number in range(300):
            predict(client, gateway, f"unit {number}")
        deadline = time.monotonic() + 60
        while "of the audit log, which begins at leaf" not in gateway.output():
            assert time.monotonic() < deadline, gateway.output()
            predict(client, gateway, "later")
        assert LogReader(home / "log").first() >= 256
        assert gateway.cli("audit", "verify").returncode == 0
