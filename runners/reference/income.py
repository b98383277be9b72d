"""Income over 50,000 dollars: the Adult census extract, 32,561 people.

Source: xai 0.3.0 (MIT), `xai/data/census.csv`; it carries 12 of Adult's 14 attributes (neither
`fnlwgt` nor `native-country`). Its columns `ethnicity`, `gender` and `loan` are Adult's race, sex
and income; they are served under Adult's names, with underscores. Every value keeps its words,
"?" (not stated) among them; the space before each is dropped.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..pipeline import PIPELINE_VERSION, Pipeline
from ..tensor import Array
from .packages import Package, files_of
from .task import Dataset, Rows, Task, column, stratified, table_signature

__all__ = ["CATEGORIES", "NUMBERS", "TASK", "known_values", "numeric_step"]

PACKAGE: Final = Package(
    name="xai",
    version="0.3.0",
    archive="xai-0.3.0-py3-none-any.whl",
    sha256="b91e3611c3735462b514ee7b5eddd15503eb09eb2c25804acbf9aac502aaf24a",
    members={
        "xai/data/census.csv": "9791f289391d1c169c52b0c325601d9e82f97eac620b7ac9fba381cb063da1af"
    },
)
# Served name and datatype, in Adult's order, and the file's own name.
_COLUMNS: Final = (
    ("age", "INT64", "age"),
    ("workclass", "BYTES", "workclass"),
    ("education", "BYTES", "education"),
    ("education_num", "INT64", "education-num"),
    ("marital_status", "BYTES", "marital-status"),
    ("occupation", "BYTES", "occupation"),
    ("relationship", "BYTES", "relationship"),
    ("race", "BYTES", "ethnicity"),
    ("sex", "BYTES", "gender"),
    ("capital_gain", "INT64", "capital-gain"),
    ("capital_loss", "INT64", "capital-loss"),
    ("hours_per_week", "INT64", "hours-per-week"),
)
NUMBERS: Final = tuple(name for name, datatype, _ in _COLUMNS if datatype == "INT64")
CATEGORIES: Final = tuple(name for name, datatype, _ in _COLUMNS if datatype == "BYTES")
_SKEWED: Final = frozenset({"capital_gain", "capital_loss"})


def _load(cache: Path) -> Dataset:
    text = files_of(PACKAGE, cache)["census.csv"].decode("utf-8")
    lines = [
        tuple(line[field].strip() for *_, field in (*_COLUMNS, ("", "", "loan")))
        for line in csv.DictReader(io.StringIO(text))
    ]
    *columns, loan = zip(*lines, strict=True)
    batch = {
        name: column(values, datatype)
        for (name, datatype, _), values in zip(_COLUMNS, columns, strict=True)
    }
    labels = np.asarray([value == ">50K" for value in loan], dtype=np.int64)
    # Without `fnlwgt` many people look alike; those who do stay in one part.
    alike = [line[:-1] for line in lines]
    return stratified(Rows(batch, labels), labels.tolist(), PACKAGE.source, together=alike)


def numeric_step(
    batch: dict[str, Array], names: Sequence[str], *, skewed: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The `numeric` step whose bounds and moments are those of `batch`."""
    log1p = [name in skewed for name in names]
    values = np.concatenate([batch[name] for name in names], axis=1).astype(np.float64)
    scaled = np.log1p(values, out=values.copy(), where=np.asarray(log1p))
    return {
        "step": "numeric",
        "inputs": list(names),
        "feed": "numeric",
        "low": values.min(axis=0).tolist(),
        "high": values.max(axis=0).tolist(),
        "log1p": log1p,
        "mean": scaled.mean(axis=0).tolist(),
        "std": np.maximum(scaled.std(axis=0), 1e-6).tolist(),
    }


def known_values(values: Array, *, at_least: int = 1) -> list[str]:
    """The words of a BYTES column seen `at_least` times, sorted."""
    counted = Counter(value.decode() for value in values.ravel().tolist())
    return sorted(word for word, count in counted.items() if count >= at_least)


def _pipeline(version: str, data: Dataset) -> Pipeline:  # noqa: ARG001 (both versions read alike)
    batch = dict(data.train.batch)
    return Pipeline(
        {
            "pipeline_version": PIPELINE_VERSION,
            "before": [
                numeric_step(batch, NUMBERS, skewed=_SKEWED),
                {
                    "step": "category",
                    "inputs": list(CATEGORIES),
                    "feed": "categories",
                    "values": [known_values(batch[name]) for name in CATEGORIES],
                },
            ],
            "after": TASK.after(),
        }
    )


TASK: Final = Task(
    name="income",
    kind="dnn",
    modality="table",
    signature=table_signature([(name, datatype) for name, datatype, _ in _COLUMNS]),
    labels=("<=50K", ">50K"),
    positive_label=">50K",
    threshold="0.5",
    protected={
        "sex": {"input": "sex", "bands": None},
        "race": {"input": "race", "bands": None},
    },
    fast_rows=4000,
    load=_load,
    pipeline=_pipeline,
)
