"""The steps a pipeline is made of: raw inputs of a batch to one network input each.

Rule 1: a step is data. Everything it needs is in its JSON form; `STEPS[name](**body)` makes it.
Rule 2: a step is pure and vectorised, treats every row alone (but for padding, which the network
must mask), and costs microseconds for one row, since every request pays it.
Rule 3: what training never saw has a place of its own (an unknown slot), so that it is served.
Refusals: InputInvalid names the input; nothing else is raised for what a caller sends.
Boundary: no IO. The batch has passed `Signature.check`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, Protocol

import numpy as np

from .errors import InputInvalid
from .tensor import Array, Batch

__all__ = ["PADDING", "STEPS", "UNKNOWN", "Category", "Index", "MultiHot", "Numeric", "Pixels"]
__all__ += ["Step", "Tokens", "tokenise"]

PADDING: Final = 0
UNKNOWN: Final = 1


class Step(Protocol):
    """One entry of a pipeline; `feed` is the network input it fills."""

    feed: str

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input; the first dimension is the batch."""


def _take(batch: Batch, name: str) -> Array:
    try:
        return batch[name]
    except KeyError as exc:
        raise InputInvalid(f"input '{name}' is missing") from exc


class Pixels:
    """UINT8 (n, h, w, c) to FP32 (n, c, h, w), times `scale`."""

    def __init__(self, *, input: str, feed: str, scale: float) -> None:  # noqa: A002 (JSON's word)
        self.input, self.feed, self.scale = input, feed, np.float32(scale)

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        image = _take(batch, self.input)  # (n, h, w, c)
        return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) * self.scale  # (n, c, h, w)


class Numeric:
    """Columns (n, 1) each to FP32 (n, k): clipped to what training saw, log1p, standardised."""

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        feed: str,
        low: Sequence[float],
        high: Sequence[float],
        log1p: Sequence[bool],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.inputs, self.feed = tuple(inputs), feed
        self.low, self.high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        self.log1p = np.asarray(log1p, np.bool_)
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        columns = [_take(batch, name) for name in self.inputs]
        for name, column in zip(self.inputs, columns, strict=True):
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise InputInvalid(f"input '{name}' holds a value that is not a finite number")
        values = np.concatenate(columns, axis=1, dtype=np.float64, casting="unsafe")  # (n, k)
        np.minimum(np.maximum(values, self.low, out=values), self.high, out=values)
        np.log1p(values, out=values, where=self.log1p)
        return ((values - self.mean) / self.std).astype(np.float32)


class Category:
    """Text columns (n, 1) each to INT64 (n, k): places in one table shared by all columns.

    Column c owns 1 + len(values[c]) places after those of the columns before it; its first place
    is for what training never saw. White space around a value does not matter.
    """

    def __init__(
        self, *, inputs: Sequence[str], feed: str, values: Sequence[Sequence[str]]
    ) -> None:
        self.inputs, self.feed = tuple(inputs), feed
        self._places: list[tuple[str, int, dict[Any, int]]] = []
        start = 0
        for name, known in zip(self.inputs, values, strict=True):
            places = {value.encode(): start + 1 + at for at, value in enumerate(known)}
            self._places.append((name, start, places))
            start += 1 + len(known)
        self.size = start

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        rows = []
        for name, unknown, places in self._places:
            values = _take(batch, name).ravel().tolist()
            try:
                rows.append([places[value] for value in values])
            except (KeyError, TypeError):
                rows.append([self._seek(value, name, unknown, places) for value in values])
        return np.array(rows, dtype=np.int64).T  # (n, k)

    @staticmethod
    def _seek(value: object, name: str, unknown: int, places: dict[Any, int]) -> int:
        return places.get(_text(value, name).strip().encode(), unknown)


class Index:
    """One INT64 column (n, 1) of ids to INT64 (n, 1): 1 + the id's place in `values`, or 0."""

    def __init__(self, *, input: str, feed: str, values: Sequence[int]) -> None:  # noqa: A002
        self.input, self.feed = input, feed
        self.values = np.asarray(values, np.int64)
        if np.any(np.diff(self.values) <= 0):
            raise ValueError(f"the ids of step 'index' on '{input}' are not in order")

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        ids = _take(batch, self.input)
        places = np.minimum(np.searchsorted(self.values, ids), len(self.values) - 1)
        return np.where(self.values[places] == ids, places + 1, 0)


class MultiHot:
    """A text column (n, 1) like "A|B" to FP32 (n, 1 + len(values)); place 0: any unknown word."""

    def __init__(
        self,
        *,
        input: str,  # noqa: A002 (JSON's word)
        feed: str,
        separator: str,
        values: Sequence[str],
    ) -> None:
        self.input, self.feed, self.separator = input, feed, separator
        self._places = {value: 1 + at for at, value in enumerate(values)}

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        column = _take(batch, self.input).ravel().tolist()
        hot = np.zeros((len(column), 1 + len(self._places)), np.float32)
        for row, value in enumerate(column):
            words = (word.strip() for word in _text(value, self.input).split(self.separator))
            hot[row, [self._places.get(word, 0) for word in words if word]] = 1.0
        return hot


class Tokens:
    """Text (n, 1) to INT64 (n, t): numbers of words, 0 where a row is shorter than the longest.

    A text without any token is one unknown token; only the first `max_tokens` count.
    """

    def __init__(
        self,
        *,
        input: str,  # noqa: A002 (JSON's word)
        feed: str,
        pattern: str,
        vocabulary: Sequence[str],
        max_tokens: int,
        max_characters: int,
    ) -> None:
        self.input, self.feed = input, feed
        self.pattern = re.compile(pattern)
        self.max_tokens, self.max_characters = max_tokens, max_characters
        self._numbers = {word: UNKNOWN + 1 + at for at, word in enumerate(vocabulary)}

    def __call__(self, batch: Batch) -> Array:
        """Compute the network input."""
        get = self._numbers.get
        rows = []
        for value in _take(batch, self.input).ravel().tolist():
            text = _text(value, self.input)[: self.max_characters]
            words = islice(tokenise(text, self.pattern), self.max_tokens)
            rows.append([get(word, UNKNOWN) for word in words] or [UNKNOWN])
        numbers = np.full((len(rows), max(map(len, rows), default=1)), PADDING, np.int64)
        for row, found in zip(numbers, rows, strict=True):
            row[: len(found)] = found
        return numbers  # (n, t)


def tokenise(text: str, pattern: re.Pattern[str]) -> Any:
    """The matches of `pattern` in the compatibility-composed, lower-case text, lazily."""
    return (match[0] for match in pattern.finditer(unicodedata.normalize("NFKC", text).lower()))


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise InputInvalid(f"input '{name}' holds a value that is not text")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InputInvalid(
            f"input '{name}' holds bytes that are not UTF-8 (at byte {exc.start})"
        ) from exc


STEPS: Final[dict[str, type[Any]]] = {
    "pixels": Pixels,
    "numeric": Numeric,
    "category": Category,
    "index": Index,
    "multi_hot": MultiHot,
    "tokens": Tokens,
}
