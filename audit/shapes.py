"""Whether an event's values are of the types that its fields declare.

An entry is JSON, and a dataclass holds whatever it is given; so what another process sends may be
canonical, have a decision's fields, and say `"seq":"one"`. Once stored it would stay for ever.
Rule 1: pure; a field's annotation in events.py is the type, exactly: `True` is no integer. What
lies inside of `JSON` is anything, but for the groups of a window: those are added up. Numbers that
a report computes with are decimals.
Rule 2: numbers given to answers start where a verifier wants them to (contents.py), and a gap ends
where a process can have got to: one of 2^52 would explain away every answer to come. No time is
before 1970; an id is never empty. An instance and a type are ASCII: they become keys in the report
of a pack, and not every text can be one (canonical.py).
Rule 3: an event of a newer version is left alone but for type, id and time: its fields are not
known here.
Read next: admission.py (who refuses), reader.py (who passes over what was stored before).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeAlias, get_args, get_origin

from .errors import EventInvalid
from .events import (
    ALL,
    Counters,
    Decision,
    DecisionV1,
    Event,
    ExplanationRecord,
    FairnessWindow,
    Gap,
    Outcome,
    UnknownEvent,
)

__all__ = ["check_values", "flaw", "mistyped"]

_Check: TypeAlias = Callable[[Any], bool]

_LEAST: dict[type[Event], dict[str, int]] = {
    Decision: {"seq": 1},
    DecisionV1: {"seq": 1},
    Gap: {"first_seq": 1, "last_seq": 1},
    Counters: {"seq": 0},
    Outcome: {"observed_us": 0},
    FairnessWindow: {"from_leaf": 0, "to_leaf": 1, "minimum_count": 0},
}
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MOST_REFUSED = 1 << 30  # more than a gateway process can keep in mind


def check_values(event: Event) -> None:
    """Refuse an event that no gateway makes.

    Raises:
        EventInvalid: names the field, and nothing of what it holds.
    """
    found = flaw(event)
    if found is not None:
        raise EventInvalid(f"could not store a {event.type or 'record'}: {found}")


def flaw(event: Event) -> str | None:
    """What is wrong with an event, in words that repeat nothing of it; None if it may be stored."""
    field = mistyped(event)
    if field is not None:
        return f"its {field} is of the wrong type"
    if not event.id:
        return "its id is empty"
    if event.time_us < 0:
        return "its time_us is below 0: it counts from 1970"
    if isinstance(event, UnknownEvent) and not str(event.body.get("type")).isascii():
        return "its type is not in ASCII"
    for name, least in _LEAST.get(type(event), {}).items():
        if getattr(event, name) < least:
            return f"its {name} is below {least}"
    if isinstance(event, Gap) and not 0 <= event.last_seq - event.first_seq < _MOST_REFUSED:
        return f"its last_seq must follow its first_seq, by less than {_MOST_REFUSED} numbers"
    for name, good, said in _WITHIN.get(type(event), ()):
        if not good(getattr(event, name)):
            return f"its {name} {said}"
    return None


def mistyped(event: Event) -> str | None:
    """The first field whose value is not of its type; None if there is none. About 3 µs."""
    for name, good in _CHECKS.get(type(event), ()):
        if not good(getattr(event, name)):
            return name
    return None


def _check_for(hint: Any) -> _Check | None:
    """Whether a value is of the type `hint`; None where any is."""
    if isinstance(hint, str):  # canonical.JSON, which names itself
        return None
    if isinstance(hint, UnionType):
        return _one_of(get_args(hint))
    kind = get_origin(hint)
    if kind in (dict, list):
        return _all_in(kind, _check_for(get_args(hint)[-1]))  # keys of JSON are text
    if hint not in (str, int, bool):
        raise TypeError(f"could not check fields of type {hint!r}: say here how")
    return _one_of((hint,))


def _one_of(kinds: tuple[Any, ...]) -> _Check:
    if not {str, int, bool, NoneType}.issuperset(kinds):
        raise TypeError(f"could not check fields of types {kinds!r}: say here how")
    allowed = frozenset(kinds)
    return lambda value: type(value) in allowed


def _all_in(kind: type[dict[Any, Any]] | type[list[Any]], part: _Check | None) -> _Check:
    def good(value: Any) -> bool:
        if type(value) is not kind:
            return False
        parts = value.values() if isinstance(value, dict) else value
        return part is None or all(map(part, parts))

    return good


def _checks(kind: type[Event]) -> tuple[tuple[str, _Check], ...]:
    found = [(field.name, _check_for(field.type)) for field in fields(kind)]
    return tuple([(name, check) for name, check in found if check is not None])


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_decimal(value: Any) -> bool:
    """Whether it is as `canonical.decimal` writes a number, or None for want of one."""
    if value is None:
        return True
    good = type(value) is str and _DECIMAL.fullmatch(value) is not None
    return good and math.isfinite(float(value))


def _is_ascii(value: str) -> bool:
    return value.isascii()


_GROUP: Mapping[str, _Check] = {
    "group": _is_text,
    "n": _is_count,
    "positive": _is_count,
    "selection_rate": _is_decimal,
    "impact_ratio": _is_decimal,
    "verdict": _is_text,
}


def _are_groups(groups: list[dict[str, Any]]) -> bool:
    return all(
        name in group and good(group[name]) for group in groups for name, good in _GROUP.items()
    )


_CHECKS = {kind: _checks(kind) for kind in ALL}
_INSTANCE: tuple[str, _Check, str] = ("instance", _is_ascii, "is not in ASCII")
_WITHIN: dict[type[Event], tuple[tuple[str, _Check, str], ...]] = {
    Decision: (_INSTANCE,),
    DecisionV1: (_INSTANCE,),
    Gap: (_INSTANCE,),
    Counters: (_INSTANCE,),
    FairnessWindow: (("groups", _are_groups, "are not counts, rates and verdicts of groups"),),
    ExplanationRecord: tuple(
        [(name, _is_decimal, "is no number") for name in ("fit_r2", "local_error", "stability")]
    ),
}
