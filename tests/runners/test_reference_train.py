"""Training from end to end: what is skipped, replaced and refused; and, slowly, the figures."""

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from runners.errors import DataPackageMissing, ModelNotFound, RunnerError
from runners.manifest import Manifest
from runners.reference import train
from runners.reference.train import train_all
from runners.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
QUIET = Console(quiet=True)


def trained(registry: Registry, cache: Path, **changes: Any) -> list[Manifest]:
    settings: dict[str, Any] = {"fast": True, "signer": SIGNER, "console": QUIET}
    return train_all(registry, cache, **{**settings, **changes})


@pytest.fixture(scope="session")
def cache(trained_home: Path) -> Path:
    return trained_home / "data"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "bentoml")


def test_what_is_held_is_skipped_and_force_replaces_it(registry: Registry, cache: Path) -> None:
    (first,) = trained(registry, cache, models=["recommend"], versions=["1"])
    assert trained(registry, cache, models=["recommend"], versions=["1"]) == []
    (second,) = trained(registry, cache, models=["recommend"], versions=["1"], force=True)
    assert registry.open("recommend", "1").manifest == second
    assert second.files["model.onnx"] == first.files["model.onnx"]  # seeds are fixed
    assert list((registry.home / "tensorboard" / "recommend" / "1").iterdir())
    assert not any((registry.home / "staging").iterdir())


def test_a_plain_console_gets_a_line_and_a_table(registry: Registry, cache: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    trained(registry, cache, models=["recommend"], versions=["2"], console=console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "recommend:2: 2 epochs in" in shown
    assert "precision" in shown
    assert "ONNX differs from the framework by at most" in shown


def test_without_its_data_nothing_is_trained(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DataPackageMissing, match="place the file at"):
        trained(registry, tmp_path / "empty", models=["income"])
    assert registry.names() == ()


def test_unknown_names_and_versions_are_refused_before_anything(
    registry: Registry, cache: Path
) -> None:
    with pytest.raises(ModelNotFound, match="no reference model 'chess'"):
        trained(registry, cache, models=["digits", "chess"])
    with pytest.raises(ModelNotFound, match="digits has no version '3'"):
        trained(registry, cache, models=["digits"], versions=["3"])
    assert not registry.home.exists()


def test_an_export_that_differs_registers_nothing(
    registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> float:
        raise RunnerError("could not export recommend:1: ONNX and the framework differ")

    monkeypatch.setattr(train, "difference", wrong)
    with pytest.raises(RunnerError, match="could not export"):
        trained(registry, cache, models=["recommend"], versions=["1"])
    assert registry.names() == ()


def test_a_disk_that_is_full_is_said(
    registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "draw", full)
    with pytest.raises(RunnerError, match="No space left on device; nothing half-written is left"):
        trained(registry, cache, models=["recommend"], versions=["1"])
    assert registry.names() == ()


def test_another_key_is_not_trusted_silently(registry: Registry, cache: Path) -> None:
    registry.pin(Ed25519PrivateKey.generate().public_key())
    with pytest.raises(RunnerError, match="holds another key"):
        trained(registry, cache, models=["recommend"])


_ONE_OF_TWO = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from runners.reference.train import train_all
from runners.registry import Registry

signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
home, cache = map(Path, sys.argv[1:])
found = train_all(
    Registry(home), cache, models=["recommend"], fast=True, signer=signer, console=Console()
)
assert len(found) <= 2
"""


def test_two_processes_that_train_at_once_leave_whole_versions(
    registry: Registry, cache: Path
) -> None:
    command = [sys.executable, "-c", _ONE_OF_TWO, str(registry.home), str(cache)]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert registry.versions("recommend") == ("1", "2")
    for version in ("1", "2"):
        registry.open("recommend", version)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_training_reaches_the_figures(registry: Registry, cache: Path) -> None:
    started = time.monotonic()
    made = trained(registry, cache, fast=False, console=Console())
    minutes = (time.monotonic() - started) / 60
    figures = {(found.name, found.version): found.evaluation for found in made}

    def figure(name: str, version: str, which: str) -> float:
        return float(figures[name, version][which])

    assert len(made) == 8
    assert figure("digits", "1", "accuracy") >= 0.95
    assert figure("digits", "2", "accuracy") >= 0.97
    assert figure("income", "1", "auc") >= 0.90
    assert figure("income", "2", "auc") >= 0.90
    assert figure("recommend", "2", "auc") > figure("recommend", "1", "auc") + 0.05
    assert figure("recommend", "2", "rmse") < figure("recommend", "1", "rmse")
    for version in ("1", "2"):
        for group in ("", "_en", "_zh"):
            mine = figure("sentiment", version, f"macro_f1{group}")
            assert mine > figure("sentiment", version, f"bag_of_words_macro_f1{group}")
    print(f"trained in {minutes:.1f} min")  # noqa: T201 (a figure to report, never asserted)
