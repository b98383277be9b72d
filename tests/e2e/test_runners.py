"""Models in runner services of their own: the same answers, and a dead runner hurts nobody else."""

import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import server as servers


def ask(gateway: servers.Server, model: str, instance: object, version: str = "1"):
    url = f"{gateway.http}/v1/models/{model}/versions/{version}:predict"
    return httpx.post(url, json={"instances": [instance]}, timeout=20)


def kill_runner(server: servers.Server, name: str) -> None:
    (runner,) = [
        process
        for process in psutil.Process(server.process.pid).children(recursive=True)
        if name in process.cmdline()
    ]
    runner.kill()
    runner.wait(10)


def test_runner_services_answer_alike_and_a_dead_one_comes_back_warm(
    gateway, home, image, income
) -> None:
    picture = image[0].tolist()
    rows = {"digits": picture, "sentiment": "a fine film", "income": income}
    with servers.running(
        home, WEIGHBRIDGE_RUNNER="service", WEIGHBRIDGE_EXPLAINER="false"
    ) as apart:
        for model, row in rows.items():
            own = ask(gateway, model, row).json()["predictions"][0]
            far = ask(apart, model, row).json()["predictions"][0]
            np.testing.assert_array_equal(own["probabilities"], far["probabilities"])

        kill_runner(apart, "CnnRunner")
        began = time.monotonic()
        refused = ask(apart, "digits", picture)
        assert refused.status_code == 503
        assert time.monotonic() - began < 5, "it is refused at once, not after the deadline"
        assert ask(apart, "sentiment", "fine").status_code == 200
        deadline = time.monotonic() + 60
        while ask(apart, "digits", picture).status_code != 200:
            assert time.monotonic() < deadline, "the runner did not come back"
            assert ask(apart, "income", income).status_code == 200
            time.sleep(0.2)
    verified = apart.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def test_a_version_registered_later_is_loaded_in_the_runner_of_its_kind(
    trained_home: Path, tmp_path: Path, image
) -> None:
    kept = trained_home / "bentoml"
    models = tmp_path / "bentoml" / "models" / "digits"
    models.mkdir(parents=True)
    shutil.copy(kept / "signer.pub", tmp_path / "bentoml" / "signer.pub")
    (models / "1").symlink_to(kept / "models" / "digits" / "1")
    picture = image[0].tolist()
    with servers.running(
        tmp_path, WEIGHBRIDGE_RUNNER="service", WEIGHBRIDGE_EXPLAINER="false"
    ) as apart:
        load = f"{apart.http}/v2/repository/models/digits/load"
        assert ask(apart, "digits", picture, "2").status_code == 404
        (models / "2").symlink_to(kept / "models" / "digits" / "2")
        assert httpx.post(load, timeout=30).json() == {}
        for _ in range(2):
            assert ask(apart, "digits", picture, "2").status_code == 200
        told = httpx.get(f"{apart.http}/v2/models/digits/versions/2/stats").json()["model_stats"]
        assert (told[0]["inference_count"], told[0]["execution_count"]) == (2, 2)

        missing = "/v2/repository/models/digits/versions/3/load"
        assert httpx.post(apart.http + missing).status_code == 404
        kill_runner(apart, "CnnRunner")
        assert ask(apart, "digits", picture, "2").status_code == 503, "it ran in the runner"
        deadline = time.monotonic() + 60
        while ask(apart, "digits", picture, "2").status_code != 200:
            assert time.monotonic() < deadline, "the runner did not come back with both versions"
            time.sleep(0.2)
