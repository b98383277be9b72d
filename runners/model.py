"""The seam every backend fills: one loaded version of one model.

Rule: `infer` is a pure function of its batch, safe to call from one thread at a time, and never
changes its inputs; a model is used only after `warm_up`.
Boundary: tensors in, tensors out; the caller has already checked them against `signature`.
Read next: onnx.py (a backend), batchqueue.py and batch.py (who calls `infer`), link.py (the same in
another process).
"""

from __future__ import annotations

from typing import Protocol

from .tensor import Array, Batch, Signature

__all__ = ["Model"]


class Model(Protocol):
    """One version, loaded. All attributes are constant after construction."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The exact version tag."""

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits: the artefact's, preprocessing included."""

    @property
    def runtime(self) -> str:
        """The library that computes, with its version."""

    @property
    def device(self) -> str:
        """What computes: `cpu` or `cuda:0`, as the backend itself reports it."""

    @property
    def signature(self) -> Signature:
        """What the caller sends and receives."""

    @property
    def inline(self) -> bool:
        """Whether `infer` does nothing but compute on this processor: no card, network or lock."""

    def warm_up(self) -> None:
        """Run once per batch size that matters, so that no caller pays for it."""

    def infer(self, batch: Batch) -> dict[str, Array]:
        """Answer every row of `batch`; each output's first dimension is the rows.

        Raises:
            InputInvalid: a value that preprocessing refuses.
            ModelFailed: the backend raised.
        """
