"""KServe's `InferenceRESTClient` and `InferenceGRPCClient`, unmodified, in their own process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
CALLS = Path(__file__).parent / "clients" / "kserve_calls.py"
CASES = ["digits-True", "digits-False", "sentiment-True", "sentiment-False"]


@pytest.fixture(scope="module")
def said(gateway) -> dict[str, Any]:
    """What the clients were answered."""
    assert PYTHON.exists(), "`make install` builds the environment of KServe's client"
    done = subprocess.run(
        [str(PYTHON), str(CALLS), gateway.http, gateway.grpc],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["rest", "grpc"])
def test_health_is_understood(said, way) -> None:
    assert said[way]["live"] is True
    assert said[way]["ready"] is True
    assert said[way]["model"] is True
    assert said[way]["unknown"] is False


@pytest.mark.parametrize("way", ["rest", "grpc"])
@pytest.mark.parametrize("case", CASES)
def test_decisions_are_understood(said, way, case) -> None:
    answer = said[way][case]
    rows = 1 if case.startswith("digits") else 2
    assert answer["id"] == "k-1"
    assert len(answer["labels"]) == rows
    assert answer["sums"] == pytest.approx([1.0] * rows, abs=1e-3)


def test_every_way_gives_the_same_answer(said) -> None:
    for name in ("digits", "sentiment"):
        answers = [said[way][f"{name}-{b}"] for way in ("rest", "grpc") for b in (True, False)]
        assert len({json.dumps(answer["labels"]) for answer in answers}) == 1
        versions = {answer["version"] for answer in answers}
        assert len(versions - {None}) == 1, "alice has one arm; the REST client reads no version"


def test_refusals_are_understood(said) -> None:
    assert "model 'nothing' is unknown" in said["rest"]["refusal"]
    assert "404" in said["rest"]["refusal"]
    code, text = said["grpc"]["refusal"]
    assert code == "NOT_FOUND"
    assert "model 'nothing' is unknown" in text


def test_the_v1_client_is_answered(said) -> None:
    rest = said["rest"]
    assert rest["v1_live"] is True
    assert rest["v1_model"] is True
    assert rest["v1"]["predictions"][0]["label"] == rest["sentiment-True"]["labels"][0]
    assert rest["v1_explain"]["explanation"]["explainer"] == "lime-text"
    assert rest["arm"] in ("control", "treatment")
