"""Protected attributes: coarsened, counted, every row, and small enough for one record."""

from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.faults import BadRequest
from services.protected import count_groups, parse_attributes

SEX = {"sex": {"input": "sex", "bands": None}}
AGE = {"age_band": {"input": "age", "bands": [18, 35, 50]}}


def manifest(protected: dict[str, object]) -> SimpleNamespace:
    return SimpleNamespace(protected=protected)


def column(*values: object) -> np.ndarray:
    return np.array(values, dtype=object).reshape(-1, 1)


def test_rows_are_counted_by_group_and_label() -> None:
    batch = {"sex": column(b" Female ", b"Male", b"Female")}
    found = count_groups(manifest(SEX), batch, {}, ["yes", "no", "yes"])
    assert found == [({"sex": "Female"}, "yes", 2), ({"sex": "Male"}, "no", 1)]
    assert count_groups(manifest({}), batch, {}, ["yes"] * 3) == []


def test_the_callers_attribute_wins_for_every_row() -> None:
    batch = {"sex": column(b"Female", b"Male")}
    found = count_groups(manifest(SEX), batch, {"sex": "X"}, ["a", "a"])
    assert found == [({"sex": "X"}, "a", 2)]


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (17, "under 18"),
        (18, "18-34"),
        (34, "18-34"),
        (50, "50+"),
        (2**63 - 1, "50+"),
        (-(2**63), "under 18"),
        (b"1e400", "50+"),
        (b"nan", "nan"),
        (b"18-34", "18-34"),
        (b"", "unknown"),
    ],
)
def test_a_number_becomes_its_band(age: object, band: str) -> None:
    found = count_groups(manifest(AGE), {"age": column(age)}, {}, ["a"])
    assert found == [({"age_band": band}, "a", 1)]


def test_an_input_that_is_not_there_is_unknown() -> None:
    assert count_groups(manifest(SEX), {}, {}, ["a"]) == [({"sex": "unknown"}, "a", 1)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=400))
def test_every_row_is_counted_and_the_groups_fit_into_a_record(values: list[bytes]) -> None:
    labels = [str(place % 3) for place in range(len(values))]
    found = count_groups(manifest(SEX | AGE), {"sex": column(*values)}, {}, labels)
    assert sum(n for _, _, n in found) == len(values)
    for label in set(labels):
        assert sum(n for _, own, n in found if own == label) == labels.count(label)


def test_the_worst_groups_fit_into_a_record() -> None:
    rude = [bytes([34, 92]) * 31 + str(n).encode() + "\u0000中".encode() * 50 for n in range(999)]
    found = count_groups(
        manifest(SEX | AGE), {"sex": column(*rude), "age": column(*rude)}, {}, ["a"] * 999
    )
    assert sum(n for _, _, n in found) == 999
    assert len(orjson.dumps([list(group) for group in found])) * 4 / 3 < 60_000


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        "5",
        '{"a": null}',
        '{"a": [1]}',
        '{"a": 1e999}',
        '{"a": "' + "x" * 65 + '"}',
        orjson.dumps({str(n): n for n in range(17)}).decode(),
        '{"a":' * 2000,
    ],
)
def test_attributes_that_are_no_flat_object_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="x-weighbridge-attributes") as refused:
        parse_attributes(text)
    assert "xxx" not in str(refused.value)


def test_attributes_are_text() -> None:
    assert parse_attributes('{"sex": "é", "age": 5, "vip": true}') == {
        "sex": "é",
        "age": "5",
        "vip": "True",
    }
    assert parse_attributes(None) == parse_attributes("") == {}
