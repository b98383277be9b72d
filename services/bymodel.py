"""Settings of the form `WORD,MODEL=WORD,…`: a default, and the models that differ from it.

Rule: pure; what a word means is its reader's.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["parse_by_model"]


def parse_by_model(text: str, words: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The default, None where none is given, and the word of each model that is named.

    Args:
        text: such as `sampled,income=all,digits=none`; blanks around the parts do no harm.
        words: those that are understood.

    Raises:
        ValueError: it is not of this form, or names a model twice; says what it must be.
    """
    default: str | None = None
    by_model: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        model, named, word = (piece.strip() for piece in part.rpartition("="))
        if word not in words or (named and not model) or model in by_model:
            raise ValueError(
                f"must be one of {', '.join(words)}, and MODEL={words[0]} or another of them for "
                f"models that differ, each once, such as {words[0]},income={words[-1]}"
            )
        if named:
            by_model[model] = word
        else:
            default = word
    return default, by_model
