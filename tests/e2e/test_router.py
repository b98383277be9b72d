"""Experiments on the wire: sticky, deterministic, recorded, by-passable, reloadable."""

import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import server as servers
import yaml

from experiments.assign import assign
from experiments.plan import load

ROOT = Path(__file__).resolve().parents[2]


def predict(server, model: str, instance: object, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.http}/v1/models/{model}:predict", json={"instances": [instance]}, headers=headers
    )


def test_a_unit_keeps_its_arm_and_the_arm_is_the_one_anyone_can_compute(gateway) -> None:
    definition = load(ROOT / "experiments" / "definitions" / "sentiment.yaml")
    arms = Counter()
    for number in range(40):
        unit = f"user-{number}"
        replies = [
            predict(gateway, "sentiment", "fine", **{"x-weighbridge-unit": unit}) for _ in range(2)
        ]
        expected = assign(definition, unit)
        for reply in replies:
            assert reply.headers["x-weighbridge-arm"] == expected.arm
            assert reply.headers["x-weighbridge-model-version"] == expected.model_version
            assert reply.headers["x-weighbridge-experiment"] == definition.name
        arms[expected.arm] += 1
    assert set(arms) == {"control", "treatment"}


def test_a_named_version_by_passes_the_experiment_and_the_record_says_so(gateway) -> None:
    for version in ("1", "2"):
        reply = httpx.post(
            f"{gateway.http}/v1/models/sentiment/versions/{version}:predict",
            json={"instances": ["fine"]},
        )
        assert reply.headers["x-weighbridge-model-version"] == version
        assert "x-weighbridge-arm" not in reply.headers
        shown = gateway.cli("audit", "show", reply.headers["x-weighbridge-decision"])
        record = json.loads(shown.stdout)
        assert record["reason"] == "version_named"
        assert record["experiment"] is None


def test_the_record_holds_what_the_reply_said(gateway) -> None:
    reply = predict(gateway, "sentiment", "a fine film", **{"x-weighbridge-unit": "carol"})
    record = json.loads(
        gateway.cli("audit", "show", reply.headers["x-weighbridge-decision"]).stdout
    )
    assert record["arm_served"] == reply.headers["x-weighbridge-arm"]
    assert record["trace_id"] == reply.headers["traceparent"].split("-")[1]
    assert record["unit_source"] == "header"
    assert f"#{record['leaf']}" in reply.headers["x-weighbridge-receipt"]
    text = json.dumps(record)
    assert "carol" not in text
    assert "film" not in text


def test_a_forced_arm_is_refused_unless_the_operator_allows_it(gateway) -> None:
    reply = predict(gateway, "sentiment", "fine", **{"x-weighbridge-arm": "treatment"})
    assert reply.status_code == 403
    assert "not allowed" in reply.json()["error"]


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    folder = tmp_path / "definitions"
    folder.mkdir()
    source = yaml.safe_load((ROOT / "experiments" / "definitions" / "sentiment.yaml").read_text())
    (folder / "sentiment.yaml").write_text(yaml.safe_dump(source, sort_keys=False))
    return folder


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def test_definitions_reload_without_a_restart_and_a_broken_file_changes_nothing(
    home, definitions
) -> None:
    with servers.running(
        home,
        WEIGHBRIDGE_DEFINITIONS=str(definitions),
        WEIGHBRIDGE_MODELS="sentiment",
        WEIGHBRIDGE_EXPLAINER="false",
    ) as gateway:
        path = definitions / "sentiment.yaml"
        before = httpx.get(f"{gateway.http}/v1/experiments").json()["experiments"][0]
        broken = path.read_text().replace("weight: 50", "wieght: 50", 1)
        path.write_text(broken)

        def refused() -> bool:
            return bool(httpx.get(f"{gateway.http}/v1/experiments").json()["last_error"])

        wait_for(refused)
        state = httpx.get(f"{gateway.http}/v1/experiments").json()
        assert state["experiments"] == [before]
        for word in ("sentiment.yaml", "wieght", "weight"):
            assert word in state["last_error"]
        asked = httpx.post(f"{gateway.http}/v1/experiments/reload")
        assert asked.status_code == 400
        assert "nothing was changed" in asked.json()["error"]

        changed = yaml.safe_load(broken.replace("wieght", "weight"))
        changed["arms"][0]["weight"], changed["arms"][1]["weight"] = 0, 100
        changed["epoch"] += 1
        path.write_text(yaml.safe_dump(changed, sort_keys=False))

        def in_force() -> bool:
            found = httpx.get(f"{gateway.http}/v1/experiments").json()
            return bool(found["experiments"][0]["version"] != before["version"])

        wait_for(in_force)
        arms = {
            predict(gateway, "sentiment", "x", **{"x-weighbridge-unit": f"u{n}"}).headers[
                "x-weighbridge-arm"
            ]
            for n in range(20)
        }
        assert arms == {"treatment"}
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "2 assignment_config" in verified.stdout
