"""The bento: built offline, and serving from an empty folder with nothing of the project around."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import server as servers


@pytest.fixture(scope="module")
def built(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A BENTOML_HOME of its own that holds the models and the bento, and the bento's tag."""
    home = tmp_path_factory.mktemp("bento")
    shutil.copytree(trained_home / "bentoml", home / "bentoml")
    shutil.rmtree(home / "bentoml" / "bentos", ignore_errors=True)
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "PIP_NO_INDEX": "1",
        "PIP_INDEX_URL": "",
        "UV_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from services.cli import main; main()", "bento"],
        cwd=servers.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return home / "bentoml", done.stdout.split()[-1]


def test_the_bento_serves_from_an_empty_folder(built, tmp_path: Path) -> None:
    store, tag = built
    empty = tmp_path / "empty"
    empty.mkdir()
    ports = servers.free_port(), servers.free_port()
    names = ("WEIGHBRIDGE_HOME", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in names} | {
        "BENTOML_HOME": str(store),
        "WEIGHBRIDGE_HTTP_PORT": str(ports[0]),
        "WEIGHBRIDGE_GRPC_PORT": str(ports[1]),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", tag],
            cwd=empty,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    server = servers.Server(process, empty / ".weighbridge", *ports, log, environment)
    try:
        servers.wait_ready(server)
        models = httpx.get(f"{server.http}/v2/models").json()["models"]
        assert models == ["digits", "income", "recommend", "sentiment"]
        reply = httpx.post(
            f"{server.http}/v1/models/sentiment:predict", json={"instances": ["wonderful"]}
        )
        assert reply.headers["x-weighbridge-arm"] in ("control", "treatment")
        explained = httpx.post(
            f"{server.http}/v1/models/sentiment:explain",
            json={"instances": ["a wonderful film"]},
            timeout=60,
        )
        assert explained.status_code == 200, explained.text + log.read_text()[-3000:]
    finally:
        server.stop()
    assert (empty / ".weighbridge" / "log").is_dir()
    loaded = subprocess.run(
        ["grep", "-c", str(servers.ROOT / "services"), str(log)], capture_output=True, check=False
    )
    assert loaded.stdout.strip() == b"0", "the project's own folder was used"
    assert not list(store.rglob(".weighbridge")), "the bento's own folder was written to"
