"""Text: which words or characters speak for the label.

Rule: each place counts for itself (the first "not" may matter and the second not), and hiding a
unit removes it from the text. Perturbations, distances and random stream are lime's for
`bow=False, mask_string=""`, so stock lime with the same seed gives the same weights; only the
per-sample loops are gone.
"""

from collections.abc import Callable
from itertools import compress
from typing import Any

import numpy as np
from lime.lime_text import IndexedString, LimeTextExplainer

from .errors import ExplainError
from .model import Array, Batch, FloatArray, Model, only_input
from .result import Feature
from .surrogate import GramBase
from .tokens import units, words
from .weights import Local, local_model

MAX_CHARACTERS = 20_000


class FastTextExplainer(LimeTextExplainer):  # type: ignore[misc]  # lime publishes no types
    """LimeTextExplainer with vectorised masks and the Gram regression."""

    base: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.base = GramBase(self.base.kernel_fn, random_state=self.random_state)

    def _LimeTextExplainer__data_labels_distances(  # noqa: N802 - lime's private name
        self,
        indexed_string: IndexedString,
        classifier_fn: Callable[[list[str]], FloatArray],
        num_samples: int,
        distance_metric: str = "cosine",
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lime's neighbourhood from lime's random stream, for `bow=False` and cosine."""
        if indexed_string.bow or distance_metric != "cosine":
            raise NotImplementedError("only bow=False with the cosine distance")
        size = indexed_string.num_words()
        hidden = self.random_state.randint(1, size + 1, num_samples - 1)
        data = np.ones((num_samples, size))
        for i, count in enumerate(hidden, start=1):
            # RandomState.choice(replace=False) is a permutation cut short, after much checking
            data[i, self.random_state.permutation(size)[:count]] = 0
        shown = np.ones((num_samples, len(indexed_string.as_list)), dtype=bool)
        shown[:, indexed_string.positions] = data.astype(bool)
        texts = ["".join(compress(indexed_string.as_list, row)) for row in shown]
        return data, classifier_fn(texts), 100.0 * (1.0 - np.sqrt(data.sum(axis=1) / size))


def explain_text(
    row: Batch, model: Model, *, target: int, seed: int, samples: int
) -> tuple[Local, tuple[Feature, ...], dict[str, Any]]:
    """The local model of a text, a feature for each unit, and the text itself."""
    name, array = only_input(row, "text")
    text = _text(array)
    places = units(text)
    if not places:
        raise ExplainError("empty_input", "the text has no words or characters to hide")

    def ask(texts: list[str]) -> FloatArray:
        def batch(part: slice) -> Batch:
            cells = np.empty((part.stop - part.start, *array.shape[1:]), dtype=object)
            cells.reshape(len(cells), -1)[:, 0] = [t.encode("utf-8") for t in texts[part]]
            return {name: cells}

        return model.ask_many(len(texts), batch)

    explainer = FastTextExplainer(
        bow=False,
        mask_string="",
        split_expression=words,
        feature_selection="none",
        random_state=np.random.RandomState(seed),
    )
    local = local_model(explainer, text, ask, target=target, samples=samples, count=len(places))
    features = tuple(
        Feature(text[a:b], text[a:b], text[a:b], weight, ((a, b),))
        for (a, b), weight in zip(places, local.weights, strict=True)
    )
    return local, features, {"text": text}


def _text(array: Array) -> str:
    if array.size != 1:
        raise ExplainError("wrong_shape", f"text: expected one element, got {array.shape}")
    raw = array.reshape(-1)[0]
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError as exc:
        raise ExplainError("wrong_shape", "the text is not UTF-8") from exc
    if len(text) > MAX_CHARACTERS:
        raise ExplainError("input_too_large", f"more than {MAX_CHARACTERS} characters")
    return text
