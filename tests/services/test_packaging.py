"""What a bento is built from agrees with the project's own lock."""

from pathlib import Path

import yaml

from runners.reference.catalog import TASKS, VERSIONS
from services.packaging import REQUIREMENTS, serving_requirements

ROOT = Path(__file__).resolve().parents[2]


def test_the_written_requirements_are_those_of_the_lock() -> None:
    written = (ROOT / REQUIREMENTS).read_text().splitlines()
    assert written == serving_requirements(ROOT)
    assert not {line.partition("==")[0] for line in written} & {"torch", "tensorflow", "keras"}


def test_the_bento_names_every_reference_model() -> None:
    listed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["models"]
    assert listed == [f"{name}:{version}" for name in TASKS for version in VERSIONS]
