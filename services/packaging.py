"""A bento of this project: the rooms, the lock file, the registered models, the registry's key.

Rule: built from a clean copy in a temporary folder, so that nothing of a workplace slips in; the
requirements are the serving part of pyproject.toml at the versions of constraints.txt (`make lock`
writes them down, a test compares), so that building needs no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

from runners.registry import Registry

from .settings import Settings

__all__ = ["REQUIREMENTS", "add_registered", "build", "serving_requirements"]

_ROOT = Path(__file__).resolve().parents[1]
_ROOMS = ("services", "runners", "experiments", "audit")
REQUIREMENTS = "requirements-serving.txt"
_FILES = (
    "bentofile.yaml",
    REQUIREMENTS,
    "constraints.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
_EXTRAS = ("cpu", "explain")
_PACKAGES = {"torchscript": "torch", "torch-export": "torch", "tensorflow": "tensorflow"}
_NAME = re.compile(r"^[A-Za-z0-9_.-]+")


def serving_requirements(root: Path) -> list[str]:
    """`name==version` of every direct dependency that serving needs, from the lock file, sorted.

    Raises:
        ValueError: the lock file lacks one; run `make lock`.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in _EXTRAS:
        wanted += project["optional-dependencies"][extra]
    names = [match[0] for item in wanted if (match := _NAME.match(item))]
    return sorted(_locked(root, *names).splitlines())


def _locked(root: Path, *names: str) -> str:
    """`name==version` of each package, from the lock file, one a line."""
    locked = {}
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, found, version = line.partition("==")
        if found:
            locked[_normal(name)] = f"{name}=={version}"
    missing = [name for name in names if _normal(name) not in locked]
    if missing:
        raise ValueError(f"constraints.txt lacks {', '.join(missing)}; run `make lock`")
    return "\n".join(locked[_normal(name)] for name in names)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def build(settings: Settings) -> str:
    """Build the bento into BentoML's store; returns its tag.

    Raises:
        ValueError: the lock file is out of date, or a model is not in the store.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for room in _ROOMS:
            shutil.copytree(_ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
        for file in _FILES:
            shutil.copy(_ROOT / file, copy / file)
        shutil.copy(settings.bentoml_home / "signer.pub", copy / "signer.pub")
        add_registered(copy, Registry(settings.bentoml_home))
        return _bentoml_build(copy, settings)


def add_registered(copy: Path, registry: Registry) -> None:
    """Let the bento hold what else the registry does, with the libraries that it needs.

    Args:
        copy: the folder that is built from; two of its files are written anew.
        registry: whose versions to add to the reference models of bentofile.yaml.

    Raises:
        ValueError: the lock file lacks such a library.
    """
    path = copy / _FILES[0]
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    packages = set()
    for name in registry.names():
        for version in registry.versions(name):
            if f"{name}:{version}" not in body["models"]:
                body["models"].append(f"{name}:{version}")
                packages.add(_PACKAGES.get(registry.manifest(name, version).backend))
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    needed = [_locked(copy, package) for package in sorted(filter(None, packages))]
    with (copy / REQUIREMENTS).open("a", encoding="utf-8") as requirements:
        requirements.writelines(f"{line}\n" for line in needed)


def _bentoml_build(copy: Path, settings: Settings) -> str:
    """Run BentoML's own builder in a fresh interpreter, which imports the copy and nothing else."""
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", str(copy)]
    environment = os.environ | {"BENTOML_HOME": str(settings.bentoml_home)}
    done = subprocess.run(  # noqa: S603  our own interpreter and a folder that we made
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ValueError(f"could not build the bento; bentoml said:\n{done.stderr.strip()[-2000:]}")
    return done.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
