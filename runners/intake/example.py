"""Inputs to try a foreign model with: random, of the declared shapes, and as mild as it needs.

Rule: the first attempt that the model answers is kept; a caller's own example comes before all of
them. Everything is drawn from a fixed seed, so that registering twice tries the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from ..errors import InputInvalid, ModelFailed
from ..tensor import DTYPES, Array, Batch
from .draft import NotRegistered, Port

__all__ = ["Infer", "Recipe", "draw", "find_recipe", "sizes_of"]

Infer = Callable[[Batch], dict[str, Array]]
Style = Literal["varied", "small", "zero"]
_STYLES: Final[tuple[Style, ...]] = ("varied", "small", "zero")
_SIZES: Final = (4, 16, 32, 64, 224, 1)
_WORDS: Final = np.array([b"a", b"bc", "é".encode(), b"7", b"word", b""], dtype=object)
_DIGITS: Final = np.array([b"1", b"2", b"3"], dtype=object)
_HIGHEST: Final = {"varied": 9, "small": 1, "zero": 0}


class Recipe(NamedTuple):
    """How to draw inputs that the model answers: how wild, and how large the free sizes are."""

    style: Style
    size: int


def draw(ports: Sequence[Port], recipe: Recipe, rows: int, rng: np.random.Generator) -> Batch:
    """One batch: a first dimension that varies is `rows`, every other free size `recipe.size`."""
    sizes = sizes_of(ports, rows, recipe.size)
    return {
        port.name: _values(port.datatype, sizes[port.name], recipe.style, rng) for port in ports
    }


def sizes_of(ports: Sequence[Port], rows: int, size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each input; a name that any input has as its first dimension means `rows`."""
    first = {port.dims[0] for port in ports if port.dims and isinstance(port.dims[0], str)}
    return {
        port.name: tuple(
            dim if isinstance(dim, int) else rows if place == 0 or (dim and dim in first) else size
            for place, dim in enumerate(port.dims)
        )
        for port in ports
    }


def _values(datatype: str, shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Array:
    dtype: np.dtype[Any] = DTYPES[datatype]
    if datatype == "BYTES":
        return rng.choice(_WORDS if style == "varied" else _DIGITS, shape).astype(object)
    if dtype.kind in "iu":
        return rng.integers(0, _HIGHEST[style] + 1, shape).astype(dtype)
    if style == "zero":
        return np.zeros(shape, dtype)
    if datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return np.asarray(values if style == "varied" else np.abs(values), dtype=dtype)


def find_recipe(ports: Sequence[Port], infer: Infer) -> Recipe:
    """The wildest inputs that the model answers.

    Raises:
        NotRegistered: it answers none of them.
    """
    refusal: Exception | None = None
    for recipe in _recipes(ports):
        try:
            infer(draw(ports, recipe, 2, np.random.default_rng(0)))
        except (ModelFailed, InputInvalid) as exc:
            refusal = refusal or (exc.__cause__ if isinstance(exc.__cause__, Exception) else exc)
        else:
            return recipe
    raise NotRegistered(
        "could not find inputs that the model answers; give one with --example (a JSON infer "
        f"body). It said: {refusal}"
    )


def _recipes(ports: Sequence[Port]) -> Iterator[Recipe]:
    free = any(isinstance(dim, str) for port in ports for dim in port.dims[1:])
    for size in _SIZES if free else _SIZES[:1]:
        for style in _STYLES:
            yield Recipe(style, size)
