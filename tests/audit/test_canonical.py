import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical import decimal, dumps, is_canonical, loads
from audit.errors import DecodeError, EventInvalid

VECTORS = json.loads(Path("tests/vectors/jcs.json").read_text(encoding="utf-8"))["cases"]

_text = st.text(st.characters(exclude_categories=["Cs"]))
_keys = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF))
_numbers = st.integers(-(2**53) + 1, 2**53 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | _numbers | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=20,
)


def slow_jcs(value):
    """RFC 8785 written from its text, for values without floats."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(slow_escape, value)) + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(slow_jcs, value)) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(f"{slow_jcs(key)}:{slow_jcs(value[key])}" for key in keys) + "}"


def slow_escape(character):
    short = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    if character in '"\\':
        return "\\" + character
    if character < " ":
        return short.get(character, f"\\u{ord(character):04x}")
    return character


def test_the_example_of_rfc_8785_has_its_published_bytes():
    case = VECTORS[0]
    assert dumps(case["input"]).hex() == case["hex"]


def test_properties_are_in_the_order_of_rfc_8785():
    case = VECTORS[1]
    assert list(json.loads(dumps(case["input"])).values()) == case["values_in_order"]


@given(json_values)
def test_the_bytes_equal_those_of_an_independent_jcs(value):
    assert dumps(value) == slow_jcs(value).encode()


@given(json_values)
def test_loads_is_the_inverse_of_dumps(value):
    data = dumps(value)
    assert loads(data) == value
    assert is_canonical(data)


@pytest.mark.parametrize(
    "value",
    [0.5, 2**53, -(2**53), {"a": 1.0}, [math.nan], {1: "x"}, {"😀": 1}, "\ud800", b"x", {1, 2}],
)
def test_a_value_without_a_canonical_form_is_refused(value):
    with pytest.raises(EventInvalid):
        dumps(value)


@pytest.mark.parametrize("data", [b'{"b":1,"a":2}', b'{"a": 1}', b"1.0", b'"\\u0041"', b"{", b""])
def test_other_bytes_for_the_same_value_are_not_canonical(data):
    assert not is_canonical(data)


def test_what_is_not_json_is_refused():
    with pytest.raises(DecodeError):
        loads(b"\xff")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_reads_back_as_the_same_float(number):
    text = decimal(number)
    assert float(text) == number
    assert "e" not in text


@pytest.mark.parametrize(("number", "text"), [(0.1, "0.1"), (3.0, "3"), (1e-7, "0.0000001")])
def test_a_decimal_is_the_shortest_without_an_exponent(number, text):
    assert decimal(number) == text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_has_no_decimal(number):
    with pytest.raises(EventInvalid):
        decimal(number)
