r"""What the canonical bytes of a decision look like, as one regular expression.

Parsing a record and writing it again, to see whether its bytes are the canonical ones, takes longer
than all of its hashing. But the fields of a decision are known, and their order; so nearly every
one can be told by its form alone, in one pass that builds no values. What stands before the id is
the same in many of them: a head that was matched once is compared, and only the rest is matched.
Rule: it matches only bytes that are canonical, have exactly a decision's fields, an id, an
instance, a number from 1 and a time that are well-formed. A decision may be all that and not match
(an older schema, text beyond ASCII or with escapes, counts of two labels, numbers from 10^15); then
it is to be parsed. A test compares the two ways.
Source: RFC 8259 (JSON); canonical.py (which of it is canonical).
Read next: contents.py.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any

from .events import Decision

__all__ = ["DecisionForms"]

_KEPT_HEADS = 8
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


def _patterns() -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A whole decision, and what of it begins with the id."""
    kinds = {field.name: field.type for field in fields(Decision)}
    names = sorted({*kinds, *_FORMS})
    parts = [f'"{name}":{_FORMS.get(name) or _KINDS[kinds[name]]}' for name in names]
    rest = ",".join(parts[names.index("id") :]) + r"\}"
    head = ",".join(parts[: names.index("id")])
    return re.compile(rf"\{{{head},{rest}".encode()), re.compile(rest.encode())


_WHOLE, _REST = _patterns()


class DecisionForms:
    """Tells decisions by their form; remembers a few heads."""

    def __init__(self) -> None:
        self._heads: list[bytes] = []

    def match(self, entries: Sequence[bytes]) -> list[_Said | None]:
        """For each entry its id, instance, seq and time_us as they stand there; None = parse it."""
        heads, rest = self._heads, _REST.fullmatch
        head = heads[0] if heads else b""
        if head and all([entry.startswith(head) for entry in entries]):  # noqa: C419  twice as quick
            forms = list(map(rest, entries, repeat(len(head))))
            return [None if form is None else form.groups() for form in forms]
        found: list[_Said | None] = []
        for entry in entries:
            for head in heads:
                if entry.startswith(head):
                    form = rest(entry, len(head))
                    break
            else:
                form = self._whole(entry)
            found.append(None if form is None else form.groups())
        return found

    def _whole(self, entry: bytes) -> re.Match[bytes] | None:
        form = _WHOLE.fullmatch(entry)
        if form is not None:
            self._heads.insert(0, entry[: form.start("id") - len('"id":"')])
            del self._heads[_KEPT_HEADS:]
        return form
