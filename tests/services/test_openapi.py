"""The document's examples: small requests that JSON can hold, and none where it cannot."""

from types import SimpleNamespace
from typing import Any

import pytest
from openapi_spec_validator import validate

from runners.tensor import Signature, TensorSpec
from services.openapi import document
from services.values import to_array

INFER = "/v2/models/{model}/infer"
PREDICT = "/v1/models/{model}:predict"


class Fleet:
    """Holds one model, `m`, in versions 1 and 2."""

    def __init__(self, *tensors: TensorSpec, output: str = "FP32") -> None:
        signature = Signature(tensors, (TensorSpec("y", output, (-1, 1)),))
        self._slot = SimpleNamespace(manifest=SimpleNamespace(signature=signature))

    def names(self) -> list[str]:
        return ["m"]

    def versions(self, _: str) -> list[str]:
        return ["1", "2"]

    def slot(self, *_: str) -> Any:
        return self._slot


def examples(found: dict[str, Any], path: str) -> dict[str, Any]:
    content = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    examples: dict[str, Any] = content.get("examples", {})
    return examples


def test_an_example_holds_what_the_signature_asks_for() -> None:
    tensors = (TensorSpec("a", "INT64", (-1, 2)), TensorSpec("b", "BYTES", (-1, -1, 3)))
    found = document(Fleet(*tensors), version="7")
    validate(found)
    assert found["info"]["version"] == "7"
    (a, b) = examples(found, INFER)["m"]["value"]["inputs"]
    assert (a["shape"], b["shape"]) == ([1, 2], [1, 1, 3])
    for item in (a, b):
        to_array(item["data"], item["datatype"], tuple(item["shape"]), item["name"])
    (row,) = examples(found, PREDICT)["m"]["value"]["instances"]
    assert row == {"a": [0, 0], "b": [["text"] * 3]}
    assert found["components"]["parameters"]["version"]["examples"] == {"2": {"value": "2"}}


@pytest.mark.parametrize(
    ("tensors", "output"),
    [
        ([TensorSpec("a", "FP16", (-1, 2))], "FP32"),
        ([TensorSpec("a", "BF16", (-1, 2))], "FP32"),
        ([TensorSpec("a", "FP32", (-1, 2))], "FP16"),
        ([TensorSpec("a", "UINT8", (-1, 28, 28, 1))], "FP32"),
    ],
)
def test_no_example_where_json_cannot_hold_it_or_it_is_large(tensors, output) -> None:
    found = document(Fleet(*tensors, output=output), version="7")
    assert not examples(found, INFER)
    assert not examples(found, PREDICT)


@pytest.mark.parametrize("shape", [(), (4,), (4, 2)])
def test_no_row_of_a_model_that_has_no_rows(shape) -> None:
    found = document(Fleet(TensorSpec("a", "FP32", shape)), version="7")
    assert examples(found, INFER)
    assert not examples(found, PREDICT)


def test_one_document_leaves_nothing_behind_in_the_next() -> None:
    document(Fleet(TensorSpec("a", "FP32", (-1, 2))), version="7")
    found = document(Fleet(TensorSpec("a", "FP16", (-1, 2))), version="8")
    assert not examples(found, INFER)
