"""Overrides, promotions and roll-backs on a real gateway: durable, found, and in the report."""

import json
from pathlib import Path

import httpx
import server as servers

from audit.reader import LogReader
from audit.record import Event, ModelPromoted, ModelRolledBack, Override
from tests.conftest import link_models
from tests.e2e.conftest import INCOME


def events(home: Path, *kinds: type[Event]) -> list[Event]:
    return [e.event for e in LogReader(home / "log").entries() if isinstance(e.event, kinds)]


def test_traffic_that_moves_is_on_record(trained_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    link_models(trained_home, home)
    folder = tmp_path / "none"
    folder.mkdir()
    settings = {
        "WEIGHBRIDGE_MODELS": "income",
        "WEIGHBRIDGE_EXPLAINER": "false",
        "WEIGHBRIDGE_DEFINITIONS": str(folder),
    }
    with servers.running(home, **settings) as gateway:
        first = events(home, ModelPromoted, ModelRolledBack)
        assert [(e.type, e.version, e.previous_version, e.actor) for e in first] == [
            ("model_promoted", "2", None, "weighbridge")
        ]
        url = f"{gateway.http}/v2/repository/models/income/versions/2"
        assert httpx.post(f"{url}/unload", json={}, timeout=60).status_code == 200
        assert httpx.post(f"{url}/load", json={}, timeout=60).status_code == 200
        moved = events(home, ModelPromoted, ModelRolledBack)[1:]
        assert [(e.type, e.version, e.previous_version, e.actor, e.reason) for e in moved] == [
            ("model_rolled_back", "1", "2", "anonymous", "unload requested"),
            ("model_promoted", "2", "1", "anonymous", "load requested"),
        ]
    with servers.running(home, **settings) as gateway:  # nothing moved: nothing is said again
        assert len(events(home, ModelPromoted, ModelRolledBack)) == 3
        found = gateway.cli("audit", "find", "--model", "income", "--type", "model_rolled_back")
        assert (found.returncode, "model_rolled_back" in found.stdout) == (0, True), found.stderr


def test_an_override_stands_beside_the_decision(trained_home: Path, tmp_path: Path) -> None:
    link_models(trained_home, tmp_path)
    settings = {"WEIGHBRIDGE_MODELS": "income", "WEIGHBRIDGE_EXPLAINER": "false"}
    with servers.running(tmp_path, **settings) as gateway:
        reply = httpx.post(
            f"{gateway.http}/v1/models/income:predict", json={"instances": [INCOME]}, timeout=30
        )
        decision = reply.headers["x-weighbridge-decision"]
        url = f"{gateway.http}/v1/overrides"
        body = {"decision": decision, "label": ">50K", "reason": "papers seen", "actor": "eve"}
        done = httpx.post(url, json=body)
        assert done.status_code == 200, done.text
        (event,) = events(tmp_path, Override)
        assert (event.decision, event.label_after) == (decision, ">50K")
        assert (event.actor, event.reason) == ("anonymous, for eve", "papers seen")
        assert event.label_before == done.json()["label_before"]
        assert event.label_before in ("<=50K", ">50K")
        unknown = body | {"decision": decision[:-4] + "0000"}
        assert httpx.post(url, json=unknown).status_code == 404
        for wrong in (
            {},
            body | {"label": ""},
            body | {"x": "y"},
            body | {"decision": "x"},
            {k: v for k, v in body.items() if k != "actor"},
        ):
            assert httpx.post(url, json=wrong).status_code == 400
        two = {"instances": [INCOME, INCOME]}
        many = httpx.post(f"{gateway.http}/v1/models/income:predict", json=two, timeout=30)
        rows = body | {"decision": many.headers["x-weighbridge-decision"]}
        assert httpx.post(url, json=rows).status_code == 400
        words = ("audit", "override", decision, "--label", "<=50K", "--reason", "looked again")
        second = gateway.cli(*words, "--actor", "mallory")
        assert second.returncode == 0, second.stderr
        found = gateway.cli("audit", "find", "--decision", decision, "--json")
        kinds = [json.loads(line)["type"] for line in found.stdout.splitlines()]
        assert kinds.count("override") == 2
    alone = servers.stopped(tmp_path, **settings)
    third = alone.cli(*words)
    assert third.returncode == 0, third.stderr
    assert len(events(tmp_path, Override)) == 3
    report = alone.cli("report", "--out", str(tmp_path / "out"))
    assert report.returncode == 0, report.stderr
    assert "papers seen" in next((tmp_path / "out").rglob("*.html")).read_text()
    assert alone.cli("audit", "verify").returncode == 0
