"""Loading and unloading by version, what a load may ask for, and what the index shows."""

import json
from types import SimpleNamespace

import pytest

from runners.errors import ModelNotFound
from runners.fleet import Fleet, Slot
from runners.tensor import Signature, TensorSpec
from services.faults import BadRequest, Unsupported
from services.repository import Repository
from services.router import newest_ready

SIGNATURE = Signature(
    (TensorSpec("text", "BYTES", (-1, 1)),), (TensorSpec("label", "INT64", (-1, 1)),)
)


class Registry:
    """Holds `m` in the versions that are listed; opening waits for `gate`."""

    home = "nowhere"

    def __init__(self) -> None:
        self.held = ["1", "2", "10"]
        self.opened: list[str] = []

    def names(self) -> list[str]:
        return ["m"]

    def versions(self, name: str) -> tuple[str, ...]:
        return tuple(self.held) if name == "m" else ()

    def manifest(self, name: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, version=version, signature=SIGNATURE)

    def open(self, name: str, version: str) -> None:
        self.opened.append(version)


class Model:
    name, version, device, runtime = "m", "1", "cpu", "test"
    signature = SIGNATURE
    inline = False

    def warm_up(self) -> None:
        """Nothing to do."""


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(Registry(), lambda _: Model())


@pytest.fixture
def repository(fleet: Fleet) -> Repository:
    return Repository(fleet)


def ready(fleet: Fleet) -> list[str]:
    return [s.version for s in fleet.index() if s.state == "READY"]


def policy(value: object) -> dict[str, str]:
    return {"config": json.dumps({"name": "m", "version_policy": value})}


async def test_one_version_is_loaded_and_unloaded_by_its_name(repository, fleet) -> None:
    await repository.change("m", "load", version="2")
    assert ready(fleet) == ["2"]
    await repository.change("m", "load", {"weighbridge_version": "10"})
    assert ready(fleet) == ["10", "2"]
    await repository.change("m", "unload", {"weighbridge_version": "2"})
    assert ready(fleet) == ["10"]
    assert fleet.registry.opened == ["2", "10"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"all": {}}, ["1", "10", "2"]),
        ({"latest": {"num_versions": 1}}, ["10"]),
        ({"latest": {"num_versions": 2}}, ["10", "2"]),
        ({"specific": {"versions": [1, "10", 1]}}, ["1", "10"]),
    ],
)
async def test_a_version_policy_makes_exactly_its_versions_ready(
    repository, fleet, wanted, expected
) -> None:
    await repository.change("m", "load", version="2")
    await repository.change("m", "load", policy(wanted))
    assert ready(fleet) == expected


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ([1], BadRequest),
        ({"config": 5}, BadRequest),
        ({"config": "{"}, BadRequest),
        ({"config": "[]"}, BadRequest),
        ({"config": '{"name": "other"}'}, BadRequest),
        ({"config": '{"max_batch_size": 8}'}, Unsupported),
        ({"config": "{}", "file:1/model.onnx": "x"}, Unsupported),
        ({"priority": 1}, Unsupported),
        ({"unload_dependents": "yes"}, BadRequest),
        ({"weighbridge_version": 2}, BadRequest),
        (policy({}) | {"weighbridge_version": "2"}, BadRequest),
        (policy({}), BadRequest),
        (policy({"latest": {"num_versions": 0}}), BadRequest),
        (policy({"latest": {"num_versions": "many"}}), BadRequest),
        (policy({"specific": {"versions": []}}), BadRequest),
        (policy({"specific": {"versions": [True]}}), BadRequest),
        (policy({"specific": {"versions": ["77"]}}), ModelNotFound),
        (policy({"all": {}, "latest": {"num_versions": 1}}), BadRequest),
    ],
)
async def test_what_cannot_be_obeyed_is_refused_and_changes_nothing(
    repository, fleet, parameters, error
) -> None:
    with pytest.raises(error) as refused:
        await repository.change("m", "load", parameters)
    assert "\n" not in str(refused.value)
    assert not fleet.slots


@pytest.mark.parametrize("parameters", [None, {}, {"config": "{}"}, {"unload_dependents": False}])
async def test_a_load_without_a_choice_loads_every_version(repository, fleet, parameters) -> None:
    await repository.change("m", "load", parameters)
    assert ready(fleet) == ["1", "10", "2"]


async def test_the_index_shows_what_was_never_loaded_and_what_was_registered_since(
    repository, fleet
) -> None:
    await repository.change("m", "load", version="1")
    fleet.registry.held.append("11")
    states = {(s["version"]): (s["state"], s["reason"]) for s in await index(repository)}
    assert states == {
        "1": ("READY", ""),
        "2": ("UNAVAILABLE", "not loaded"),
        "10": ("UNAVAILABLE", "not loaded"),
        "11": ("UNAVAILABLE", "not loaded"),
    }
    await repository.change("m", "load", version="11")
    assert [s["version"] for s in await repository.index(only_ready=True)] == ["1", "11"]


async def index(repository: Repository) -> list[dict[str, str]]:
    return await repository.index(only_ready=False)


async def test_a_version_that_is_loading_or_unloaded_takes_nothing_from_the_one_before(
    repository, fleet
) -> None:
    assert fleet.versions("m") == []
    await repository.change("m", "load", version="1")
    seen: list[tuple[str, str]] = []

    async def look(slot: Slot) -> None:
        seen.append((slot.state, newest_ready(fleet, "m", fleet.versions("m"))))

    fleet.on_ready = look
    await repository.change("m", "load", version="2")
    assert seen == [("LOADING", "1")]
    assert fleet.slots["m", "2"].state == "READY"
    assert newest_ready(fleet, "m", fleet.versions("m")) == "2"
    await repository.change("m", "unload", version="2")
    assert newest_ready(fleet, "m", fleet.versions("m")) == "1"
    await repository.change("m", "unload")
    assert newest_ready(fleet, "m", fleet.versions("m")) == "2"
