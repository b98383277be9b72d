"""V1 rows to tensors and back."""

import numpy as np
import orjson
import pytest

from runners.tensor import Signature, TensorSpec
from services.faults import BadRequest
from services.v1 import decode_instances, encode_predictions

IMAGE = Signature((TensorSpec("image", "UINT8", (-1, 2, 2, 1)),), ())
TABLE = Signature((TensorSpec("age", "INT64", (-1, 1)), TensorSpec("sex", "BYTES", (-1, 1))), ())
ROW = {"age": 1, "sex": "x"}


def decode(signature: Signature, instances: object) -> dict[str, np.ndarray]:
    found = decode_instances(orjson.dumps({"instances": instances}), signature)
    return {name: tensor.data for name, tensor in found.items()}


def test_rows_of_named_columns_become_one_tensor_each() -> None:
    found = decode(TABLE, [ROW, {"sex": "é", "age": 2}])
    assert found["age"].tolist() == [[1], [2]]
    assert found["sex"].tolist() == [[b"x"], ["é".encode()]]


def test_a_model_with_one_input_takes_bare_values() -> None:
    pixels = [[[1], [2]], [[3], [4]]]
    for instance in (pixels, {"image": pixels}, [1, 2, 3, 4]):
        assert decode(IMAGE, [instance, instance])["image"].shape == (2, 2, 2, 1)


@pytest.mark.parametrize(
    ("signature", "instances"),
    [
        (IMAGE, []),
        (IMAGE, {}),
        (IMAGE, 5),
        (IMAGE, None),
        (IMAGE, [5]),
        (IMAGE, [None]),
        (IMAGE, [[1, 2, 3]]),
        (IMAGE, [[1, 2, 3], [1, 2, 3, 4, 5]]),
        (IMAGE, [[1, 2, 3, True]]),
        (IMAGE, [[1, 2, 3, 256]]),
        (IMAGE, [{"picture": [1, 2, 3, 4]}]),
        (TABLE, [5]),
        (TABLE, [[1, "x"]]),
        (TABLE, [{"age": 1}]),
        (TABLE, [ROW | {"extra": 1}]),
        (TABLE, [ROW, ROW | {"age": None}]),
        (TABLE, [ROW, ROW | {"age": 1.0}]),
        (TABLE, [ROW, ROW | {"age": [1, 2]}]),
        (TABLE, [ROW, ROW | {"sex": 5}]),
        (TABLE, [ROW, ROW | {"sex": {}}]),
    ],
)
def test_instances_that_do_not_fit_are_refused(signature, instances) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(signature, instances)
    assert 10 < len(str(refused.value)) < 200


def test_the_column_form_is_refused_with_the_other_ones_name() -> None:
    with pytest.raises(BadRequest, match="instances"):
        decode_instances(b'{"inputs": {"age": [1]}}', TABLE)


def test_predictions_are_plain_rows() -> None:
    specs = (TensorSpec("p", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1, 1)))
    outputs = {
        "p": np.array([[0.5, 0.5], [1, 0]], np.float32),
        "t": np.array([[b"a"], [b"\xff"]], dtype=object),
    }
    assert orjson.loads(encode_predictions(specs, outputs)) == {
        "predictions": [{"p": [0.5, 0.5], "t": "a"}, {"p": [1.0, 0.0], "t": "\ufffd"}]
    }


STATE = Signature((TensorSpec("x", "FP32", (1, 2)), TensorSpec("t", "INT64", ())), (), "none")


def test_a_model_that_does_not_batch_takes_one_instance_of_whole_tensors() -> None:
    found = decode(STATE, [{"x": [[1, 2]], "t": 7}])
    assert found["x"].tolist() == [[1.0, 2.0]]
    assert (found["t"].shape, found["t"].tolist()) == ((), 7)
    with pytest.raises(BadRequest, match="one instance at a time"):
        decode(STATE, [{"x": [[1, 2]], "t": 7}] * 2)


def test_answers_whose_rows_differ_are_one_prediction() -> None:
    specs = (TensorSpec("y", "FP32", (-1,)), TensorSpec("total", "FP32", ()))
    outputs = {"y": np.array([1.0, 2.0]), "total": np.array(3.0)}
    found = orjson.loads(encode_predictions(specs, outputs))
    assert found == {"predictions": [{"y": [1.0, 2.0], "total": 3.0}]}


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), ()])
def test_bf16_answers_are_numbers(shape) -> None:
    specs = (TensorSpec("y", "BF16", (-1,) * len(shape)),)
    found = encode_predictions(specs, {"y": np.full(shape, 1.5, "bfloat16")})
    assert b"1.5" in found
