"""Will this user like this film: MovieLens-100k, like = a rating of 4 or 5.

Source: recbole 1.2.1, `recbole/dataset_example/ml-100k/` (.inter, .item, .user); the data's own
terms restrict redistribution: it is read at training time and never shipped.
Left out: the two films without a year of release. Version 1 reads features of the user and the
film only; version 2 also learns a vector for each known id, with one kept for unknown ids.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..pipeline import PIPELINE_VERSION, Pipeline
from .income import known_values, numeric_step
from .packages import Package, files_of
from .task import Dataset, Rows, Task, column, stratified, table_signature

__all__ = ["TASK"]

_FOLDER: Final = "recbole/dataset_example/ml-100k/"
PACKAGE: Final = Package(
    name="recbole",
    version="1.2.1",
    archive="recbole-1.2.1-py3-none-any.whl",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    members={
        _FOLDER + "ml-100k.inter": (
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
        ),
        _FOLDER + "ml-100k.item": (
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
        ),
        _FOLDER + "ml-100k.user": (
            "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972"
        ),
    },
)
_INPUTS: Final = (
    ("user_id", "INT64"),
    ("item_id", "INT64"),
    ("age", "INT64"),
    ("gender", "BYTES"),
    ("occupation", "BYTES"),
    ("year", "INT64"),
    ("genres", "BYTES"),
)
_LIKED: Final = 4.0


def _read(data: bytes) -> list[dict[str, str]]:
    """Tab-separated rows; a heading is `name:type`."""
    heading, *lines = csv.reader(
        io.StringIO(data.decode("utf-8")), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    names = [name.partition(":")[0] for name in heading]
    return [dict(zip(names, line, strict=True)) for line in lines if line]


def _load(cache: Path) -> Dataset:
    files = files_of(PACKAGE, cache)
    users = {row["user_id"]: row for row in _read(files["ml-100k.user"])}
    items = {
        row["item_id"]: {"year": row["release_year"], "genres": "|".join(row["class"].split())}
        for row in _read(files["ml-100k.item"])
        if row["release_year"].isdecimal()
    }
    rated = [row for row in _read(files["ml-100k.inter"]) if row["item_id"] in items]
    joined = [{**users[row["user_id"]], **items[row["item_id"]], **row} for row in rated]
    batch = {name: column([row[name] for row in joined], kind) for name, kind in _INPUTS}
    ratings = np.asarray([row["rating"] for row in joined], dtype=np.float32)
    labels = (ratings >= _LIKED).astype(np.int64)
    return stratified(Rows(batch, labels, ratings=ratings), labels.tolist(), PACKAGE.source)


def _words(train: Rows, name: str) -> list[str]:
    return known_values(train.batch[name])


def _pipeline(version: str, data: Dataset) -> Pipeline:
    train = data.train
    genres = sorted({genre for words in _words(train, "genres") for genre in words.split("|")})
    steps: list[dict[str, Any]] = [
        numeric_step(dict(train.batch), ("age", "year")),
        {
            "step": "category",
            "inputs": ["gender", "occupation"],
            "feed": "categories",
            "values": [_words(train, "gender"), _words(train, "occupation")],
        },
        {
            "step": "multi_hot",
            "input": "genres",
            "feed": "genres",
            "separator": "|",
            "values": genres,
        },
    ]
    if version != "1":
        for name, feed in (("user_id", "user"), ("item_id", "item")):
            known = np.unique(train.batch[name]).tolist()
            steps.append({"step": "index", "input": name, "feed": feed, "values": known})
    return Pipeline({"pipeline_version": PIPELINE_VERSION, "before": steps, "after": TASK.after()})


TASK: Final = Task(
    name="recommend",
    kind="dnn",
    modality="table",
    signature=table_signature(_INPUTS, rating=True),
    labels=("dislike", "like"),
    positive_label="like",
    threshold="0.5",
    protected={
        "gender": {"input": "gender", "bands": None},
        "age_band": {"input": "age", "bands": [18, 25, 35, 45, 55]},
    },
    fast_rows=12000,
    load=_load,
    pipeline=_pipeline,
    ids=frozenset({"user_id", "item_id"}),
    rating=True,
)
