"""What a reader finds in a foreign model before it was run, and what is wished for it.

Rule: a dimension is a number, or the name of a size that is chosen per call; "" is a size without
a name. Two dimensions of one name always have one size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ..errors import RunnerError
from ..manifest import Backend
from ..tensor import DTYPES, Batch, Batching, TensorSpec

__all__ = ["Draft", "Kind", "NotRegistered", "Port", "Wish", "named_once", "parse_port", "ties_of"]

Kind = Literal["cnn", "lstm", "dnn"]
_MAX_MESSAGE: Final = 700
_PORT: Final = re.compile(r"(?P<name>[^:]+):(?P<datatype>[A-Z0-9]+):(?P<dims>[-,0-9]*)")


class NotRegistered(RunnerError):
    """The model cannot be registered; the sentence says why and what to do. Nothing was changed.

    Args:
        message: the sentence; what a library said in it is put into one line and cut.
    """

    status_hint = 400

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split())[:_MAX_MESSAGE])


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: `dims` holds numbers, and names of sizes ("" when unnamed)."""

    name: str
    datatype: str
    dims: tuple[int | str, ...]

    @property
    def spec(self) -> TensorSpec:
        """The same for the signature: every chosen size is -1."""
        return TensorSpec(
            self.name,
            self.datatype,
            tuple(-1 if isinstance(dim, str) else dim for dim in self.dims),
        )


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A foreign model, read and not yet run.

    Attributes:
        files: where each file of the artefact's `network/` folder is now.
        opset: the ONNX opset, 0 for anything else.
        outputs: declared outputs; a wrong or unknown shape is put right by running the model.
    """

    backend: Backend
    framework: str
    runtime: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    opset: int = 0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What whoever registers a model says about it.

    Attributes:
        kind: which runner service serves it, where models run in services of their own.
        labels: names of the classes that `label_output` gives, by number or by name.
        batch: "auto" looks and asks; "yes" refuses the model unless rows may meet; "no" never.
        example: inputs that the model answers, instead of random ones.
    """

    name: str
    version: str
    kind: Kind = "dnn"
    labels: tuple[str, ...] = ()
    label_output: str | None = None
    score_output: str | None = None
    positive_label: str | None = None
    threshold: str | None = None
    batch: Literal["auto", "yes", "no"] = "auto"
    example: Batch | None = None


def parse_port(text: str) -> Port:
    """Read `name:FP32:-1,4`; an empty list of dimensions is a scalar.

    Raises:
        NotRegistered: not of that form.
    """
    match = _PORT.fullmatch(text)
    dims = match["dims"].split(",") if match and match["dims"] else []
    if match is None or match["datatype"] not in DTYPES or not all(map(_is_dim, dims)):
        raise NotRegistered(
            f"could not read --input '{text}': write it as name:FP32:-1,4 with a datatype of the "
            "protocol (-1 for a size that varies)"
        )
    return Port(match["name"], match["datatype"], tuple("" if d == "-1" else int(d) for d in dims))


def _is_dim(text: str) -> bool:
    return text == "-1" or text.isdecimal()


def ties_of(inputs: Sequence[Port], batching: Batching) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The dimensions that one name ties together, but for the rows, which are checked anyway."""
    found: dict[str, list[tuple[str, int]]] = {}
    for port in inputs:
        for axis, dim in enumerate(port.dims):
            if isinstance(dim, str) and dim and not (axis == 0 and batching == "rows"):
                found.setdefault(dim, []).append((port.name, axis))
    return tuple(tuple(places) for places in found.values() if len(places) > 1)


def named_once(ports: Sequence[Port], what: str) -> None:
    """Refuse no ports at all, or two of one name.

    Raises:
        NotRegistered: as said.
    """
    names = [port.name for port in ports]
    if not names:
        raise NotRegistered(f"could not register the model: it has no {what}")
    if len(set(names)) != len(names):
        raise NotRegistered(f"could not register the model: two {what} have one name")
