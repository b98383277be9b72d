r"""What the canonical bytes of a decision look like, as one regular expression.

Parsing a record and writing it again, to see whether its bytes are the canonical ones, takes longer
than all of its hashing. But the fields of a decision are known, and their order; so nearly every
one can be told by its form alone, in one pass that builds no values. Many share what their gateway
says once: of a kind that was seen, the shared values are looked for as they stood.
Rule: it matches only bytes that are canonical, have exactly a decision's fields, an id, an
instance, a number from 1 and a time that are well-formed. A decision may be all that and not match
(an older schema, text beyond ASCII or with escapes, counts of two labels, numbers from 10^15); then
it is to be parsed. A test compares the two ways.
Source: RFC 8259 (JSON); canonical.py (which of it is canonical).
Read next: contents.py, link_server.py (who ask).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import chain, repeat
from typing import Any, cast

import orjson

from .bundle import Bundle
from .canonical import dumps
from .events import Decision
from .form import SHARED

__all__ = ["DecisionForms", "decision_id"]

_KEPT_KINDS = 16
_MISSES = 4096  # to learn a kind takes milliseconds
_Said = tuple[bytes, ...]
_Form = re.Match[bytes] | None

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
    "id": r'"(?P<id>[ !#-\[\]-~]++)"',
    "instance": r'"(?P<instance>[ !#-\[\]-~]*+)"',
    "seq": "(?P<seq>[1-9][0-9]{0,14}+)",
    "time_us": "(?P<time_us>[1-8][0-9]{15})",
    "latency_us": rf'\{{"infer":{_NUMBER},"queue":{_NUMBER},"total":{_NUMBER}\}}',
    "label_counts": rf"\{{(?:{_TEXT}:{_NUMBER})?\}}",
    "sampling": rf'\{{"probability":{_TEXT},"rule":{_TEXT},"selected":(?:true|false)\}}',
}


def _compiled(like: Mapping[str, Any] | None = None) -> re.Pattern[bytes]:
    """A whole decision.

    With `like`, the shared fields as they stand there, and others missing only where they are.
    """
    kinds = {field.name: field.type for field in fields(Decision)}
    parts = []
    for name in sorted(kinds.keys() | _FORMS.keys()):
        form = _FORMS.get(name) or _KINDS[kinds[name]]
        if like is not None and name not in _FORMS:
            if name in SHARED or like[name] is None:
                form = re.escape(dumps(like[name]).decode())
            elif type(like[name]) is str:
                form = _TEXT
        parts.append(f'"{name}":{form}')
    return re.compile(rf"\{{{','.join(parts)}\}}".encode())


_WHOLE = _compiled()


def decision_id(entry: bytes) -> str | None:
    """The id of a decision in canonical bytes; None where they are to be parsed. About 3 µs."""
    form = _WHOLE.fullmatch(entry)
    return None if form is None else form["id"].decode()


class DecisionForms:
    """Tells decisions by their form; learns a few kinds of them, and looks at less of those."""

    def __init__(self) -> None:
        self._kinds: list[re.Pattern[bytes]] = []  # the one that was seen last is the first
        self._misses = 0

    def match(self, bundles: Sequence[Bundle]) -> list[_Said | None]:
        """For each entry its id, instance, seq and time_us as they stand there; None = parse it."""
        forms = self._of_first_kind(bundles)
        if None in forms:
            for place, entry in enumerate(chain.from_iterable(bundles)):
                if forms[place] is None:
                    forms[place] = self._form(entry)
            return [None if form is None else form.groups() for form in forms]
        return list(map(re.Match.groups, cast("list[re.Match[bytes]]", forms)))

    def _of_first_kind(self, bundles: Sequence[Bundle]) -> list[_Form]:
        if not self._kinds:
            return [None] * sum(map(len, bundles))
        datas = chain.from_iterable([repeat(bundle.data, len(bundle)) for bundle in bundles])
        starts = chain.from_iterable([bundle.starts for bundle in bundles])
        ends = chain.from_iterable([bundle.ends for bundle in bundles])
        return list(map(self._kinds[0].fullmatch, datas, starts, ends))

    def _form(self, entry: bytes) -> _Form:
        for kind in self._kinds:
            form = kind.fullmatch(entry)
            if form is not None:
                self._kinds.remove(kind)
                self._kinds.insert(0, kind)
                return form
        form = _WHOLE.fullmatch(entry)
        if form is not None:
            self._missed(entry)
        return form

    def _missed(self, entry: bytes) -> None:
        self._misses += 1
        if len(self._kinds) < _KEPT_KINDS or self._misses % _MISSES == 0:
            self._kinds.insert(0, _compiled(orjson.loads(entry)))
            del self._kinds[_KEPT_KINDS:]
