"""A served log, witnessed by a program of its own, exported, and checked by the wheel alone."""

import shutil
import subprocess
import sys
import sysconfig
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import server as servers

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision
from tests.services.witnesses import running, start

ORIGIN = "weighbridge.local/decisions"
CRYPTOGRAPHY = ("cryptography", "cffi", "_cffi_backend", "pycparser")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, from its wheel, in a fresh environment with nothing but cryptography."""
    folder = tmp_path_factory.mktemp("verifier")
    shutil.copytree(servers.ROOT / "verifier", folder / "source")
    pip = [sys.executable, "-m", "pip"]
    offline = ("--quiet", "--no-deps", "--no-index")
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(folder / "source")], check=True)
    (wheel,) = folder.glob("weighbridge_verify-*-py3-none-any.whl")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    subprocess.run(
        [*pip, "--python", str(venv / "bin/python"), "install", *offline, str(wheel)], check=True
    )
    (site,) = venv.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_paths()["platlib"]).iterdir():
        if path.name.split(".")[0] in CRYPTOGRAPHY:
            (site / path.name).symlink_to(path)
    return venv / "bin" / "weighbridge-verify"


def run(verifier: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [verifier, *map(str, words)], capture_output=True, text=True, check=False, env={}
    )


def predict(gateway: servers.Server, count: int) -> None:
    with httpx.Client(base_url=gateway.http, timeout=30) as client:
        for number in range(count):
            reply = client.post(
                "/v1/models/sentiment:predict",
                json={"instances": [f"film {number}"]},
                headers={"x-weighbridge-unit": f"unit-{number}"},
            )
            assert reply.status_code == 200


def until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)


def readiness(gateway: servers.Server) -> dict[str, object]:
    reply = httpx.get(f"{gateway.http}/v2/health/ready", timeout=5)
    assert reply.status_code == 200
    found: dict[str, object] = reply.json()["witnesses"]
    return found


def test_a_served_log_is_witnessed_exported_and_checked_elsewhere(
    home: Path, tmp_path: Path, verifier: Path
) -> None:
    key = Keyring.load(home / "keys").verifier_key(ORIGIN)
    with (
        running(tmp_path / "w", key) as witness,
        servers.running(
            home, WEIGHBRIDGE_WITNESSES=witness.setting, WEIGHBRIDGE_EXPLAINER="false"
        ) as gateway,
    ):
        predict(gateway, 20)
        middle = datetime.now(UTC)
        predict(gateway, 300)
        until(lambda: readiness(gateway) == {"configured": 1, "cosigned": 1, "alarms": 0})
        pack = tmp_path / "evidence.zip"
        words = ("audit", "export", "--from", middle.isoformat(), "--to")
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        done = gateway.cli(*words, later, "-o", str(pack))
        assert done.returncode == 0, done.stderr
        assert "weighbridge-verify" in done.stdout

        said = run(verifier, pack, "--key", key, "--witness", witness.key)
        assert said.returncode == 0, said.stdout + said.stderr
        assert said.stdout.count("checked     ") == 8
        assert "300 answers, 0 refused" in said.stdout
        assert "yours" in said.stdout

        until(lambda: "cosigned at" in cosigned(gateway))
        kept = tmp_path / "kept"
        shutil.copy(home / "log" / "checkpoint", kept)
        witness.kill()
        predict(gateway, 20)  # serving goes on
        until(lambda: readiness(gateway)["cosigned"] == 0)
        since = ("--since-checkpoint", str(kept))
        again = gateway.cli(*words, later, "-o", str(pack), *since)
        assert (again.returncode, "--force" in again.stderr) == (2, True)
        assert gateway.cli(*words, later, "-o", str(pack), "--force", *since).returncode == 0
        said = run(verifier, pack, "--key", key, "--earlier", kept, "--witness", witness.key)
        assert said.returncode == 0, said.stdout
        assert "is the beginning of this log" in said.stdout
        assert "320 answers" in said.stdout

        again = start(tmp_path / "w", key, port=int(witness.url.rpartition(":")[2]))
        until(lambda: readiness(gateway)["cosigned"] == 1, 30)
        again.kill()
        assert again.process.stdout is not None
        again.process.stdout.close()
    assert_changed_pack_is_found(pack, verifier, str(key))
    assert_a_copy_exports_with_the_public_key_alone(home / "log", tmp_path, verifier, str(key))


def cosigned(gateway: servers.Server) -> str:
    done = gateway.cli("audit", "verify")
    assert done.returncode == 0, done.stdout
    return done.stdout.replace("example.org/w cosigned", "cosigned at")


def assert_changed_pack_is_found(pack: Path, verifier: Path, key: str) -> None:
    data = pack.read_bytes()
    place = data.index(b'"type":"decision"') + 9
    pack.write_bytes(data[:place] + b"D" + data[place + 1 :])
    said = run(verifier, pack, "--key", key)
    assert said.returncode == 1
    assert "PROBLEM" in said.stdout
    assert run(verifier, pack.with_name("nothing"), "--key", key).returncode == 2
    assert run(verifier, "--help").returncode == 0


def assert_a_copy_exports_with_the_public_key_alone(
    log: Path, folder: Path, verifier: Path, key: str
) -> None:
    copy, pack = folder / "copy", folder / "pack.zip"
    (folder / "empty").mkdir()
    elsewhere = servers.stopped(folder / "empty")
    shutil.copytree(log, copy)
    words = ("audit", "export", "--log", str(copy), "--key", key, "-o", str(pack))
    done = elsewhere.cli(*words)
    assert done.returncode == 0, done.stderr
    said = run(verifier, pack, "--key", key)
    assert said.returncode == 0, said.stdout
    decisions = sum(isinstance(entry.event, Decision) for entry in LogReader(copy).entries())
    assert f"numbers 1 to {decisions}, {decisions} answers" in said.stdout
    refused = elsewhere.cli(*words, "--force", "--from", "2001-01-01", "--to", "2001-01-02")
    assert refused.returncode == 2
    assert "none of the" in refused.stderr
    assert [path.name for path in folder.glob("pack.zip*")] == ["pack.zip"]
    device = elsewhere.cli(*words[:-1], "/dev/full")
    assert (device.returncode, "it is no file" in device.stderr) == (2, True)
    assert Path("/dev/full").is_char_device()
    assert not (folder / "empty" / "keys").exists()
