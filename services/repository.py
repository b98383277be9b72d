"""The model repository: what there is, loading and unloading, whole models or single versions.

Source: Triton Inference Server, "Model Repository Extension"; docs/protocol.md, "Repository".
Rule 1: an operation answers when it is done, and is never half done: a caller who leaves does not
stop it. Loading verifies and warms up first; unloading answers first what is queued.
Rule 2: what a caller asks for beyond that is refused in one sentence, never half obeyed. Of a
load's `config` only `version_policy` can be obeyed: the rest of a configuration comes from the
signed manifest.
Boundary: knows no protocol; the registry says what there is, the fleet does the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from runners.errors import ModelNotFound
from runners.fleet import Fleet

from .codec import parse_json
from .faults import BadRequest, Unsupported

__all__ = ["Place", "Repository"]

Place = Callable[[str, str], Awaitable[bool]]
"""Loads a version in another process and attaches it; False when it belongs into this one."""

_VERSION = "weighbridge_version"
_KNOWN = {"unload_dependents", "config", _VERSION}
_MAX_CONFIG_BYTES = 1 << 20


class Repository:
    """Operations on the versions that one gateway holds."""

    def __init__(self, fleet: Fleet) -> None:
        """`fleet` holds what is loaded, its registry what can be."""
        self._fleet = fleet
        self.place: Place | None = None
        self._placing = asyncio.Lock()
        self._changing: set[asyncio.Task[None]] = set()

    async def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """Every version here, and those of the registry that were never loaded."""
        lines = {
            (s.name, s.version): {
                "name": s.name,
                "version": s.version,
                "state": str(s.state),
                "reason": s.reason,
            }
            for s in self._fleet.index()
            if s.state == "READY" or not only_ready
        }
        if not only_ready:
            for name, version in await asyncio.to_thread(self._registered):
                lines.setdefault(
                    (name, version),
                    {
                        "name": name,
                        "version": version,
                        "state": "UNAVAILABLE",
                        "reason": "not loaded",
                    },
                )
        return [lines[key] for key in sorted(lines)]

    def _registered(self) -> list[tuple[str, str]]:
        registry = self._fleet.registry
        return [(name, version) for name in registry.names() for version in registry.versions(name)]

    async def change(
        self, name: str, verb: str, parameters: object = None, *, version: str | None = None
    ) -> None:
        """Load or unload a model, all of its versions unless some are named.

        Args:
            name: the model.
            verb: "load" or "unload".
            parameters: as the caller sent them, plain values; see `_chosen`.
            version: the version that the path names, if it does.

        Raises:
            BadRequest, Unsupported: `parameters` asks for what cannot be done.
            ModelNotFound: there is no such model or version.
            RunnerError: it could not be loaded.
        """
        given = _checked(parameters)
        named = given.get(_VERSION) if version is None else version
        policy = _policy(given.get("config"), name)
        if named is not None and policy is not None:
            raise BadRequest("name a version or send a 'config' with a version policy, not both")
        if verb == "unload":
            if policy is not None:
                raise BadRequest("'config' goes with load, not with unload")
            work = self._unload(name, named)
        else:
            work = self._load(name, named, policy)
        task = asyncio.create_task(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, version: str | None, policy: Mapping[str, Any] | None) -> None:
        there = list(await asyncio.to_thread(self._fleet.registry.versions, name))
        if not there:
            raise ModelNotFound(f"the registry holds no model '{name[:64]}'")
        wanted = there if policy is None else _wanted(policy, there)
        if version is not None:
            wanted = [version]
        for missing in set(wanted) - set(there):
            raise ModelNotFound(
                f"the registry holds no version '{missing[:64]}' of '{name}'; "
                f"versions: {', '.join(there)}"
            )
        for each in wanted:
            await self._load_one(name, each)
        if policy is not None:
            for each in set(self._fleet.versions(name)) - set(wanted):
                await self._fleet.unload(name, each)

    async def _load_one(self, name: str, version: str) -> None:
        """Load one version where it belongs: a new one perhaps in another process."""
        if self.place is not None:
            async with self._placing:
                slot = self._fleet.slots.get((name, version))
                if (slot is None or slot.served is None) and await self.place(name, version):
                    return
        await self._fleet.load(name, version)

    async def _unload(self, name: str, version: str | None) -> None:
        held = self._fleet.versions(name)
        if not held:
            known = ", ".join(self._fleet.names()) or "none"
            raise ModelNotFound(f"model '{name[:64]}' is unknown; models: {known}")
        if version is not None:
            self._fleet.slot(name, version)  # refuses an unknown one
            held = [version]
        for each in held:
            await self._fleet.unload(name, each)


def _checked(parameters: object) -> dict[str, Any]:
    """The parameters of a load or an unload; refuses what would be half obeyed."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest("'parameters' must be an object")
    for unknown in set(parameters) - _KNOWN:
        if unknown.startswith("file:"):
            raise Unsupported("a load brings no files here: register the model, then load it")
        raise Unsupported(
            f"parameter '{unknown[:64]}' is not served; there are 'config' (version_policy only), "
            f"'unload_dependents' and '{_VERSION}'"
        )
    if not isinstance(parameters.get("unload_dependents", False), bool):
        raise BadRequest("'unload_dependents' must be true or false; nothing here has dependents")
    version = parameters.get(_VERSION)
    if version is not None and not isinstance(version, str):
        raise BadRequest(f"'{_VERSION}' must be a string")
    return parameters


def _policy(config: object, name: str) -> Mapping[str, Any] | None:
    """The version policy of a load's `config`, a JSON text as Triton takes it."""
    if config is None:
        return None
    if not isinstance(config, str) or len(config) > _MAX_CONFIG_BYTES:
        raise BadRequest("'config' must be a JSON text")
    found = parse_json(config.encode("utf-8", "replace"))
    if found.pop("name", name) != name:
        raise BadRequest("'config' names another model")
    policy = found.pop("version_policy", None)
    if found:
        raise Unsupported(
            f"'config' may hold 'version_policy' only; '{next(iter(found))[:64]}' comes from the "
            "signed manifest and cannot be changed by a load"
        )
    if policy is None:
        return None
    if not isinstance(policy, dict) or len(policy) != 1:
        raise BadRequest("'version_policy' must hold exactly one of latest, all, specific")
    return policy


def _wanted(policy: Mapping[str, Any], there: list[str]) -> list[str]:
    """The versions that a policy names, out of those that are `there` in ascending order."""
    match policy:
        case {"all": dict()}:
            return there
        case {"latest": {"num_versions": int(count)}} if count > 0:
            return there[-count:]
        case {"specific": {"versions": [_, *_] as versions}} if all(
            isinstance(v, int | str) and not isinstance(v, bool) for v in versions
        ):
            return list(dict.fromkeys(map(str, versions)))
    raise BadRequest(
        '\'version_policy\' must be {"all": {}}, {"latest": {"num_versions": N}} or '
        '{"specific": {"versions": [...]}}'
    )
