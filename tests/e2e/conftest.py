"""One gateway for the read-mostly tests of this folder, and the rows they send."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import callers as callers_module
import server as servers

from tests.conftest import link_models


@pytest.fixture(scope="session")
def session_home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.mktemp("gateway")
    (own / "bentoml").mkdir()
    (own / "bentoml" / "models").symlink_to(trained_home / "bentoml" / "models")
    shutil.copy(trained_home / "bentoml" / "signer.pub", own / "bentoml" / "signer.pub")
    return own


@pytest.fixture(scope="session")
def gateway(session_home: Path) -> Iterator[servers.Server]:
    """A gateway with in-process models and an explainer, shared by the session."""
    with servers.running(session_home, WEIGHBRIDGE_EXPLAIN_SAMPLES="100") as started:
        yield started


@pytest.fixture(scope="session")
def grpcio_gateway(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same on the other gRPC engine."""
    own = tmp_path_factory.mktemp("grpcio")
    (own / "bentoml").mkdir()
    (own / "bentoml" / "models").symlink_to(trained_home / "bentoml" / "models")
    shutil.copy(trained_home / "bentoml" / "signer.pub", own / "bentoml" / "signer.pub")
    settings = {"WEIGHBRIDGE_GRPC_ENGINE": "grpcio", "WEIGHBRIDGE_EXPLAINER": "false"}
    with servers.running(own, **settings) as started:
        yield started


@pytest.fixture(params=["native", "grpcio"])
def each_engine(request: pytest.FixtureRequest) -> servers.Server:
    """A gateway on each of the two gRPC engines, in turn."""
    name = "gateway" if request.param == "native" else "grpcio_gateway"
    found: servers.Server = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def callers(
    trained_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[callers_module.Callers]:
    """A gateway that asks who calls, for one module, and keys of every role."""
    own = tmp_path_factory.mktemp("access")
    link_models(trained_home, own)
    with callers_module.asking(own) as found:
        yield found


INCOME: dict[str, Any] = {
    "age": 39,
    "workclass": "State-gov",
    "education": "Bachelors",
    "education_num": 13,
    "marital_status": "Never-married",
    "occupation": "Adm-clerical",
    "relationship": "Not-in-family",
    "race": "White",
    "sex": "Male",
    "capital_gain": 2174,
    "capital_loss": 0,
    "hours_per_week": 40,
}


@pytest.fixture
def income() -> dict[str, Any]:
    """The first row of Adult, as a caller has it."""
    return dict(INCOME)


@pytest.fixture
def image() -> np.ndarray:
    """A hand-drawn seven."""
    picture = np.zeros((1, 28, 28, 1), np.uint8)
    picture[0, 6:9, 8:20] = 255
    for step in range(14):
        picture[0, 8 + step, 18 - step // 2 : 21 - step // 2] = 255
    return picture
