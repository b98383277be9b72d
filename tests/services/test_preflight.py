"""What would make every worker fail is said in one sentence before any of them starts."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services import preflight
from services.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    chosen = Settings(home=tmp_path / "home", grpc_port=0, allow_open=True)
    for name in ("WEIGHBRIDGE_HOME", "WEIGHBRIDGE_DEFINITIONS"):
        monkeypatch.setenv(name, "put back when the test is over")
    return chosen


def test_a_first_start_on_a_full_disk_is_refused_with_a_sentence(
    settings, monkeypatch, capsys
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("audit.sealroots.replace_file", full)
        with pytest.raises(SystemExit) as ended:
            preflight.check(settings)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == (
        "weighbridge: not started: could not make the keys of sealed parts in "
        f"{settings.log_dir}: No space left on device\n"
    )
    preflight.check(settings)  # there is room: nothing stands in its way, the log's lock included
    assert not capsys.readouterr().err


def test_a_setting_that_holds_what_it_may_not_is_a_sentence_and_no_traceback(tmp_path) -> None:
    wrong = {"WEIGHBRIDGE_SAMPLE_BASE": "2", "WEIGHBRIDGE_RETENTION": "1y..1d"}
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway"],
        cwd=ROOT,
        env=os.environ | {"WEIGHBRIDGE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    said = sorted(line for line in done.stderr.splitlines() if "WEIGHBRIDGE_" in line)
    assert done.returncode == 1
    assert "weighbridge: not started: could not read the settings:" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert [line.partition(" ")[0] for line in said] == [f"{name}:" for name in sorted(wrong)]
    assert "WEIGHBRIDGE_RETENTION: the ceiling is below the floor" in done.stderr
