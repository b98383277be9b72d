"""What the whole suite shares: one home folder with quickly trained models.

The models are trained once from the real data with `fast=True` and kept below `.cache/`, under the
digest of the code that makes them, so that a second run does not train again. A developer may name
a home folder with trained models in WEIGHBRIDGE_TEST_MODELS instead.
Rule: no test asserts a time, so Hypothesis has no deadline.
Rule: `httpx.get` and its like read the system's certificates at each call, even for plain HTTP: 40
ms, thousands of times. Here they are read once.
Rule: bytes do not name a test. What gzip made differs by the second, and the processes that share
the suite must collect the same names.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from httpx._transports import default as httpx_transports
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("weighbridge", deadline=None)
settings.load_profile("weighbridge")
httpx_transports.create_ssl_context = functools.cache(httpx_transports.create_ssl_context)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """What names a case: the argument's name for bytes, what pytest makes of all else."""
    return argname if isinstance(val, bytes) and not val.decode("latin-1").isprintable() else None


def _code_digest() -> str:
    digest = hashlib.sha256()
    runners = ROOT / "runners"
    made_by = ("reference/*.py", "pipeline.py", "steps.py", "manifest.py", "card.py")
    for path in sorted(path for pattern in made_by for path in runners.glob(pattern)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def trained_home() -> Path:
    """A home folder whose registry holds both fast versions of every reference model."""
    given = os.environ.get("WEIGHBRIDGE_TEST_MODELS")
    if given:
        return Path(given).absolute()
    home = ROOT / ".cache" / f"models-{_code_digest()}"
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:  # the other test process waits for this one
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            _train(home)
    return home


def _train(home: Path) -> None:
    shared = ROOT / ".cache" / "data"  # packages are fetched once, whatever the code says
    shared.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "data").exists():
        (home / "data").symlink_to(shared)
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
    }
    command = [sys.executable, "-c", "from services.cli import main; main()", "train", "--fast"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "complete").touch()


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    """A fresh home folder (keys and log of its own) that shares the trained models."""
    own = tmp_path / "home"
    own.mkdir()
    shutil.copytree(trained_home / "keys", own / "keys")
    for key in (own / "keys").iterdir():
        key.chmod(0o600)
    link_models(trained_home, own)
    return own


def link_models(trained_home: Path, own: Path) -> None:
    """Share models and data, but not what BentoML writes beside them."""
    (own / "bentoml").mkdir()
    (own / "bentoml" / "models").symlink_to(trained_home / "bentoml" / "models")
    shutil.copy(trained_home / "bentoml" / "signer.pub", own / "bentoml" / "signer.pub")
    (own / "data").symlink_to(trained_home / "data")
