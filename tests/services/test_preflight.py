"""What would make every worker fail is said in one sentence before any of them starts."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audit.keys import Keyring
from audit.link_server import Handlers, serve
from audit.notary import Notary
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


@contextmanager
def notary_that_offers(handlers: Handlers, home: Path) -> Iterator[None]:
    """A notary on `home`/s, in a loop of its own, as a process elsewhere would be."""
    ready, done = threading.Event(), threading.Event()

    async def keep() -> None:
        keyring = Keyring.load_or_create(home / "keys")
        notary = await Notary.open(home / "log", keyring, origin="example.com/elsewhere")
        server = await serve(notary, home / "s", handlers=handlers)
        ready.set()
        await asyncio.to_thread(done.wait)
        await server.close()
        await notary.close()

    thread = threading.Thread(target=asyncio.run, args=(keep(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        done.set()
        thread.join()


async def _half(_: object) -> dict[str, str]:
    return {"unit": "ab" * 32}


@pytest.mark.parametrize("handlers", [{}, {"lend": _half}])
def test_a_notary_of_before_is_told_to_be_updated_first(
    handlers, settings, tmp_path, capsys
) -> None:
    linked = settings.model_copy(update={"notary": f"unix:{tmp_path}/s"})
    with notary_that_offers(handlers, tmp_path), pytest.raises(SystemExit) as ended:
        preflight.check(linked)
    assert ended.value.code == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        f"weighbridge: not started: the notary at unix:{tmp_path}/s does not lend what this "
        "version needs; update the notary, then its gateways"
    )


def test_a_notary_that_is_not_there_is_named_in_a_sentence(
    settings, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("services.remote_ledger._START_S", 0.0)
    linked = settings.model_copy(update={"notary": f"unix:{tmp_path}/s", "notary_wait_ms": 100})
    with pytest.raises(SystemExit) as ended:
        preflight.check(linked)
    assert ended.value.code == 1
    assert f"not started: could not go on: no answer from the notary at unix:{tmp_path}/s" in (
        capsys.readouterr().err
    )
