"""A model on any other Open Inference Protocol server, behind the `Model` seam.

Rule 1: the address comes from the signed manifest and from nowhere else; redirects are not
followed, no proxy and no credentials of the surroundings are used.
Rule 2: requests are never put together here: each goes out alone, with what is left of its
deadline. The far side may batch them as it does for anybody.
Rule 3: what may have been executed is sent again only if the manifest says `idempotent`; a
connection that was never made is tried again.
Rule 4: a far side that keeps failing is left alone (breaker.py): its callers get 503 at once.
Rule 5: no text of the far side reaches a caller, and no address, token or tensor a log.
Boundary: wires.py chooses the way there (HTTP or gRPC), oip.py writes and reads the bodies.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final

from .batch import Answer
from .breaker import Breaker
from .errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
    RunnerError,
)
from .manifest import Manifest
from .registry import Artefact
from .tensor import Array, Batch
from .warm import warm_batches
from .wires import Lost, Place, Unsent, Wire, wire_to

__all__ = ["RemoteModel", "RemoteQueue"]

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.05
_WARM_S: Final = 30.0
_HEARD_S: Final = 1.0  # a caller who waited less learns nothing about the far side


class RemoteModel:
    """One version on another server; loaded when its metadata is what was signed."""

    device = "remote"
    inline = False

    def __init__(self, artefact: Artefact, *, context: Callable[[], str], messages: Any) -> None:
        """Nothing is asked before `warm_up`.

        Raises:
            ModelNotReady: the variable that holds the token is not set.
        """
        manifest = artefact.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.digest = manifest.digest
        self.signature = manifest.signature
        self.runtime = manifest.runtime
        self._idempotent = manifest.options.get("idempotent") == "true"
        self._warm = warm_batches(artefact)
        self._context = context
        self._place = place_of(manifest)
        self._messages = messages

    def _wire(self) -> Wire:
        return wire_to(self._place, self.signature, self._messages)

    def warm_up(self) -> None:
        """Compare the far side's metadata with the signed signature, then ask it once.

        Raises:
            ModelNotReady: it is away.
            ModelFailed: it is another model now, or does not answer what it answered before.
        """
        wire = self._wire()
        try:
            found = wire.metadata(_WARM_S)
            _compare(self, found)
            for batch in self._warm:
                wire.infer_once(batch, _WARM_S)
        except (Unsent, Lost) as exc:
            raise ModelNotReady(f"the remote of {self.name}:{self.version} is away") from exc
        finally:
            wire.close_once()

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer one batch, blocking; for registering and explaining, not for callers.

        Raises:
            InputInvalid, ModelFailed, ModelNotReady: as the far side answers.
        """
        wire = self._wire()
        try:
            return wire.infer_once(batch, _WARM_S)
        except (Unsent, Lost) as exc:
            raise ModelNotReady(f"the remote of {self.name}:{self.version} is away") from exc
        finally:
            wire.close_once()

    def queue(self, *, max_queued_rows: int) -> RemoteQueue:
        """What callers wait in; fills `fleet.Queue`."""
        breaker = Breaker(time.monotonic)
        return RemoteQueue(
            f"{self.name}:{self.version}",
            self._wire(),
            breaker,
            context=self._context,
            idempotent=self._idempotent,
            max_rows=max_queued_rows,
        )


def place_of(manifest: Manifest) -> Place:
    """Where the manifest says the model is, with the token if it names a variable for one.

    Raises:
        ModelNotReady: that variable is not set.
    """
    variable = manifest.options.get("token_env")
    token = os.environ.get(variable) if variable else None
    if variable and not token:
        raise ModelNotReady(
            f"could not call the remote of {manifest.name}:{manifest.version}: the environment "
            f"variable {variable} is not set"
        )
    return Place(
        manifest.options["address"],
        manifest.options["model"],
        manifest.options.get("version", ""),
        token,
    )


def _compare(model: RemoteModel, found: Any) -> None:
    signed = model.signature
    for side, specs in (("inputs", signed.inputs), ("outputs", signed.outputs)):
        held = {(name, datatype) for name, datatype, _ in found[side]}
        for spec in specs:
            if (spec.name, spec.datatype) not in held:
                raise ModelFailed(
                    f"could not load {model.name}:{model.version}: the remote model has no "
                    f"{spec.datatype} '{spec.name}' among its {side}; register it again"
                )


class RemoteQueue:
    """Calls on their way to one far side, at most so many rows at a time."""

    def __init__(
        self,
        tag: str,
        wire: Wire,
        breaker: Breaker,
        *,
        context: Callable[[], str],
        idempotent: bool,
        max_rows: int,
    ) -> None:
        """`tag` names the version in refusals; the wire is closed with the queue."""
        self._tag = tag
        self._wire = wire
        self.breaker = breaker
        self._context = context
        self._idempotent = idempotent
        self._max_rows = max_rows
        self._rows = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def infer(self, batch: Batch, rows: int, *, deadline: float | None = None) -> Answer:
        """Answer as `batch.Batcher.infer` does; `deadline` is a time of `time.monotonic()`.

        Raises:
            Overloaded, DeadlinePassed, InputInvalid, ModelFailed: as there.
            ModelNotReady: the far side is away, or is left alone for a while.
        """
        if self._closed:
            raise ModelNotReady(f"model '{self._tag}' is being unloaded")
        if self._rows and self._rows + rows > self._max_rows:
            raise Overloaded(f"model '{self._tag}' has {self._rows} rows waiting")
        if not self.breaker.admit():
            raise ModelNotReady(f"the remote of {self._tag} does not answer; come back shortly")
        self._rows += rows
        self._idle.clear()
        started = time.monotonic()
        try:
            outputs = await self._heard(batch, started, deadline)
        finally:
            self._rows -= rows
            if not self._rows:
                self._idle.set()
        return Answer(outputs, 0.0, time.monotonic() - started)

    async def _heard(
        self, batch: Batch, started: float, deadline: float | None
    ) -> dict[str, Array]:
        """One call, whose end tells the breaker how the far side is."""
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - started)):
                outputs = await self._tried(batch, deadline)
        except (Unsent, Lost) as exc:
            self.breaker.failed()
            raise ModelNotReady(f"the remote of {self._tag} is away") from exc
        except TimeoutError as exc:
            long = time.monotonic() - started >= _HEARD_S
            self.breaker.failed() if long else self.breaker.dropped()
            raise DeadlinePassed("the deadline passed before the model answered") from exc
        except (InputInvalid, Overloaded, DeadlinePassed):
            self.breaker.succeeded()
            raise
        except RunnerError:
            self.breaker.failed()
            raise
        except BaseException:
            self.breaker.dropped()  # the caller went away, or a fault of ours
            raise
        self.breaker.succeeded()
        return outputs

    async def _tried(self, batch: Batch, deadline: float | None) -> dict[str, Array]:
        for attempt in range(_ATTEMPTS):
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            try:
                return await self._wire.infer(batch, left, self._context())
            except Unsent:
                if attempt == _ATTEMPTS - 1:
                    raise
            except Lost:
                if attempt == _ATTEMPTS - 1 or not self._idempotent:
                    raise
            await asyncio.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close(self) -> None:
        """Refuse new calls, wait for those under way, drop the connections."""
        self._closed = True
        await self._idle.wait()
        await self._wire.close()
