"""The pipeline: every step by example, rows alone, refusals by name, and the round trip."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import ArtefactCorrupt, InputInvalid, ModelFailed
from runners.pipeline import Pipeline
from runners.steps import Category, Index, MultiHot, Numeric, Pixels, Tokens, tokenise

PATTERN = r"[a-z]+|[\u3400-\u9fff]"


def text(*values: bytes) -> np.ndarray[Any, Any]:
    cells = np.empty((len(values), 1), dtype=object)
    cells[:, 0] = values
    return cells


def body(threshold: str | None = "0.5", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pipeline_version": "1",
        "before": [
            {
                "step": "numeric",
                "inputs": ["age", "gain"],
                "feed": "numeric",
                "low": [17.0, 0.0],
                "high": [90.0, 1000.0],
                "log1p": [False, True],
                "mean": [40.0, 0.0],
                "std": [10.0, 1.0],
            },
            {
                "step": "category",
                "inputs": ["sex", "job"],
                "feed": "categories",
                "values": [["Female", "Male"], ["Clerk"]],
            },
        ],
        "after": {
            "outputs": {"p": "probabilities"},
            "label": {"from": "probabilities", "threshold": threshold},
        },
    }
    return {**found, **changes}


def test_numbers_are_clipped_logged_and_standardised() -> None:
    step = Numeric(
        inputs=["a", "b"], feed="n", low=[0, 0], high=[10, 100], log1p=[False, True],
        mean=[5.0, 0.0], std=[5.0, 2.0],
    )  # fmt: skip
    found = step({"a": np.array([[10], [-3], [2**62]]), "b": np.array([[0], [-1], [50]])})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0], [-1, 0], [1, np.log(51) / 2]], rtol=1e-6)


def test_a_float_that_is_not_finite_is_refused_by_name() -> None:
    step = Numeric(inputs=["a"], feed="n", low=[0], high=[1], log1p=[False], mean=[0], std=[1])
    with pytest.raises(InputInvalid, match="input 'a' holds a value that is not a finite number"):
        step({"a": np.array([[np.nan]])})


def test_a_numeric_step_leaves_its_input_alone() -> None:
    step = Numeric(inputs=["a"], feed="n", low=[0], high=[1], log1p=[True], mean=[0], std=[1])
    values = np.array([[7.0]])
    step({"a": values})
    assert values[0, 0] == 7.0


def test_categories_share_one_table_and_keep_a_place_for_the_unknown() -> None:
    step = Category(inputs=["s", "j"], feed="c", values=[["F", "M"], ["x"]])
    found = step({"s": text(b"F", b"M", b"?"), "j": text(b"x", b"y", b" x ")})
    assert found.tolist() == [[1, 4], [2, 3], [0, 4]]
    assert step.size == 5


def test_a_category_that_is_not_utf8_is_refused_by_name() -> None:
    step = Category(inputs=["job"], feed="c", values=[["x"]])
    with pytest.raises(InputInvalid, match="input 'job' holds bytes that are not UTF-8"):
        step({"job": text(b"\xff\xfe")})


def test_a_category_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputInvalid, match="input 'job' holds a value that is not text"):
        Category(inputs=["job"], feed="c", values=[["x"]])({"job": text([1])})  # type: ignore[arg-type]


def test_unknown_ids_take_place_zero() -> None:
    step = Index(input="u", feed="user", values=[3, 7, 9])
    ids = np.array([[3], [9], [8], [-1], [2**62]])
    assert step({"u": ids}).tolist() == [[1], [3], [0], [0], [0]]


def test_ids_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not in order"):
        Index(input="u", feed="user", values=[3, 2])


def test_words_between_separators_are_marked() -> None:
    step = MultiHot(input="g", feed="genres", separator="|", values=["Action", "Comedy"])
    found = step({"g": text(b"Comedy|Action", b"", b" Comedy |Opera")})
    assert found.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]


def test_pixels_become_channels_first_between_zero_and_one() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 3, 2)
    found = Pixels(input="i", feed="x", scale=1 / 255)({"i": image})
    assert found.shape == (1, 2, 2, 3)
    assert found.dtype == np.float32
    assert found[0, 1, 0, 2] == np.float32(5 / 255)


def tokens(**changes: Any) -> Tokens:
    settings: dict[str, Any] = {
        "input": "text", "feed": "tokens", "pattern": PATTERN, "vocabulary": ["good", "好"],
        "max_tokens": 4, "max_characters": 40,
    }  # fmt: skip
    return Tokens(**{**settings, **changes})


def test_words_and_han_characters_are_numbered_and_padded() -> None:
    found = tokens()({"text": text(b"Good bad", "很好!".encode(), b"", b"good")})
    assert found.tolist() == [[2, 1], [1, 3], [1, 0], [2, 0]]


def test_full_width_letters_are_the_letters() -> None:
    assert tokens()({"text": text("ＧＯＯＤ".encode())}).tolist() == [[2]]


def test_only_the_first_tokens_and_characters_count() -> None:
    assert tokens()({"text": text(b"good " * 7)}).shape == (1, 4)
    long = text(b" " * 40 + b"good")
    assert tokens()({"text": long}).tolist() == [[1]]


def test_text_that_is_not_utf8_is_refused_by_name() -> None:
    with pytest.raises(InputInvalid, match="input 'text' holds bytes that are not UTF-8"):
        tokens()({"text": text(b"fine", b"caf\xe9")})


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_a_row_has_the_same_tokens_alone_and_in_a_batch(values: list[str]) -> None:
    step = tokens()
    rows = [value.encode("utf-8", "replace") for value in values]
    together = step({"text": text(*rows)})
    for row, value in zip(together, rows, strict=True):
        alone = step({"text": text(value)})[0]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert not row[len(alone) :].any()


@given(st.text(max_size=200))
def test_tokens_cover_any_text_without_refusal(value: str) -> None:
    assert all(re.fullmatch(PATTERN, token) for token in tokenise(value, re.compile(PATTERN)))


def test_before_and_after_of_a_whole_pipeline() -> None:
    pipeline = Pipeline(body())
    feeds = pipeline.before(
        {
            "age": np.array([[50], [30]]),
            "gain": np.array([[0], [0]]),
            "sex": text(b"Male", b"Female"),
            "job": text(b"Clerk", b"Smith"),
        }
    )
    assert feeds["numeric"].tolist() == [[1, 0], [-1, 0]]
    assert feeds["categories"].tolist() == [[2, 4], [1, 3]]
    raw = np.array([[0.5, 0.5], [0.6, 0.4]], np.float32)
    served = pipeline.after({"p": raw, "extra": raw})
    assert list(served) == ["probabilities", "label"]
    assert served["label"].tolist() == [[1], [0]]
    assert served["label"].dtype == np.int64


def test_without_a_threshold_the_label_is_the_largest() -> None:
    served = Pipeline(body(None)).after({"p": np.array([[0.2, 0.5, 0.3]], np.float32)})
    assert served["label"].tolist() == [[1]]


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputInvalid, match="input 'age' is missing"):
        Pipeline(body()).before({})


def test_a_missing_output_is_the_models_fault() -> None:
    with pytest.raises(ModelFailed, match="gave no output 'p'"):
        Pipeline(body()).after({})


def test_format_and_parse_are_inverse() -> None:
    data = Pipeline(body()).format()
    assert Pipeline.parse(data).format() == data
    assert Pipeline.parse(data).body == body()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"pipeline_version": "2", "before": []}',
        b'{"pipeline_version": "1", "before": [{"step": "eval"}]}',
        b'{"pipeline_version": "1", "before": [{"step": "pixels", "input": "x"}]}',
        b'{"pipeline_version": "1", "before": []}',
    ],
)
def test_what_is_no_known_pipeline_is_corrupt(data: bytes) -> None:
    with pytest.raises(ArtefactCorrupt, match=r"could not interpret pipeline\.json"):
        Pipeline.parse(data)


def test_a_missing_file_is_corrupt(tmp_path: Any) -> None:
    with pytest.raises(ArtefactCorrupt, match=r"could not read pipeline\.json"):
        Pipeline.load(tmp_path / "pipeline.json")
