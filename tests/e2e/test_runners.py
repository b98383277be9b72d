"""Models in runner services of their own: the same answers, and a dead runner hurts nobody else."""

import time

import httpx
import numpy as np
import psutil
import server as servers


def ask(gateway: servers.Server, model: str, instance: object, version: str = "1"):
    url = f"{gateway.http}/v1/models/{model}/versions/{version}:predict"
    return httpx.post(url, json={"instances": [instance]}, timeout=20)


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

        (runner,) = [
            process
            for process in psutil.Process(apart.process.pid).children(recursive=True)
            if "CnnRunner" in process.cmdline()
        ]
        runner.kill()
        runner.wait(10)
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
