"""A real gateway in its own process, for tests: start it, wait until it is ready, stop it."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Server:
    """A started gateway."""

    process: subprocess.Popen[bytes]
    home: Path
    http_port: int
    grpc_port: int
    log: Path
    environment: Mapping[str, str] = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def http(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def cli(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `weighbridge WORDS` on this home."""
        command = [sys.executable, "-c", "from services.cli import main; main()", *words]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, *, kill: bool = False) -> int:
        """End the supervisor, or kill it and every worker at once; returns the exit status."""
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.process.pid)
            workers = supervisor.children(recursive=True)
            for victim in (supervisor, *workers) if kill else ():
                victim.kill()
        if not kill:
            self.process.terminate()
        return self.process.wait(40)


def environment_of(home: Path, http_port: int, grpc_port: int, **settings: str) -> dict[str, str]:
    return dict(os.environ) | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "WEIGHBRIDGE_HTTP_PORT": str(http_port),
        "WEIGHBRIDGE_GRPC_PORT": str(grpc_port),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",
        "WEIGHBRIDGE_NOTICE_S": "0",
        **settings,
    }


def copy_home(trained: Path, own: Path) -> None:
    """Keys and trained models of `trained`, copied: more can be registered in `own`."""
    shutil.copytree(trained / "keys", own / "keys")
    for key in (own / "keys").iterdir():
        key.chmod(0o600)
    shutil.copytree(trained / "bentoml" / "models", own / "bentoml" / "models")
    shutil.copy(trained / "bentoml" / "signer.pub", own / "bentoml" / "signer.pub")


def stopped(home: Path, **settings: str) -> Server:
    """A gateway that was never started: its home and its commands."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    environment = environment_of(home, 0, 0, **settings)
    return Server(process, home, 0, 0, home / "server.log", environment)


def start(home: Path, *, tls: ssl.SSLContext | None = None, **settings: str) -> Server:
    """Start a gateway on free ports and wait until it is ready; `tls` is how a client trusts it."""
    http_port, grpc_port = free_port(), free_port()
    log = home / "server.log"
    environment = environment_of(home, http_port, grpc_port, **settings)
    command = [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway"]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    server = Server(process, home, http_port, grpc_port, log, environment, tls)
    wait_ready(server)
    return server


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            url, trust = f"{server.http}/v2/health/ready", server.tls or True
            if httpx.get(url, timeout=2, verify=trust).status_code == 200:
                return
        time.sleep(0.1)
    server.stop(kill=True)
    raise AssertionError(f"the server did not become ready:\n{server.output()[-4000:]}")


@contextlib.contextmanager
def running(home: Path, *, tls: ssl.SSLContext | None = None, **settings: str) -> Iterator[Server]:
    """A gateway for the length of a `with` block."""
    server = start(home, tls=tls, **settings)
    try:
        yield server
    finally:
        server.stop()
