"""What every way to another server has in common: the place, the two failures, the refusals.

Rule: what a failed call may have caused is in its type. `Unsent`: the far side never had it.
`Lost`: it may have run. Everything else is an answer, told as the refusals of this package.
Read next: wire_http.py and wire_grpc.py (the ways), remote.py (who chooses and calls).
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from .errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotReady,
    Overloaded,
    RunnerError,
)
from .tensor import Array, Batch

__all__ = ["MAX_REPLY_BYTES", "Lost", "Metadata", "Place", "Unsent", "Wire", "refusal"]

MAX_REPLY_BYTES: Final = 256 << 20

Metadata = dict[str, list[tuple[str, str, tuple[int, ...]]]]


class Unsent(Exception):
    """No connection: the far side never had the request."""


class Lost(Exception):
    """The far side may have had the request, and no answer came back."""


class Place(NamedTuple):
    """Where a remote model is; the token is sent as a bearer, and is never written anywhere."""

    address: str
    model: str
    version: str
    token: str | None

    def __repr__(self) -> str:
        """Without the token and the address."""
        return f"Place({self.model!r})"


class Wire(Protocol):
    """One way to one remote model."""

    async def infer(self, batch: Batch, timeout_s: float | None, context: str) -> dict[str, Array]:
        """One call; raises Unsent, Lost or a RunnerError."""

    async def close(self) -> None:
        """Drop the connections of `infer`."""

    def metadata(self, timeout_s: float) -> Metadata:
        """The far side's model metadata, blocking."""

    def infer_once(self, batch: Batch, timeout_s: float) -> dict[str, Array]:
        """`infer`, blocking, on a connection of its own."""

    def close_once(self) -> None:
        """Drop the connections of the blocking calls."""


def refusal(status: int) -> RunnerError:
    """What a status of the far side means for our caller; never its text."""
    if status in (400, 413, 422):
        return InputInvalid("the remote model refused the input")
    if status == 429:
        return Overloaded("the remote model is overloaded")
    if status == 504:
        return DeadlinePassed("the deadline passed before the remote model answered")
    if status in (404, 502, 503):
        return ModelNotReady("the remote model is not ready")
    return ModelFailed(f"the remote model answered with status {status}")
