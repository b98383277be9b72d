r"""Where a text can be cut: words, Chinese and Japanese characters, marks of emphasis.

Rule: a unit is a word of letters (with apostrophes and hyphens inside), a number, one CJK
character, one emoji or symbol, or a run of exclamation and question marks. So a Chinese sentence
is many units, where lime's own `\W+` makes it one. Other punctuation is never a unit.
Texts with more than `MAX_UNITS` units are cut into equal runs of neighbouring units.
"""

import re
from typing import NamedTuple

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = rf"[^\W_{CJK}]+(?:['’\-][^\W_{CJK}]+)*"
_SYMBOL = "[\u2600-\u27bf\U0001f000-\U0001faff]"
UNIT = re.compile(rf"[{CJK}]|{_WORD}|{_SYMBOL}|[!?！？]+")
MAX_UNITS = 120


class Unit(NamedTuple):
    """The characters [start, end) of a text."""

    start: int
    end: int


def units(text: str) -> list[Unit]:
    """The units of `text` in order, at most `MAX_UNITS`.

    >>> [text[a:b] for text in ["Don't buy 这本书!!"] for a, b in units(text)]
    ["Don't", 'buy', '这', '本', '书', '!!']
    """
    found = [Unit(*match.span()) for match in UNIT.finditer(text)]
    size = -(-len(found) // MAX_UNITS) or 1
    runs = [found[i : i + size] for i in range(0, len(found), size)]
    return [Unit(run[0].start, run[-1].end) for run in runs]


def words(text: str) -> list[str]:
    """The units as texts: a tokenizer for lime's `split_expression`."""
    return [text[unit.start : unit.end] for unit in units(text)]
