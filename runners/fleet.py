"""The versions that are loaded here, side by side, and their states.

Rule: a version answers only after verification, loading, warm-up and `on_ready` (where it is put on
record); unloading first refuses new requests, then answers what is queued, then lets go. A failed
load leaves the others untouched and keeps its reason for the operator.
Boundary: asyncio; loading runs in the version's own thread, so the event loop never waits for it.
Read next: registry.py (what can be loaded), batch.py (who answers), link.py (a fleet elsewhere).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from .batch import Answer, Batcher
from .errors import ModelFailed, ModelNotFound, ModelNotReady, RunnerError
from .manifest import Manifest
from .model import Model
from .registry import Artefact, Registry
from .tensor import Batch

__all__ = ["Fleet", "Queue", "QueuesItself", "Served", "State", "Status"]

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]
Opener = Callable[[Artefact], Model]


class Status(NamedTuple):
    """One line of the repository index."""

    name: str
    version: str
    state: State
    reason: str


class Served(Protocol):
    """A ready version, wherever it runs; `batch.Batcher` and `link.Remote` fill it."""

    async def infer(self, batch: Batch, rows: int, *, deadline: float | None = None) -> Answer:
        """Answer as `batch.Batcher.infer` does, with the same refusals."""


class Queue(Served, Protocol):
    """A `Served` that this process opened and drains; `batch.Batcher`, `remote.RemoteQueue`."""

    async def close(self) -> None:
        """Refuse new requests, answer those that came, then return."""


@runtime_checkable
class QueuesItself(Protocol):
    """A model that needs no batcher in front of it, because what it calls has one."""

    def queue(self, *, max_queued_rows: int) -> Queue:
        """What serves it; called once, from the event loop."""


@dataclass(slots=True)
class Slot:
    """One version: its manifest, state and, when READY, what serves it."""

    manifest: Manifest
    state: State
    reason: str = ""
    served: Served | None = None
    device: str = ""
    runtime: str = ""
    batcher: Queue | None = None
    executor: ThreadPoolExecutor | None = None


async def _unheard(_: Slot) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Fleet:
    """Loaded versions of one process, by exact name and version."""

    registry: Registry
    open_model: Opener
    max_batch_rows: int = 64
    max_queued_rows: int = 2048
    on_ready: Callable[[Slot], Awaitable[None]] = _unheard
    slots: dict[tuple[str, str], Slot] = field(default_factory=dict)
    _versions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _locks: dict[tuple[str, str], asyncio.Lock] = field(default_factory=dict)

    async def load_all(self, names: Iterable[str] | None = None) -> None:
        """Load every version of `names` (all names when None); failures are kept as reasons."""
        for name in self.registry.names() if names is None else names:
            for version in self.registry.versions(name):
                await self.load(name, version, strict=False)

    async def load(self, name: str, version: str, *, strict: bool = True) -> None:
        """Verify, load and warm up one version; no change when it is already ready.

        Raises:
            ModelNotFound: the registry does not hold it.
            RunnerError: it could not be loaded (only when `strict`); the reason is kept.
        """
        async with self._lock(name, version):
            current = self.slots.get((name, version))
            if current is not None and current.state == "READY":
                return
            if current is not None and current.served is not None:
                current.state, current.reason = "READY", ""  # it runs in another process
                return
            try:
                await self._load(name, version)
            except RunnerError:
                if strict:
                    raise

    def _lock(self, name: str, version: str) -> asyncio.Lock:
        """Loading and unloading one version exclude each other."""
        return self._locks.setdefault((name, version), asyncio.Lock())

    async def _load(self, name: str, version: str) -> None:
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"{name}:{version}")
        loop = asyncio.get_running_loop()
        slot: Slot | None = None
        try:
            manifest = await loop.run_in_executor(executor, self.registry.manifest, name, version)
            slot = self._place(Slot(manifest, "LOADING"))
            model = await loop.run_in_executor(executor, self._open, name, version)
            slot.device, slot.runtime = model.device, model.runtime
            await self.on_ready(slot)
        except BaseException as exc:
            # Also when cancelled, or not put on record: a version must not be LOADING for ever.
            executor.shutdown(wait=False)
            if slot is not None:
                told = str(exc) if isinstance(exc, RunnerError) else "loading was not finished"
                slot.state, slot.reason = "UNAVAILABLE", told
            raise
        slot.batcher = self._queue(model, executor)
        slot.served, slot.executor = slot.batcher, executor
        slot.state = "READY"

    def _place(self, slot: Slot) -> Slot:
        """Hold a slot, and its version in numeric order."""
        name, version = slot.manifest.name, slot.manifest.version
        self.slots[name, version] = slot
        held = {*self._versions.get(name, ()), version}
        self._versions[name] = tuple(sorted(held, key=lambda version: (len(version), version)))
        return slot

    def _queue(self, model: Model, executor: ThreadPoolExecutor) -> Queue:
        if isinstance(model, QueuesItself):
            return model.queue(max_queued_rows=self.max_queued_rows)
        return Batcher(
            model, executor, max_rows=self.max_batch_rows, max_queued_rows=self.max_queued_rows
        )

    def _open(self, name: str, version: str) -> Model:
        try:
            model = self.open_model(self.registry.open(name, version))
            model.warm_up()
        except RunnerError:
            raise
        except Exception as exc:  # a backend's own bug: the version is not served, others are
            raise ModelFailed(f"could not load {name}:{version}: {exc!r}") from exc
        return model

    async def attach(
        self, name: str, version: str, served: Served, *, device: str, runtime: str
    ) -> None:
        """Take a version that is ready in another process; its manifest is read here.

        Raises:
            ModelNotFound, ArtefactCorrupt: this process does not hold the same registry.
        """
        manifest = await asyncio.to_thread(self.registry.manifest, name, version)
        slot = Slot(manifest, "LOADING", served=served, device=device, runtime=runtime)
        self._place(slot)
        await self.on_ready(slot)
        slot.state = "READY"

    async def unload(self, name: str, version: str) -> None:
        """Drain and let go of one version; no change when it is not ready.

        Raises:
            ModelNotFound: it was never here.
        """
        slot = self.slot(name, version)
        async with self._lock(name, version):
            slot = self.slot(name, version)
            if slot.state != "READY":
                return
            slot.state = "UNLOADING"
            try:
                if slot.batcher is not None:
                    await slot.batcher.close()
            finally:
                if slot.executor is not None:
                    slot.executor.shutdown(wait=False)
                    slot.served = slot.batcher = slot.executor = None
                slot.state, slot.reason = "UNAVAILABLE", "unloaded"

    async def close(self) -> None:
        """Drain everything."""
        for (name, version), slot in list(self.slots.items()):
            if slot.state == "READY":
                await self.unload(name, version)

    def slot(self, name: str, version: str) -> Slot:
        """The slot of one version in any state.

        Raises:
            ModelNotFound: unknown name or version; says which versions there are.
        """
        slot = self.slots.get((name, version))
        if slot is None:
            held = self.versions(name)
            known = f"versions held: {', '.join(held)}" if held else "no model of that name"
            raise ModelNotFound(f"model '{name}' version '{version}' is not here; {known}")
        return slot

    def ready(self, name: str, version: str) -> Slot:
        """The slot of one version that answers now.

        Raises:
            ModelNotFound: unknown.
            ModelNotReady: loading, unloading or failed to load.
        """
        slot = self.slot(name, version)
        if slot.state != "READY":
            raise ModelNotReady(f"model '{name}' version '{version}' is {slot.state}")
        return slot

    def names(self) -> list[str]:
        """Names in any state, sorted."""
        return sorted({name for name, _ in self.slots})

    def versions(self, name: str) -> list[str]:
        """Versions of `name` in any state, numbers in numeric order."""
        return list(self._versions.get(name, ()))

    def index(self) -> list[Status]:
        """Every version with its state and reason."""
        return [
            Status(name, version, slot.state, slot.reason)
            for (name, version), slot in sorted(self.slots.items())
        ]
