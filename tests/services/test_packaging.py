"""What a bento is built from agrees with the project's own lock."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import yaml

from runners.reference.catalog import TASKS, VERSIONS
from services.packaging import REQUIREMENTS, add_registered, serving_requirements

ROOT = Path(__file__).resolve().parents[2]


def test_the_written_requirements_are_those_of_the_lock() -> None:
    written = (ROOT / REQUIREMENTS).read_text().splitlines()
    assert written == serving_requirements(ROOT)
    assert not {line.partition("==")[0] for line in written} & {"torch", "tensorflow", "keras"}


def test_the_bento_names_every_reference_model() -> None:
    listed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["models"]
    assert listed == [f"{name}:{version}" for name in TASKS for version in VERSIONS]


class Registry:
    held = {
        "digits:1": "onnx",
        "mine:7": "torch-export",
        "other:1": "torchscript",
        "far:1": "remote",
    }

    def names(self) -> list[str]:
        return [tag.partition(":")[0] for tag in self.held]

    def versions(self, name: str) -> list[str]:
        return [version for n, _, version in (t.partition(":") for t in self.held) if n == name]

    def manifest(self, name: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(backend=self.held[f"{name}:{version}"])


def test_a_bento_takes_registered_models_and_their_libraries_along(tmp_path: Path) -> None:
    for name in ("bentofile.yaml", REQUIREMENTS, "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    add_registered(tmp_path, Registry())
    models = yaml.safe_load((tmp_path / "bentofile.yaml").read_text())["models"]
    assert models[-3:] == ["mine:7", "other:1", "far:1"]
    assert len(models) == len(set(models)) == 2 * len(TASKS) + 3
    lines = (tmp_path / REQUIREMENTS).read_text().splitlines()
    assert lines[-1].startswith("torch==")
    assert lines[:-1] == (ROOT / REQUIREMENTS).read_text().splitlines()
