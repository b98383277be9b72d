"""Choosing a version, and swapping definitions: recorded first, all or nothing."""

from pathlib import Path

import pytest

from audit.errors import LogUnavailable
from experiments.assign import assign
from experiments.errors import DefinitionError
from services.faults import BadRequest
from services.router import Router

TEXT = """
schema: 1
name: m-ab
kind: ab
model: m
unit: user
metric: correct
epoch: {epoch}
arms:
  - {{name: control, version: "1", weight: {weight}}}
  - {{name: treatment, version: "{version}", weight: {rest}}}
"""


def write(folder: Path, *, epoch: int = 1, weight: int = 50, version: str = "2") -> None:
    text = TEXT.format(epoch=epoch, weight=weight, rest=100 - weight, version=version)
    (folder / "m.yaml").write_text(text)


class Log:
    """Notes what was recorded, and what was in force at that moment."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []
        self.full = False
        self.router: Router | None = None

    async def record(self, definition, reason: str) -> None:
        assert self.router is not None
        if self.full:
            raise LogUnavailable("full")
        in_force = self.router.snapshot.get("m")
        self.seen.append((reason, definition.epoch, in_force.version if in_force else ""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def router(folder: Path, log: Log) -> Router:
    log.router = Router(folder, held=lambda: {"m": ["1", "2"], "other": ["1"]}, record=log.record)
    return log.router


def choose(router: Router, **changes: object):
    request = {"version": None, "unit": "alice", "forced_arm": None, "newest": "2"}
    return router.choose("m", **(request | changes))


async def test_a_definition_is_on_record_before_it_is_in_force(router, log) -> None:
    assert await router.reload("start") == ["m-ab"]
    assert log.seen == [("start", 1, "")]
    assert await router.reload("again") == [], "what did not change is not recorded again"
    assert len(log.seen) == 1


async def test_without_an_experiment_the_newest_version_answers(router) -> None:
    found = choose(router)
    assert (found.version, found.reason, found.arm) == ("2", "no_experiment", None)


async def test_the_experiment_decides_and_a_named_version_by_passes_it(router) -> None:
    await router.reload("start")
    found = choose(router)
    expected = assign(router.snapshot["m"], "alice")
    assert (found.arm, found.version, found.reason) == (
        expected.arm,
        expected.model_version,
        "assigned",
    )
    assert choose(router, version="1") == ("1", "version_named", None, None)


async def test_a_forced_arm_keeps_the_assignment_on_record(router) -> None:
    await router.reload("start")
    found = choose(router, forced_arm="treatment")
    assert (found.version, found.reason, found.arm) == ("2", "forced", "treatment")
    assert found.assignment == assign(router.snapshot["m"], "alice")
    with pytest.raises(BadRequest, match="no arm 'x'"):
        choose(router, forced_arm="x")


async def test_an_arm_whose_version_is_not_held_is_refused_whole(router, folder) -> None:
    await router.reload("start")
    before = router.snapshot
    write(folder, epoch=2, version="9")
    with pytest.raises(DefinitionError, match=r"version '9'.*held: 1, 2"):
        await router.reload("changed")
    assert router.snapshot is before
    assert "version '9'" in router.last_error


async def test_changed_weights_need_a_new_epoch(router, folder) -> None:
    await router.reload("start")
    write(folder, weight=90)
    with pytest.raises(DefinitionError, match="epoch"):
        await router.reload("changed")
    write(folder, weight=90, epoch=2)
    assert await router.reload("changed") == ["m-ab"]
    assert router.last_error == ""


async def test_a_change_that_cannot_be_recorded_is_not_made(router, folder, log) -> None:
    await router.reload("start")
    before = router.snapshot
    write(folder, weight=90, epoch=2)
    log.full = True
    with pytest.raises(LogUnavailable):
        await router.reload("changed")
    assert router.snapshot is before


async def test_definitions_of_models_that_are_not_served_do_not_matter(router, folder) -> None:
    text = (folder / "m.yaml").read_text().replace("m-ab", "z-ab").replace("model: m", "model: z")
    (folder / "z.yaml").write_text(text)
    await router.reload("start")
    assert list(router.snapshot) == ["m"]
