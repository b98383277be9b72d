"""From a decision to evidence that a third process verifies: records, outcomes, reports, proofs."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import server as servers

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision, ExplanationRecord, ExplanationSkipped, FairnessWindow, Outcome

VERIFIER = """
import sys
from pathlib import Path
from audit.prove import verify_proof
from audit.record import decode
proof, entry, key = sys.argv[1:4]
data = Path(entry).read_bytes()
found = verify_proof(Path(proof).read_text(), data, key)
print(found.index, decode(data).id)
assert "bentoml" not in sys.modules and "numpy" not in sys.modules
"""


def predict(gateway: servers.Server, model: str, instance: Any, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{gateway.http}/v1/models/{model}:predict",
        json={"instances": [instance]},
        headers=headers,
        timeout=30,
    )


def events(gateway: servers.Server, kind: type) -> list[Any]:
    reader = LogReader(gateway.home / "log")
    return [entry.event for entry in reader.entries() if isinstance(entry.event, kind)]


def test_a_receipt_is_proved_and_verified_by_a_process_that_knows_no_server(
    gateway, tmp_path: Path
) -> None:
    reply = predict(gateway, "sentiment", "a fine film")
    decision = reply.headers["x-weighbridge-decision"]
    leaf = int(reply.headers["x-weighbridge-receipt"].rpartition("#")[2])
    proof, entry = tmp_path / "proof.txt", tmp_path / "entry.json"
    wait_for(lambda: gateway.cli("audit", "prove", decision, "--out", str(proof)).returncode == 0)
    entry.write_bytes(LogReader(gateway.home / "log").entry(leaf).data)
    key = gateway.cli("audit", "key").stdout.strip()
    done = subprocess.run(
        [sys.executable, "-c", VERIFIER, str(proof), str(entry), key],
        cwd=servers.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(leaf), decision]

    entry.write_bytes(entry.read_bytes().replace(b'"label":', b'"lable":'))
    forged = subprocess.run(
        [sys.executable, "-c", VERIFIER, str(proof), str(entry), key],
        cwd=servers.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert forged.returncode != 0


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)


def test_outcomes_are_recorded_once_and_conflicts_are_refused(gateway) -> None:
    decision = predict(gateway, "sentiment", "fine").headers["x-weighbridge-decision"]
    outcome = {"event_id": f"o-{decision}", "decision": decision, "metric": "correct", "value": 1}
    url = f"{gateway.http}/v1/outcomes"
    first = httpx.post(url, json={"outcomes": [outcome]}).json()
    again = httpx.post(url, json=outcome).json()
    assert first["recorded"] == 1
    assert again == {"recorded": 0, "repeated": 1, "leaves": first["leaves"]}
    conflict = httpx.post(url, json=outcome | {"value": 0})
    assert conflict.status_code == 409
    found = [o for o in events(gateway, Outcome) if o.event_id == outcome["event_id"]]
    assert len(found) == 1
    for wrong in ({}, {"outcomes": []}, outcome | {"extra": 1}, outcome | {"value": "high"}):
        assert httpx.post(url, json=wrong).status_code == 400


@pytest.mark.parametrize("model", ["digits", "sentiment", "income", "recommend"])
def test_every_kind_is_explained_at_once_and_the_explanation_is_on_record(
    gateway, model, image, income
) -> None:
    instance = {
        "digits": image[0].tolist(),
        "sentiment": "这部电影很好看 but too long",
        "income": income,
        "recommend": {
            "user_id": 1,
            "item_id": 50,
            "age": 24,
            "gender": "M",
            "occupation": "technician",
            "year": 1977,
            "genres": "Action|Sci-Fi",
        },
    }[model]
    reply = httpx.post(
        f"{gateway.http}/v1/models/{model}:explain", json={"instances": [instance]}, timeout=60
    )
    assert reply.status_code == 200, reply.text
    body = reply.json()["explanation"]
    assert 0 <= float(body["fit_r2"]) <= 1
    assert len(body["features"]) >= 4
    decision = reply.json()["decision"]
    wait_for(lambda: decision in {e.decision for e in events(gateway, ExplanationRecord)}, 5)
    keyring = Keyring.load(gateway.home / "keys")
    kept = LogReader(gateway.home / "log").payload(keyring, decision, "explanation")
    assert kept is not None
    assert json.loads(kept) == body
    if model == "sentiment":
        assert any("电" in feature["value"] for feature in body["features"])


def test_sampled_decisions_are_explained_or_skipped_and_fairness_counts_all(home, income) -> None:
    with servers.running(
        home,
        WEIGHBRIDGE_SAMPLE_BASE="1",
        WEIGHBRIDGE_EXPLAIN_SAMPLES="100",
        WEIGHBRIDGE_FAIRNESS_WINDOW_S="2",
        WEIGHBRIDGE_FAIRNESS_MINIMUM="10",
    ) as gateway:
        for number in range(40):
            row = income | {
                "sex": "Female" if number % 2 else "Male",
                "education_num": 4 + number % 12,
                "race": "White" if number % 20 else "Black",
            }
            predict(gateway, "income", row, **{"x-weighbridge-unit": f"person-number-{number}"})
        predict(gateway, "sentiment", "  ")
        selected = {e.id for e in events(gateway, Decision) if e.sampling["selected"]}
        assert len(selected) == 41

        wait_for(lambda: explained(gateway) == selected, 60)
        skipped = events(gateway, ExplanationSkipped)
        assert [event.reason for event in skipped] == ["empty_input"]
        wait_for(lambda: count_rows(gateway, "sex") == 40, 20)
    windows = [w for w in events(gateway, FairnessWindow) if w.attribute == "sex"]
    assert {window.arm for window in windows} == {"control", "treatment"}
    by_hand: dict[tuple[str, str], int] = {}
    for event in events(gateway, Decision):
        if event.model == "income":
            by_hand[event.arm_served, event.label] = (
                by_hand.get((event.arm_served, event.label), 0) + 1
            )
    for arm in ("control", "treatment"):
        positive = sum(g["positive"] for w in windows if w.arm == arm for g in w.groups)
        assert positive == by_hand.get((arm, ">50K"), 0)
    races = [g for w in events(gateway, FairnessWindow) if w.attribute == "race" for g in w.groups]
    assert sum(g["n"] for g in races if g["group"] in ("White", "other")) == 40
    assert {g["verdict"] for g in races if g["group"] != "White"} <= {"insufficient_evidence"}
    assert "Black" not in {g["group"] for g in races}  # two people only: counted, not named
    leaked = b"".join(p.read_bytes() for p in (home / "log").rglob("*") if p.is_file())
    for secret in (b"Never-married", b"Adm-clerical", b"person-number-39"):
        assert secret not in leaked
    records = LogReader(home / "log").entries()
    assert not any(b"Female" in e.data for e in records if isinstance(e.event, Decision))


def test_over_restarts_each_decision_is_explained_and_counted_once(home, income) -> None:
    settings = {
        "WEIGHBRIDGE_MODELS": "income",
        "WEIGHBRIDGE_SAMPLE_BASE": "1",
        "WEIGHBRIDGE_EXPLAIN_SAMPLES": "100",
        "WEIGHBRIDGE_FAIRNESS_WINDOW_S": "2",
    }
    for life in range(3):  # ended by a signal, by kill -9 in the middle of its work, by a signal
        with servers.running(home, **settings) as gateway:
            for number in range(12):
                row = income | {"sex": "Female" if number % 2 else "Male"}
                unit = f"person {life} {number}"
                predict(gateway, "income", row, **{"x-weighbridge-unit": unit})
            if life == 1:
                gateway.stop(kill=True)
                continue
            selected = {event.id for event in events(gateway, Decision)}
            wait_for(lambda: selected <= explained(gateway), 60)  # noqa: B023  called here
            wait_for(lambda: count_rows(gateway, "sex") == len(selected), 20)  # noqa: B023
    done = [event.decision for event in events(gateway, ExplanationRecord)]
    assert len(done) == len(set(done)) == 36
    assert count_rows(gateway, "sex") == 36
    assert (home / "log" / "followed").stat().st_mode & 0o777 == 0o600
    assert gateway.cli("audit", "verify").returncode == 0
    assert gateway.cli("audit", "fsck").returncode == 0


def explained(gateway: servers.Server) -> set[str]:
    done = events(gateway, ExplanationRecord) + events(gateway, ExplanationSkipped)
    return {event.decision for event in done}


def count_rows(gateway: servers.Server, attribute: str) -> int:
    windows = [w for w in events(gateway, FairnessWindow) if w.attribute == attribute]
    return sum(group["n"] for window in windows for group in window.groups)


async def load(gateway: servers.Server, seconds: float) -> list[str]:
    """Keep eight clients busy; the ids of every answer that was acknowledged."""
    acknowledged: list[str] = []

    async def client() -> None:
        async with httpx.AsyncClient(timeout=5) as http:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                try:
                    reply = await http.post(
                        f"{gateway.http}/v1/models/sentiment:predict", json={"instances": ["x"]}
                    )
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                    continue
                if reply.status_code == 200:
                    acknowledged.append(reply.headers["x-weighbridge-decision"])

    await asyncio.gather(*(client() for _ in range(8)))
    return acknowledged


async def test_killing_the_gateway_under_load_loses_no_acknowledged_record(home) -> None:
    rng = np.random.default_rng(7)
    acknowledged: list[str] = []
    for _ in range(3):
        gateway = await asyncio.to_thread(
            servers.start,
            home,
            WEIGHBRIDGE_MODELS="sentiment",
            WEIGHBRIDGE_EXPLAINER="false",
        )
        loading = asyncio.create_task(load(gateway, 2.0))
        await asyncio.sleep(float(rng.uniform(0.5, 1.5)))
        await asyncio.to_thread(gateway.stop, kill=True)
        acknowledged += await loading
    reader = LogReader(home / "log")
    recorded = [e.event.id for e in reader.entries() if isinstance(e.event, Decision)]
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(recorded), "an acknowledged decision is missing"
    assert len(recorded) == len(set(recorded)), "a decision stands twice"
    with servers.running(
        home, WEIGHBRIDGE_MODELS="sentiment", WEIGHBRIDGE_EXPLAINER="false"
    ) as gateway:
        verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_one_changed_byte_of_the_record_is_found_and_named(home) -> None:
    with servers.running(
        home, WEIGHBRIDGE_MODELS="sentiment", WEIGHBRIDGE_EXPLAINER="false"
    ) as gateway:
        for _ in range(300):
            predict(gateway, "sentiment", "fine")
    assert gateway.cli("audit", "verify").returncode == 0
    rng = np.random.default_rng(11)
    files = [p for p in (home / "log").rglob("*") if p.is_file() and p.stat().st_size]
    files = [p for p in files if ".sqlite" not in p.name and p.name != "lock"]
    assert len(files) >= 5
    for path in files:
        data = path.read_bytes()
        place = int(rng.integers(len(data)))
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        verified = gateway.cli("audit", "verify")
        assert verified.returncode == 1, f"{path.name} at {place} went unnoticed"
        assert path.name in verified.stdout, verified.stdout
        path.write_bytes(data)
    assert gateway.cli("audit", "verify").returncode == 0
