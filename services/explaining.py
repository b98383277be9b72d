"""One explanation, at once, for one instance: `POST /v1/models/{m}:explain`.

Rule: the explained answer is a decision like any other, recorded with its payloads and selected by
the rule `on_demand`; the explanation is made by the explainer service from the same artefact and
recorded before it is answered. At most `limit` run at a time; the next caller is told to come back.
Boundary: `explain` is the explainer service's call; without one, 501.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from runners.errors import InputInvalid, ModelNotReady, Overloaded
from runners.tensor import pack

from .dataplane import DataPlane, Reply, Request
from .faults import BadRequest, Unsupported

__all__ = ["Explaining", "RemoteExplain"]

# decision id, model, version, unit reference, base64 of the packed input
# -> {"explanation"} or {"error", "status"}
RemoteExplain = Callable[[str, str, str, str, str], Awaitable[dict[str, Any]]]


class Explaining:
    """Explains on demand."""

    def __init__(self, plane: DataPlane, remote: RemoteExplain | None, *, limit: int = 4) -> None:
        """`remote` asks the explainer service; None when it is switched off."""
        self._plane = plane
        self._remote = remote
        self._limit = limit
        self._running = 0

    async def explain(self, request: Request) -> tuple[Reply, dict[str, Any]]:
        """Decide, record, explain.

        Raises:
            Unsupported: there is no explainer.
            BadRequest: more than one row.
            Overloaded: `limit` explanations are running.
        """
        if self._remote is None:
            raise Unsupported("explanations are switched off on this server")
        newest = self._plane.fleet.versions(request.model)[-1:]
        for version in [request.version] if request.version else newest:
            if not self._plane.fleet.slot(request.model, version).manifest.explainable:
                raise Unsupported(
                    f"model '{request.model}' was registered without what an explanation needs"
                )
        rows = {tensor.data.shape[:1] for tensor in request.inputs.values()}
        if rows != {(1,)}:
            raise BadRequest(":explain takes exactly one instance")
        if self._running >= self._limit:
            raise Overloaded("explanations are being made already; come back shortly")
        self._running += 1
        try:
            request.on_demand = True
            reply = await self._plane.infer(request)
            packed = pack({name: tensor.data for name, tensor in request.inputs.items()})
            text = base64.b64encode(packed).decode()
            found = await self._remote(
                reply.decision, reply.model, reply.version, reply.unit_ref, text
            )
        finally:
            self._running -= 1
        if "error" in found:
            kind = InputInvalid if found.get("status") == 400 else ModelNotReady
            raise kind(str(found["error"]))
        return reply, {
            "model_name": reply.model,
            "model_version": reply.version,
            "decision": reply.decision,
            "explanation": found["explanation"],
        }
