"""Which version answers: a named one, a forced arm, the experiment's arm, or the newest.

Rule 1: the snapshot of definitions is immutable; a reload builds a new one, records every changed
definition in the log, and only then swaps the reference. A broken file changes nothing.
Rule 2: a definition that names a model or version that is not held is refused as a whole.
Boundary: experiments/ draws the slot; the log is reached through the callable that is handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.assign import Assignment, assign
from experiments.definition import Definition
from experiments.errors import DefinitionError, Fault
from experiments.plan import Snapshot, load_folder
from runners.fleet import Fleet

from .faults import BadRequest

__all__ = ["Choice", "Reason", "Router", "newest_ready"]

Reason = Literal["assigned", "version_named", "forced", "no_experiment"]
Recorder = Callable[[Definition, str], Awaitable[None]]


class Choice(NamedTuple):
    """The version that answers, and why."""

    version: str
    reason: Reason
    assignment: Assignment | None
    arm: str | None


def newest_ready(fleet: Fleet, model: str, held: Sequence[str]) -> str:
    """The newest version that answers; the newest of `held` (ascending) when none does.

    A version that is being loaded, or was unloaded, takes nothing away from the one before it.
    """
    for version in reversed(held):
        if fleet.slots[model, version].state == "READY":
            return version
    return held[-1]


class Router:
    """The experiments in force, and the swap to newer ones."""

    def __init__(
        self,
        folder: Path,
        *,
        held: Callable[[], Mapping[str, Collection[str]]],
        record: Recorder,
    ) -> None:
        """`held` gives the versions of each served model; `record` writes `assignment_config`."""
        self._folder = folder
        self._held = held
        self._record = record
        self.moving: Callable[[Snapshot, str], Awaitable[None]] | None = None
        self._swap = asyncio.Lock()
        self.snapshot = Snapshot()
        self.last_error = ""

    async def reload(self, reason: str) -> list[str]:
        """Read the folder again; returns the names of the experiments that changed.

        Raises:
            DefinitionError: every fault in every file; the old definitions stay in force.
            LogUnavailable: the change could not be recorded; the old ones stay in force.
        """
        async with self._swap:
            try:
                fresh = await asyncio.to_thread(load_folder, self._folder, self.snapshot)
                fresh = self._serveable(fresh)
            except DefinitionError as exc:
                self.last_error = str(exc).replace(f"{self._folder}/", "")  # no path of ours
                raise
            changed = [
                definition
                for model, definition in fresh.items()
                if model not in self.snapshot or self.snapshot[model].version != definition.version
            ]
            for definition in changed:
                await self._record(definition, reason)
            if self.moving is not None:
                await self.moving(fresh, reason)
            removed = [self.snapshot[model].name for model in self.snapshot if model not in fresh]
            self.snapshot, self.last_error = fresh, ""
            return [definition.name for definition in changed] + removed

    def _serveable(self, fresh: Snapshot) -> Snapshot:
        """Keep the definitions of served models; refuse arms whose version is not held."""
        held = self._held()
        faults = [
            Fault(definition.path, 0, f"arms.{arm.name}.version", problem, f"held: {versions}")
            for model, definition in fresh.items()
            if model in held
            for arm in definition.arms
            if arm.version not in held[model]
            for problem in [f"version {arm.version!r} of '{model}' is not served here"]
            for versions in [", ".join(sorted(held[model]))]
        ]
        if faults:
            raise DefinitionError(faults)
        return Snapshot({model: fresh[model] for model in fresh if model in held})

    def choose(
        self, model: str, *, version: str | None, unit: str, forced_arm: str | None, newest: str
    ) -> Choice:
        """Pick the version for one request.

        Raises:
            BadRequest: a forced arm that the experiment does not have.
        """
        if version is not None:
            return Choice(version, "version_named", None, None)
        definition = self.snapshot.get(model)
        if definition is None:
            return Choice(newest, "no_experiment", None, None)
        assignment = assign(definition, unit)
        if forced_arm is None:
            return Choice(assignment.model_version, "assigned", assignment, assignment.arm)
        for arm in definition.arms:
            if arm.name == forced_arm:
                return Choice(arm.version, "forced", assignment, arm.name)
        raise BadRequest(f"experiment '{definition.name}' has no arm '{forced_arm}'")
