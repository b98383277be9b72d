"""Searching and asking the log of a running gateway, by whom and for what on its record."""

import json
import time
from pathlib import Path

import httpx
import psutil

from audit.reader import LogReader
from audit.record import Access


def test_a_unit_is_found_and_asked_for_while_the_gateway_runs(gateway) -> None:
    unit = "alice of the query test"
    reply = httpx.post(
        f"{gateway.http}/v1/models/sentiment:predict",
        json={"instances": ["a fine film"]},
        headers={"x-weighbridge-unit": unit},
    )
    decision = reply.headers["x-weighbridge-decision"]
    found = gateway.cli(
        "audit", "find", "--unit", unit, "--json", "--actor", "rev", "--reason", "r"
    )
    assert found.returncode == 0, found.stderr
    (record,) = [json.loads(line) for line in found.stdout.splitlines()]
    assert record["id"] == decision
    trace = gateway.cli("audit", "find", "--trace", record["trace_id"], "--json")
    assert decision in trace.stdout

    sql = f"select model, arm_served, seq from decision where id = '{decision}'"
    deadline = time.monotonic() + 20
    rows = ""
    while not rows and time.monotonic() < deadline:  # the leaf is signed within about a second
        done = gateway.cli("audit", "query", sql, "--json", "--actor", "rev")
        assert done.returncode == 0, done.stderr
        rows = done.stdout
    assert json.loads(rows)["seq"] == record["seq"]

    entries = LogReader(gateway.home / "log").entries()
    accesses = [entry.event for entry in entries if isinstance(entry.event, Access)]
    of_rev = [event for event in accesses if event.actor == "rev"]
    assert of_rev[0].action == "find"
    assert of_rev[0].reason == "r"
    assert of_rev[0].target == f"unit_ref={record['unit_ref']}"
    assert of_rev[-1].target == sql
    assert unit not in "".join(f"{event.target} {event.reason}" for event in accesses)


def test_the_gateway_loads_no_column_engine(gateway) -> None:
    process = psutil.Process(gateway.process.pid)
    for one in [process, *process.children(recursive=True)]:
        maps = Path(f"/proc/{one.pid}/maps").read_text(encoding="utf-8")
        assert "python" in maps
        assert "duckdb" not in maps
        # scikit-learn, in the explainer, imports pandas where it is installed, and that pyarrow.
        assert "Explainer" in one.cmdline() or "arrow" not in maps, one.cmdline()
