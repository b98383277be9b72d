"""What would make every worker fail is said in one sentence before any of them starts."""

import errno
import os

import pytest

from services import preflight
from services.settings import Settings


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
