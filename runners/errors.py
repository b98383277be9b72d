"""Refusals of this package, split by who is at fault.

Rule: an error names its object and what to do about it, and carries `status_hint`, an HTTP status
that `services/faults.py` may use; this package knows no web framework.
Boundary: only `RunnerError` and its subclasses leave this package on purpose.
"""

from typing import ClassVar

__all__ = [
    "ArtefactCorrupt",
    "DataPackageMissing",
    "DeadlinePassed",
    "DeviceUnavailable",
    "InputInvalid",
    "ModelFailed",
    "ModelNotFound",
    "ModelNotReady",
    "Overloaded",
    "RunnerError",
]


class RunnerError(Exception):
    """Base of every refusal of `runners`."""

    status_hint: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InputInvalid(RunnerError):
    """The caller's tensors do not fit the signature; the message may be shown to the caller."""

    status_hint = 400


class ModelNotFound(RunnerError):
    """No such model or version is held; the message may be shown to the caller."""

    status_hint = 404


class ModelNotReady(RunnerError):
    """The model is loading, unloading or its process is away."""

    status_hint = 503
    retryable = True


class Overloaded(RunnerError):
    """The model's queue is full; the caller may come back a little later."""

    status_hint = 429
    retryable = True


class DeadlinePassed(RunnerError):
    """The caller's deadline passed in the queue or while the model ran."""

    status_hint = 504


class ModelFailed(RunnerError):
    """The model itself raised; details stay in our own log."""

    status_hint = 500


class ArtefactCorrupt(RunnerError):
    """A file of an artefact is not what its signed manifest says; the version is not loaded."""

    status_hint = 503


class DeviceUnavailable(RunnerError):
    """The device that was asked for is not there and no fallback is allowed."""

    status_hint = 503


class DataPackageMissing(RunnerError):
    """A data package could not be fetched or is not the pinned file; training cannot start."""

    status_hint = 503
