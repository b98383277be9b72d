"""The OpenAPI document is valid, its examples are answered, and a fuzzer made of it finds nothing.

The fuzzer is schemathesis, run as a program of its own against a gateway of its own. Its checks: no
status but the documented ones, no server error but 501, 503 and 504, JSON errors of exactly
`{"error": text}` (a `detail` would break the schema), replies as their schemas say.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import server as servers
from openapi_spec_validator import validate

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2XX", "4XX", 501, 503, 504]
"""


@pytest.fixture(scope="module")
def fuzzed(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway that may be unloaded by whoever asks."""
    home = tmp_path_factory.mktemp("fuzzed")
    (home / "bentoml").symlink_to(trained_home / "bentoml")
    with servers.running(home, WEIGHBRIDGE_EXPLAINER="false") as started:
        yield started


@pytest.fixture(scope="module")
def document(fuzzed) -> dict[str, Any]:
    return httpx.get(f"{fuzzed.http}/v2/openapi.json").json()


def test_the_document_is_valid_openapi_3_1(document) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] != "0"
    validate(document)


def test_every_example_is_answered(fuzzed, document) -> None:
    answered = 0
    for path, operations in document["paths"].items():
        if "explain" in path or "post" not in operations:
            continue
        content = operations["post"].get("requestBody", {"content": {}})["content"]
        examples = content.get("application/json", {}).get("examples", {})
        for name, example in examples.items():
            for version in ("1", "2"):
                url = path.replace("{model}", name).replace("{version}", version)
                reply = httpx.post(fuzzed.http + url, json=example["value"])
                assert reply.status_code == 200, (url, reply.text)
                answered += 1
    assert answered >= 20, "four models, four paths, less those with too large an input"


def fuzz(server: servers.Server, folder: Path, *words: str) -> str:
    """Run the fuzzer; returns what it said."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG, encoding="utf-8")
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis as st; st()"]
    command = [
        *(*program, "--config-file", str(config), "run", f"{server.http}/v2/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--seed", "1", "--continue-on-failure", "--no-color", "--request-timeout", "20", *words),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_the_fuzzer_finds_nothing(fuzzed, tmp_path) -> None:
    said = fuzz(fuzzed, tmp_path, "--max-examples", "15", "--exclude-tag", "repository")
    assert "passed" in said
    assert "Traceback" not in fuzzed.output()
    counted = httpx.get(f"{fuzzed.http}/v2/models/stats").json()["model_stats"]
    assert sum(one["inference_stats"]["success"]["count"] for one in counted) >= 20, (
        "some of what was sent came to a decision"
    )


def test_the_fuzzer_finds_nothing_while_models_come_and_go(fuzzed, tmp_path) -> None:
    fuzz(fuzzed, tmp_path, "--max-examples", "6", "--include-tag", "repository")
    fuzz(fuzzed, tmp_path, "--max-examples", "4", "--include-tag", "decisions")
    assert "Traceback" not in fuzzed.output()
    for name in ("digits", "sentiment", "income", "recommend"):
        loaded = httpx.post(f"{fuzzed.http}/v2/repository/models/{name}/load", timeout=30)
        assert (loaded.status_code, loaded.json()) == (200, {})


def test_the_log_of_a_fuzzed_gateway_verifies(fuzzed) -> None:
    verified = fuzzed.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(httpx.get(f"{fuzzed.http}/v2/health/ready").text)["ready"] is True
