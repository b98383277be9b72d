"""What an infer body of the Open Inference Protocol says, and the checks of its smaller members.

Rule: an optional member that is null is one that was not sent: generated clients write it.
Boundary: values that JSON gave; codec.py and shortcuts.py read the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runners.tensor import Tensor

from .faults import BadRequest

__all__ = [
    "Decoded",
    "Parameters",
    "checked_id",
    "checked_parameters",
    "parameters_of",
    "requested_outputs",
]

_MAX_ID = 256
Parameters = dict[str, str | int | float | bool]


class Decoded(NamedTuple):
    """What one infer body says."""

    request_id: str
    parameters: Parameters
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...] | None
    binary: Mapping[str, bool]
    binary_default: bool


def checked_id(found: object) -> str:
    """A request id as the caller gave it; "" when there is none.

    Raises:
        BadRequest: not a text, or a very long one.
    """
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _MAX_ID:
        raise BadRequest(f"'id' must be a string of at most {_MAX_ID} characters")
    return found


def parameters_of(item: Mapping[str, Any], where: str) -> Parameters:
    """The parameters of a request, an input or an output; {} when there are none.

    Raises:
        BadRequest: not an object, or of values that are none.
    """
    found = item.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest(f"'parameters' of {where} must be an object")
    return checked_parameters(found, where)


def checked_parameters(found: dict[str, Any], where: str) -> Parameters:
    """The same, of an object that is there.

    Raises:
        BadRequest: a value is not a string, a number or a boolean.
    """
    for value in found.values():
        if not isinstance(value, str | int | float | bool):
            raise BadRequest(f"'parameters' of {where}: values are strings, numbers or booleans")
    return found


def requested_outputs(listed: object) -> tuple[tuple[str, ...] | None, dict[str, bool]]:
    """The outputs that are asked for, None for all, and which of them as binary data or not.

    Raises:
        BadRequest: no list of named outputs, or an extension that we do not have.
    """
    if listed is None:
        return None, {}
    if not isinstance(listed, list):
        raise BadRequest("'outputs' must be a list")
    binary: dict[str, bool] = {}
    names: list[str] = []
    for item in listed:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise BadRequest("an output has no 'name'")
        parameters = parameters_of(item, f"output '{name}'")
        if "classification" in parameters:
            raise BadRequest("the classification extension is not supported; leave it out")
        if "binary_data" in parameters:
            binary[name] = parameters["binary_data"] is True
        names.append(name)
    return tuple(names) or None, binary
