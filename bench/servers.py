"""Starts and stops the servers that bench/serving.py measures, each pinned to one core.

Rule: what is started here is ended here, by its own pid, and listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["ROOT", "SERVER_CORE", "Started", "free_port", "gateway", "home_of", "started"]

ROOT = Path(__file__).resolve().parents[1]
SERVER_CORE = 0
_START_S = 90.0


@dataclass
class Started:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    start_s: float

    def memory_mb(self) -> float:
        """Resident memory of the largest process of the tree: the one that serves."""
        tree = [psutil.Process(self.process.pid)]
        tree += tree[0].children(recursive=True)
        return max(process.memory_info().rss for process in tree) / 1e6


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def home_of(models: Path) -> Iterator[Path]:
    """A fresh home folder (keys and log of its own) that shares trained models."""
    folder = Path(tempfile.mkdtemp(prefix="weighbridge-bench-"))
    try:
        shutil.copytree(models / "keys", folder / "keys")
        (folder / "bentoml").mkdir()
        (folder / "bentoml" / "models").symlink_to(models / "bentoml" / "models")
        shutil.copy(models / "bentoml" / "signer.pub", folder / "bentoml" / "signer.pub")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started(
    command: list[str], home: Path, ready: str, *, port: int, grpc_port: int = 0, **settings: str
) -> Iterator[Started]:
    """Run `command` on the server's core until the block ends.

    Args:
        command: what follows `python`.
        home: the home folder of this server.
        ready: a path that answers 200 when it is ready; "" asks for an open port alone.
        port: what is asked.
        grpc_port: told to the caller.
        settings: more of the environment.
    """
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    pinned = ["taskset", "-c", str(SERVER_CORE), sys.executable, *command]
    began = time.perf_counter()
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            pinned, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(process, port, ready, home / "server.log")
        yield Started(process, port, grpc_port, time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def gateway(
    home: Path, app: str = "services.gateway:Gateway", **settings: str
) -> AbstractContextManager[Started]:
    """The gateway in its own process, on free ports."""
    port, grpc_port = free_port(), free_port()
    return started(
        ["-m", "bentoml", "serve", app],
        home,
        "/v2/health/ready",
        port=port,
        grpc_port=grpc_port,
        WEIGHBRIDGE_HTTP_PORT=str(port),
        WEIGHBRIDGE_GRPC_PORT=str(grpc_port),
        **settings,
    )


def _wait(process: subprocess.Popen[bytes], port: int, ready: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if not ready:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2) as reply:
                if reply.status == 200:
                    return
        time.sleep(0.02)
    raise SystemExit(f"a server did not start:\n{log.read_text(errors='replace')[-3000:]}")
