"""A real witness in its own process, for tests."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.cosignature import CosignerKey
from audit.cosigning import WitnessAddress

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from services.cli import main; main()", "witness"]


@dataclass
class Running:
    """A started witness."""

    process: subprocess.Popen[str]
    url: str
    key: CosignerKey

    @property
    def address(self) -> WitnessAddress:
        return WitnessAddress(self.url, self.key)

    @property
    def setting(self) -> str:
        return f"{self.url} {self.key}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def start(state: Path, *log_keys: object, name: str = "example.org/w", port: int = 0) -> Running:
    words = ["--state", str(state), "--name", name, "--port", str(port)]
    for key in log_keys:
        words += ["--log", str(key)]
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[0].startswith("witness http://"), lines
    key = CosignerKey.parse(lines[1].split()[1])
    return Running(process, lines[0].split()[1], key)


@contextlib.contextmanager
def running(state: Path, *log_keys: object, **options: object) -> Iterator[Running]:
    started = start(state, *log_keys, **options)  # type: ignore[arg-type]
    try:
        yield started
    finally:
        started.process.terminate()
        started.process.wait(10)
        assert started.process.stdout is not None
        started.process.stdout.close()


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
