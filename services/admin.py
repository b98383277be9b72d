"""Everything that is not a prediction: health, metadata, repository, experiments, outcomes.

Rule: protocol-free answers (a status and a JSON value) that both doors share; a question changes
nothing, an operation is awaited until it is done.
Source: docs/protocol.md; shapes of Triton's and KServe's clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.errors import DefinitionError
from runners.errors import ModelNotFound
from runners.fleet import Fleet, Slot
from runners.manifest import Manifest
from runners.tensor import Signature, TensorSpec

from .codec import parse_json
from .faults import BadRequest, NotFound, Unsupported
from .outcomes import Outcomes
from .router import Router

__all__ = ["NAME", "VERSION", "Admin", "Answer"]

NAME = "weighbridge"
VERSION = "0.1.0"
EXTENSIONS = ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)"]


_FORMS = {
    "onnx": "onnx",
    "torchscript": "libtorch",
    "torch-export": "export",
    "tensorflow": "savedmodel",
    "remote": "oip",
}


class Answer(NamedTuple):
    """A status and the JSON value that goes with it."""

    status: int
    body: Any


class Admin:
    """Questions about, and operations on, one gateway."""

    def __init__(
        self, fleet: Fleet, router: Router, outcomes: Outcomes, *, ready: Callable[[], bool]
    ) -> None:
        """`ready` says whether the gateway takes traffic."""
        self.fleet = fleet
        self.router = router
        self.outcomes = outcomes
        self.ready = ready
        self._changing: set[asyncio.Task[None]] = set()

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
                return Answer(200 if ready else 503, {"ready": ready, "live": True})
            case ("GET", "models"):
                return Answer(200, {"models": self.fleet.names()})
            case ("GET", "models", "stats"):
                raise Unsupported("statistics are not served yet; see /metrics")
            case ("GET", "models", name, *rest):
                return self._model(name, rest)
            case ("POST", "repository", "index"):
                return Answer(200, self.index(only_ready=_object(body).get("ready") is True))
            case ("POST", "repository", "models", name, "load" | "unload" as verb):
                await self.change(name, verb, _object(body).get("parameters"))
                return Answer(200, {})
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
            case _:
                raise NotFound(f"no such path below model '{name}'"[:200])

    async def _v1(self, method: str, parts: list[str], body: bytes) -> Answer:
        match (method, *parts):
            case ("GET", "models"):
                return Answer(200, {"models": self.fleet.names()})
            case ("GET", "models", name):
                ready = any(self.slot(name, v).state == "READY" for v in self.fleet.versions(name))
                return Answer(200, {"name": self.known(name), "ready": ready})
            case ("POST", "outcomes"):
                return Answer(200, await self.outcomes.report(parse_json(body)))
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
        """The slot of a version, or of the newest one.

        Raises:
            ModelNotFound: unknown.
        """
        return self.fleet.slot(name, version or self.fleet.versions(self.known(name))[-1])

    def signature(self, name: str, version: str | None) -> Signature | None:
        """The signature that an infer call will be checked against; None when unknown."""
        versions = self.fleet.versions(name)
        slot = self.fleet.slots.get((name, version or (versions[-1] if versions else "")))
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
            "platform": _platform(manifest),
            "inputs": [_spec(spec) for spec in manifest.signature.inputs],
            "outputs": [_spec(spec) for spec in manifest.signature.outputs],
        }

    def config(self, name: str, version: str | None) -> dict[str, Any]:
        """Model configuration in Triton's shape, as far as it applies, and our own facts."""
        slot = self.slot(name, version)
        signature = slot.manifest.signature
        return {
            "name": name,
            "platform": _platform(slot.manifest),
            "backend": _engine(slot.manifest),
            "max_batch_size": self.fleet.max_batch_rows if signature.batching == "rows" else 0,
            "input": [_config(spec, signature) for spec in signature.inputs],
            "output": [_config(spec, signature) for spec in signature.outputs],
            "parameters": {
                "digest": {"string_value": slot.manifest.digest},
                "device": {"string_value": slot.device},
                "runtime": {"string_value": slot.runtime},
                "labels": {"string_value": ",".join(slot.manifest.labels)},
            },
        }

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """The repository index."""
        return [
            {"name": s.name, "version": s.version, "state": s.state, "reason": s.reason}
            for s in self.fleet.index()
            if s.state == "READY" or not only_ready
        ]

    async def change(self, name: str, verb: str, parameters: object = None) -> None:
        """Load or unload every version of a model; a caller who leaves does not stop it half-way.

        Raises:
            BadRequest, Unsupported: `parameters` asks for more than that.
            ModelNotFound: the registry does not hold it.
            RunnerError: it could not be loaded.
        """
        _refuse_overrides(parameters)
        work = asyncio.create_task(self._load(name) if verb == "load" else self._unload(name))
        self._changing.add(work)
        work.add_done_callback(self._changing.discard)
        await asyncio.shield(work)

    async def _load(self, name: str) -> None:
        versions = self.fleet.registry.versions(name)
        if not versions:
            raise ModelNotFound(f"the registry holds no model '{name[:64]}'")
        for version in versions:
            await self.fleet.load(name, version)

    async def _unload(self, name: str) -> None:
        for version in self.fleet.versions(self.known(name)):
            await self.fleet.unload(name, version)

    def experiments(self) -> dict[str, Any]:
        """The definitions in force, and why the last reload was refused, if it was."""
        definitions = [
            d.canonical() | {"version": d.version} for d in self.router.snapshot.values()
        ]
        return {"experiments": definitions, "last_error": self.router.last_error}


def _engine(manifest: Manifest) -> str:
    """The runtime without its version."""
    return manifest.runtime.partition(" ")[0]


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _platform(manifest: Manifest) -> str:
    """The engine and the form of the artefact, as Triton names them (`onnxruntime_onnx`)."""
    return f"{_engine(manifest)}_{_FORMS[manifest.backend]}"


def _config(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    """Triton's form: with a batch size the dimensions leave the rows out, else they are all there.

    Source: Triton's model configuration, "Inputs, Outputs and Maximum Batch Size".
    """
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    dims = spec.shape if signature.batching == "none" else spec.shape[1:]
    return {"name": spec.name, "data_type": kind, "dims": list(dims)}


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; the body may be empty."""
    return parse_json(body) if body.strip() else {}


def _refuse_overrides(parameters: object) -> None:
    """A load that brings a configuration or files along is refused, rather than half-obeyed."""
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BadRequest("'parameters' must be an object")
    if set(parameters) - {"unload_dependents"}:
        raise Unsupported("a model is loaded as the registry holds it; leave 'parameters' out")
