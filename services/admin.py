"""Everything that is not a prediction: health, metadata, repository, experiments, outcomes.

Rule: protocol-free answers (a status and a JSON value) that both doors share; a question changes
nothing, an operation is awaited until it is done.
Source: docs/protocol.md; shapes of Triton's and KServe's clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.errors import DefinitionError
from runners.errors import ModelNotFound
from runners.fleet import Fleet, Slot
from runners.tensor import Signature, TensorSpec

from .bodylimits import check_values
from .codec import parse_json
from .erasures import Erasures
from .faults import NotFound, Unsupported
from .ledger import Reports
from .modelconfig import model_config, platform
from .openapi import document
from .overrides import Overrides
from .promotions import Promotions
from .repository import Repository
from .router import Router, newest_ready
from .statistics import Statistics

__all__ = ["NAME", "VERSION", "Admin", "Answer"]

NAME = "weighbridge"
VERSION = "0.1.0"
EXTENSIONS = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
]


class Answer(NamedTuple):
    """A status and the JSON value that goes with it."""

    status: int
    body: Any


class Admin:
    """Questions about, and operations on, one gateway."""

    def __init__(
        self,
        fleet: Fleet,
        router: Router,
        outcomes: Reports,
        *,
        ready: Callable[[], bool],
        statistics: Statistics | None = None,
        witnesses: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """`ready`: whether traffic is taken; `statistics`: the data plane's; `witnesses`: more."""
        self.fleet = fleet
        self.router = router
        self.outcomes = outcomes
        self.ready = ready
        self.repository = Repository(fleet)
        self._statistics = statistics or Statistics()
        self._witnesses = witnesses
        self.erasures: Erasures | None = None
        self.overrides: Overrides | None = None
        self.promotions: Promotions | None = None

    async def answer(self, method: str, parts: list[str], body: bytes) -> Answer:
        """Answer one call that is not a prediction; `parts` is its path, without empty ones.

        Raises:
            NotFound, BadRequest, RunnerError: as their texts say.
        """
        if parts[0] == "v2":
            return await self._v2(method, parts[1:], body)
        return await self._v1(method, parts[1:], body)

    async def _v2(self, method: str, parts: list[str], body: bytes) -> Answer:
        match (method, *parts):
            case ("GET",):
                return Answer(200, self.server())
            case ("GET", "health", "live"):
                return Answer(200, {"live": True})
            case ("GET", "health", "ready"):
                ready = self.ready()
                found = {"ready": ready, "live": True} | self._witnesses()
                return Answer(200 if ready else 503, found)
            case ("GET", "openapi.json"):
                return Answer(200, document(self.fleet, version=VERSION))
            case ("GET", "models"):
                return Answer(200, {"models": self.fleet.names()})
            case ("GET", "models", "stats"):
                return Answer(200, self.statistics())
            case ("GET", "models", name, *rest):
                return self._model(name, rest)
            case ("POST", "repository", "index"):
                only_ready = _object(body).get("ready") is True
                return Answer(200, await self.repository.index(only_ready=only_ready))
            case ("POST", "repository", "models", name, *rest, "load" | "unload" as verb):
                return await self._change(name, rest, verb, _object(body).get("parameters"))
            case (_, "trace" | "logging" | "systemsharedmemory" | "cudasharedmemory" as what, *_):
                raise Unsupported(f"'{what}' belongs to Triton; this server does not have it")
            case _:
                raise NotFound(f"no such path: {method} /v2/{'/'.join(parts)}"[:200])

    def _model(self, name: str, rest: list[str]) -> Answer:
        version: str | None = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match rest:
            case []:
                return Answer(200, self.metadata(name, version))
            case ["ready"]:
                slot = self.slot(name, version)
                if slot.state != "READY":
                    return Answer(503, {"error": f"model '{name}' is {slot.state}"})
                return Answer(200, {"name": name, "ready": True})
            case ["config"]:
                return Answer(200, self.config(name, version))
            case ["stats"]:
                return Answer(200, self.statistics(name, version))
            case _:
                raise NotFound(f"no such path below model '{name}'"[:200])

    async def _change(self, name: str, rest: list[str], verb: str, parameters: object) -> Answer:
        match rest:
            case []:
                await self.repository.change(name, verb, parameters)
            case ["versions", version]:
                await self.repository.change(name, verb, parameters, version=version)
            case _:
                raise NotFound(f"the path must be /v2/repository/models/NAME[/versions/V]/{verb}")
        if self.promotions is not None:
            await self.promotions.moving(self.router.snapshot, f"{verb} requested")
        return Answer(200, {})

    async def _v1(self, method: str, parts: list[str], body: bytes) -> Answer:
        match (method, *parts):
            case ("GET", "models"):
                return Answer(200, {"models": self.fleet.names()})
            case ("GET", "models", name):
                ready = any(self.slot(name, v).state == "READY" for v in self.fleet.versions(name))
                return Answer(200, {"name": self.known(name), "ready": ready})
            case ("POST", "outcomes"):
                return Answer(200, await self.outcomes.report(parse_json(check_values(body))))
            case ("POST", "audit", *rest) if self.erasures is not None:
                return Answer(200, await self.erasures.answer(rest, parse_json(body)))
            case ("POST", "overrides") if self.overrides is not None:
                return Answer(200, await self.overrides.answer(parse_json(body)))
            case ("GET", "experiments"):
                return Answer(200, self.experiments())
            case ("POST", "experiments", "reload"):
                return await self._reload()
            case _:
                raise NotFound(f"no such path: {method} /v1/{'/'.join(parts)}"[:200])

    async def _reload(self) -> Answer:
        try:
            changed = await self.router.reload("requested")
        except DefinitionError:
            return Answer(400, {"error": f"nothing was changed: {self.router.last_error}"})
        return Answer(200, {"changed": changed})

    def known(self, name: str) -> str:
        """`name`, or ModelNotFound."""
        if not self.fleet.versions(name):
            raise self.unknown(name, "")
        return name

    def unknown(self, name: str, verb: str) -> Exception:
        """The refusal of an unknown model, or of an unknown verb on a known one."""
        if self.fleet.versions(name):
            return NotFound(f"model '{name}' has no ':{verb}'; there are ':predict' and ':explain'")
        known = ", ".join(self.fleet.names()) or "none"
        return ModelNotFound(f"model '{name[:64]}' is unknown; models: {known}")

    def slot(self, name: str, version: str | None) -> Slot:
        """The slot of a version, or of the newest one that answers.

        Raises:
            ModelNotFound: unknown.
        """
        if version is None:
            version = newest_ready(self.fleet, name, self.fleet.versions(self.known(name)))
        return self.fleet.slot(name, version)

    def signature(self, name: str, version: str | None) -> Signature | None:
        """The signature that an infer call will be checked against; None when unknown."""
        versions = self.fleet.versions(name)
        if version is None and versions:
            version = newest_ready(self.fleet, name, versions)
        slot = self.fleet.slots.get((name, version or ""))
        return slot.manifest.signature if slot else None

    def server(self) -> dict[str, Any]:
        """Server metadata."""
        return {"name": NAME, "version": VERSION, "extensions": EXTENSIONS}

    def metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """Model metadata: versions that are ready, platform and tensors."""
        manifest = self.slot(name, version).manifest
        versions = [version] if version else self.fleet.versions(name)
        return {
            "name": name,
            "versions": versions,
            "platform": platform(manifest),
            "inputs": [_spec(spec) for spec in manifest.signature.inputs],
            "outputs": [_spec(spec) for spec in manifest.signature.outputs],
        }

    def config(self, name: str, version: str | None) -> dict[str, Any]:
        """Model configuration in Triton's shape."""
        return model_config(self.slot(name, version), max_batch_rows=self.fleet.max_batch_rows)

    def statistics(self, name: str = "", version: str | None = None) -> dict[str, Any]:
        """Statistics in Triton's shape: of one version, of one model, or of all ("").

        Raises:
            ModelNotFound: unknown.
        """
        if version is not None:
            self.fleet.slot(name, version)  # refuses an unknown one
            return self._statistics.told([(name, version)])
        names = [self.known(name)] if name else self.fleet.names()
        return self._statistics.told((n, v) for n in names for v in self.fleet.versions(n))

    def experiments(self) -> dict[str, Any]:
        """The definitions in force, and why the last reload was refused, if it was."""
        definitions = [
            d.canonical() | {"version": d.version} for d in self.router.snapshot.values()
        ]
        return {"experiments": definitions, "last_error": self.router.last_error}


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; the body may be empty."""
    return parse_json(body) if body.strip() else {}
