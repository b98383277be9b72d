"""The plain models that a text network must beat, trained on the same split.

`bag_of_words`: logistic regression on which words occur. `bag_of_words_lexicon`: the same, with
what the lexicon says of a text's words (sum, gains, losses, strongest, mean, none), so that the
network is also compared with something that was told as much as it was.
Boundary: token feeds in, a JSON-ready table out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from .evaluation import by_group, macro_f1
from .fit import Part
from .task import Rows

__all__ = ["baselines"]

_FIRST_WORD: Final = 2  # 0 is padding, 1 the unknown word


def baselines(train: Part, test: Part, rows: Rows, valences: NDArray[np.float32]) -> dict[str, Any]:
    """Macro-F1 and accuracy of both baselines, in all and by group.

    Args:
        train: token feeds to learn from.
        test: token feeds of `rows`.
        rows: the held-out rows, with their groups.
        valences: what the lexicon says of each token number.
    """
    words = [_occurrences(part, len(valences)) for part in (train, test)]
    known = [
        hstack([seen, csr_matrix(_lexicon(part, valences))]).tocsr()
        for seen, part in zip(words, (train, test), strict=True)
    ]
    return {
        "bag_of_words": _fitted(words, train, rows, strength=1.0),
        "bag_of_words_lexicon": _fitted(known, train, rows, strength=0.3),
    }


def _fitted(features: list[Any], train: Part, rows: Rows, *, strength: float) -> dict[str, Any]:
    model = LogisticRegression(C=strength, solver="newton-cg", tol=1e-5, max_iter=100)
    model.fit(features[0], train.labels)
    found = model.predict(features[1])
    return {
        "accuracy": round(float((found == rows.labels).mean()), 6),
        "macro_f1": macro_f1(rows.labels, found),
        "by_group": by_group(rows, found),
    }


def _occurrences(part: Part, words: int) -> Any:
    tokens = part.feeds["tokens"]  # (n, t)
    rows, places = np.nonzero(tokens >= _FIRST_WORD)
    counted = csr_matrix(
        (np.ones(len(rows)), (rows, tokens[rows, places])), shape=(len(tokens), words)
    )
    return (counted > 0).astype(np.float64)


def _lexicon(part: Part, valences: NDArray[np.float32]) -> NDArray[np.float64]:
    tokens = part.feeds["tokens"]
    said = valences[tokens].astype(np.float64)  # (n, t)
    columns = [
        said.sum(axis=1),
        said.clip(min=0).sum(axis=1),
        said.clip(max=0).sum(axis=1),
        np.abs(said).max(axis=1),
        said.sum(axis=1) / (tokens != 0).sum(axis=1),
        (said == 0).all(axis=1),
    ]
    return np.stack(columns, axis=1)
