r"""What the canonical bytes of a decision look like, as one regular expression.

Parsing a record and writing it again, to see whether its bytes are the canonical ones, takes longer
than all of its hashing. But the fields of a decision are known, and their order; so nearly every
one can be told by its form alone, in one pass that builds no values. Many share what their gateway
says once: of a kind that was seen, what stands before the id is compared, and in the rest the
shared values are looked for as they stood.
Rule: it matches only bytes that are canonical, have exactly a decision's fields, an id, an
instance, a number from 1 and a time that are well-formed. A decision may be all that and not match
(an older schema, text beyond ASCII or with escapes, counts of two labels, numbers from 10^15); then
it is to be parsed. A test compares the two ways.
Source: RFC 8259 (JSON); canonical.py (which of it is canonical).
Read next: contents.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from .canonical import dumps
from .events import Decision
from .form import SHARED

__all__ = ["DecisionForms"]

_KEPT_KINDS = 16
_Said = tuple[bytes, ...]

_TEXT = r'"[ !#-\[\]-~]*+"'
_NUMBER = r"(?:0|[1-9][0-9]{0,14}+)"
_KINDS: dict[Any, str] = {
    str: _TEXT,
    int: _NUMBER,
    str | None: f"(?:{_TEXT}|null)",
    int | None: f"(?:{_NUMBER}|null)",
}
_FORMS = {
    "type": f'"{Decision.type}"',
    "schema": f"{Decision.schema}",
    "id": r'"(?P<id>[ !#-\[\]-~]*+)"',
    "instance": r'"(?P<instance>[ !#-\[\]-~]*+)"',
    "seq": "(?P<seq>[1-9][0-9]{0,14}+)",
    "time_us": "(?P<time_us>[1-8][0-9]{15})",
    "latency_us": rf'\{{"infer":{_NUMBER},"queue":{_NUMBER},"total":{_NUMBER}\}}',
    "label_counts": rf"\{{(?:{_TEXT}:{_NUMBER})?\}}",
    "sampling": rf'\{{"probability":{_TEXT},"rule":{_TEXT},"selected":(?:true|false)\}}',
}


_NAMES = sorted({field.name for field in fields(Decision)} | set(_FORMS))
_AT_ID = _NAMES.index("id")


def _pattern(names: Sequence[str], like: Mapping[str, Any] | None = None) -> str:
    """These fields one after another.

    With `like`, the shared ones as they stand there, and others missing only where they are.
    """
    kinds = {field.name: field.type for field in fields(Decision)}
    parts = []
    for name in names:
        form = _FORMS.get(name) or _KINDS[kinds[name]]
        if like is not None and name not in _FORMS:
            if name in SHARED or like[name] is None:
                form = re.escape(dumps(like[name]).decode())
            elif type(like[name]) is str:
                form = _TEXT
        parts.append(f'"{name}":{form}')
    return ",".join(parts)


_WHOLE = re.compile(rf"\{{{_pattern(_NAMES)}\}}".encode())


class _Kind(NamedTuple):
    """Decisions that agree in what a gateway says once (form.py): their head, and the rest."""

    head: bytes
    rest: Callable[[bytes, int], "re.Match[bytes] | None"]


class DecisionForms:
    """Tells decisions by their form; learns a few kinds of them, and looks at less of those."""

    def __init__(self) -> None:
        self._kinds: list[_Kind] = []

    def match(self, entries: Sequence[bytes]) -> list[_Said | None]:
        """For each entry its id, instance, seq and time_us as they stand there; None = parse it."""
        if self._kinds:
            head, rest = self._kinds[0]
            if all([entry.startswith(head) for entry in entries]):  # noqa: C419  twice as quick
                forms = list(map(rest, entries, repeat(len(head))))
                if None not in forms:
                    return [form.groups() for form in forms if form is not None]
        return [self._said(entry) for entry in entries]

    def _said(self, entry: bytes) -> _Said | None:
        for head, rest in self._kinds:
            if entry.startswith(head):
                form = rest(entry, len(head))
                if form is not None:
                    return form.groups()
        form = _WHOLE.fullmatch(entry)
        if form is None:
            return None
        if len(self._kinds) < _KEPT_KINDS:
            self._learn(entry, entry[: form.start("id") - len('"id":"')])
        return form.groups()

    def _learn(self, entry: bytes, head: bytes) -> None:
        rest = _pattern(_NAMES[_AT_ID:], orjson.loads(entry))
        self._kinds.insert(0, _Kind(head, re.compile(rf"{rest}\}}".encode()).fullmatch))
