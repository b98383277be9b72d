"""Small ONNX models of every awkward kind, made with onnx.helper, for the tests of `register`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

OPSET = 17
ELEMENTS = {
    "BOOL": T.BOOL,
    "INT8": T.INT8,
    "INT16": T.INT16,
    "INT32": T.INT32,
    "INT64": T.INT64,
    "UINT8": T.UINT8,
    "UINT16": T.UINT16,
    "UINT32": T.UINT32,
    "UINT64": T.UINT64,
    "FP16": T.FLOAT16,
    "FP32": T.FLOAT,
    "FP64": T.DOUBLE,
    "BYTES": T.STRING,
}


def info(name: str, element: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **more: Any) -> Path:
    graph = helper.make_graph(nodes, "zoo", inputs, outputs, **more)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


def every_datatype(path: Path) -> Path:
    """Thirteen inputs of thirteen types, each given back: rows of two."""
    nodes = [helper.make_node("Identity", [f"in_{n}"], [f"out_{n}"]) for n in ELEMENTS]
    inputs = [info(f"in_{name}", element, ["rows", 2]) for name, element in ELEMENTS.items()]
    outputs = [info(f"out_{name}", element, ["rows", 2]) for name, element in ELEMENTS.items()]
    return save(path, nodes, inputs, outputs)


def bfloat(path: Path) -> Path:
    """Doubles a BF16 row and gives it as BF16 and as FP32."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=T.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=T.BFLOAT16),
    ]
    outputs = [info("y", T.BFLOAT16, ["n", 3]), info("z", T.FLOAT, ["n", 3])]
    return save(path, nodes, [info("x", T.BFLOAT16, ["n", 3])], outputs)


def recurrent(path: Path) -> Path:
    """An LSTM with its state as inputs and outputs; the batch is dimension 1 of everything."""
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (1, 16, 3)), ("r", (1, 16, 4)))
    ]
    node = helper.make_node(
        "LSTM", ["x", "w", "r", "", "", "h0", "c0"], ["y", "h1", "c1"], hidden_size=4
    )
    inputs = [
        info("x", T.FLOAT, ["time", "batch", 3]),
        info("h0", T.FLOAT, [1, "batch", 4]),
        info("c0", T.FLOAT, [1, "batch", 4]),
    ]
    outputs = [
        info("y", T.FLOAT, ["time", 1, "batch", 4]),
        info("h1", T.FLOAT, [1, "batch", 4]),
        info("c1", T.FLOAT, [1, "batch", 4]),
    ]
    return save(path, [node], inputs, outputs, initializer=weights)


def fixed(path: Path, rows: int) -> Path:
    """Takes exactly `rows` rows of two and adds one."""
    one = numpy_helper.from_array(np.ones((1,), np.float32), "one")
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    shape = [rows, 2]
    return save(
        path, nodes, [info("x", T.FLOAT, shape)], [info("y", T.FLOAT, shape)], initializer=[one]
    )


def scalar(path: Path) -> Path:
    """A scalar and a vector in, their product's sum out, as a scalar."""
    nodes = [
        helper.make_node("Mul", ["x", "by"], ["p"]),
        helper.make_node("ReduceSum", ["p"], ["total"], keepdims=0),
    ]
    inputs = [info("x", T.FLOAT, ["n"]), info("by", T.FLOAT, [])]
    return save(path, nodes, inputs, [info("total", T.FLOAT, [])])


def empty(path: Path) -> Path:
    """Joins no columns to some: one input has a dimension of size zero."""
    nodes = [helper.make_node("Concat", ["none", "some"], ["y"], axis=1)]
    inputs = [info("none", T.FLOAT, ["n", 0]), info("some", T.FLOAT, ["n", 2])]
    return save(path, nodes, inputs, [info("y", T.FLOAT, ["n", 2])])


def mixing(path: Path) -> Path:
    """Takes the mean of all rows from each: rows know of one another, the shapes do not say so."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save(path, nodes, [info("x", T.FLOAT, ["n", 2])], [info("y", T.FLOAT, ["n", 2])])


def classifier(path: Path) -> Path:
    """Two probabilities and a label, in tensors called as somebody liked."""
    nodes = [
        helper.make_node("Softmax", ["features"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["features"], ["class"], axis=1, keepdims=0),
    ]
    outputs = [info("scores", T.FLOAT, ["n", 2]), info("class", T.INT64, ["n"])]
    return save(path, nodes, [info("features", T.FLOAT, ["n", 2])], outputs)


def external(path: Path) -> Path:
    """A matrix kept in a file beside the network."""
    weight = numpy_helper.from_array(
        np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32), "w"
    )
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    save(
        path,
        nodes,
        [info("x", T.FLOAT, ["n", 64])],
        [info("y", T.FLOAT, ["n", 64])],
        initializer=[weight],
    )
    model = onnx.load(str(path))
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def picky(path: Path) -> Path:
    """Looks rows of a table up: a number beyond 2 is refused by the runtime."""
    table = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "table")
    nodes = [helper.make_node("Gather", ["table", "word"], ["y"])]
    return save(
        path,
        nodes,
        [info("word", T.INT64, ["n", "words"])],
        [info("y", T.FLOAT, ["n", "words", 4])],
        initializer=[table],
    )
