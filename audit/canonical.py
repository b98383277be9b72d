"""Canonical bytes: one JSON value has one byte string, everywhere and for ever.

Implements a subset of JCS (RFC 8785): objects with sorted keys, strings, integers below 2^53,
booleans, null and lists; no white space; no JSON floats (a number that is not an integer is
written as a string by `decimal`). The bytes come from orjson, which escapes strings as JCS does;
its key order (UTF-8 bytes) is JCS's order (UTF-16 units) as long as no key holds a character
above U+FFFF, so such keys are refused.
Rule: pure functions; a refusal raises EventInvalid and changes nothing.
Read next: record.py.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

import orjson

from .errors import DecodeError, EventInvalid

JSON: TypeAlias = "bool | int | str | list[JSON] | dict[str, JSON] | None"

_SCALARS = frozenset({str, int, bool, type(None)})
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_MAX_KEY_CHARACTER = "\uffff"


def dumps(value: object) -> bytes:
    """The canonical bytes of `value`.

    Raises:
        EventInvalid: a float, an integer of 2^53 or more, a lone surrogate, a key that is not
            text or holds a character above U+FFFF, or any other Python type.
    """
    check(value)
    return dumps_checked(value)


def dumps_checked(value: object) -> bytes:
    """As `dumps`, for a value whose parts already went through `check`."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (TypeError, RecursionError) as exc:  # orjson.JSONEncodeError is a TypeError
        raise EventInvalid(f"could not encode a value canonically: {exc}") from exc


def check(value: object) -> None:
    """Refuse, by raising EventInvalid, anything that has no canonical form."""
    try:
        _check(value)
    except RecursionError:  # and orjson writes no more than 254 levels
        raise EventInvalid("could not encode a value: it is nested too deeply") from None


def _check(value: object) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if isinstance(value, dict) and kind is dict:
        _check_keys(value)
        parts: Iterable[object] = value.values()
    elif isinstance(value, list | tuple) and kind in (list, tuple):
        parts = value
    elif kind is float:
        raise EventInvalid(
            f"could not encode {value!r}: floats have no canonical form, use decimal()"
        )
    else:
        raise EventInvalid(f"could not encode a {kind.__name__}: only JSON types are canonical")
    for part in parts:
        if type(part) not in _SCALARS:
            _check(part)


def _check_keys(keys: Iterable[object]) -> None:
    try:
        joined = "".join(keys)  # type: ignore[arg-type]  # what is not text raises here
    except TypeError as exc:
        raise EventInvalid(f"could not encode an object: a key is not text: {exc}") from exc
    if not joined.isascii() and max(joined) > _MAX_KEY_CHARACTER:
        raise EventInvalid("could not encode an object: a key goes above U+FFFF")


def loads(data: bytes) -> JSON:
    """Parse JSON bytes; the inverse of `dumps` (`loads(dumps(x)) == x`, with lists for tuples).

    Raises:
        DecodeError: the bytes are not JSON in UTF-8.
    """
    try:
        value: JSON = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"could not parse JSON: {exc}") from exc
    return value


def is_canonical(data: bytes) -> bool:
    """Whether `data` is exactly what `dumps` would write for the value it holds."""
    try:
        return dumps(loads(data)) == data
    except (DecodeError, EventInvalid):
        return False


def decimal(number: float) -> str:
    """The shortest decimal text that reads back as the same float; the inverse of `float`.

    Never an exponent: "0.0000001", not "1e-07"; whole numbers have no point: "3".

    Raises:
        EventInvalid: the number is not finite.
    """
    if not math.isfinite(number):
        raise EventInvalid(f"could not write {number!r}: only finite numbers are recorded")
    text = repr(float(number))
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")
