"""A real `weighbridge notary` in its own process, and gateways that append to it over TLS."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import server as servers

from tests.conftest import link_models
from tests.services.access.authority import Authority, Pair

START_S = 30.0
QUIET = {"WEIGHBRIDGE_MODELS": "income", "WEIGHBRIDGE_EXPLAINER": "false"}


class Notary:
    """A notary's home, its process, and who may reach it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.authority = Authority(home / "ca")
        self.port = servers.free_port()
        own = self.authority.issue("notary")
        self.settings = self.files(own) | {
            "WEIGHBRIDGE_NOTARY_LISTEN": f"tcp://127.0.0.1:{self.port}"
        }
        self.process: subprocess.Popen[bytes] | None = None

    def files(self, pair: Pair) -> dict[str, str]:
        """One side's certificate, as settings."""
        return {
            "WEIGHBRIDGE_NOTARY_CERT": str(pair.cert),
            "WEIGHBRIDGE_NOTARY_KEY": str(pair.key),
            "WEIGHBRIDGE_NOTARY_CA": str(self.authority.path),
        }

    def start(self, **more: str) -> None:
        """Start it and wait until it says that it is ready."""
        self.stopped = servers.stopped(self.home, **self.settings, **more)
        log, before = self.home / "notary.log", self.output()
        command = [sys.executable, "-c", "from services.cli import main; main()", "notary"]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=servers.ROOT,
                env=dict(self.stopped.environment),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while "ready: " not in self.output()[len(before) :]:
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < until, self.output()
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def output(self) -> str:
        log = self.home / "notary.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command on the notary's machine."""
        return self.stopped.cli(*words)

    def gateway_settings(self, name: str = "gateway") -> dict[str, str]:
        """What a gateway on another machine is told."""
        pair = self.authority.issue(name, client=True)
        found = self.files(pair) | {"WEIGHBRIDGE_NOTARY": f"tcp://127.0.0.1:{self.port}"}
        return QUIET | found

    def counted(self) -> dict[str, int]:
        """What `audit verify` counts; everything must hold."""
        found = self.cli("audit", "verify")
        assert found.returncode == 0, found.stdout + found.stderr
        lines = re.findall(r"^counted +(\d+) (.+)$", found.stdout, re.M)
        return {name: int(number) for number, name in lines}


@contextlib.contextmanager
def notary(folder: Path, **settings: str) -> Iterator[Notary]:
    """A running notary."""
    found = Notary(folder)
    found.start(**settings)
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.stop()


@contextlib.contextmanager
def gateway(folder: Path, models: Path, **settings: str) -> Iterator[servers.Server]:
    """A gateway with models and without keys, as on another machine."""
    folder.mkdir()
    link_models(models, folder)
    with servers.running(folder, **settings) as found:
        yield found
