"""What `register` finds out about an ONNX file, and what it refuses, in a sentence."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from runners.backends import Opening, open_model
from runners.errors import InputInvalid, RunnerError
from runners.intake.draft import NotRegistered, Port, Wish, parse_port
from runners.intake.onnx import read_onnx
from runners.intake.probe import may_batch
from runners.intake.register import register
from runners.manifest import Manifest
from runners.registry import Registry
from runners.tensor import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import zoo

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CPU = Opening(device="cpu")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


def held(registry: Registry, path: Path, **wish: Any) -> Manifest:
    done = register(
        registry,
        read_onnx(path),
        Wish(**{"name": "m", "version": "1"} | wish),
        signer=SIGNER,
        open_model=lambda artefact: open_model(artefact, CPU),
    )
    return done.manifest


def scaled_by_largest(path: Path) -> Path:
    """Divides by the largest number of all rows: seen only when rows of other sizes meet."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Div", ["x", "top"], ["y"]),
    ]
    return zoo.save(
        path, nodes, [zoo.info("x", T.FLOAT, ["n", 2])], [zoo.info("y", T.FLOAT, ["n", 2])]
    )


def softmax_over_rows(path: Path) -> Path:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    return zoo.save(
        path, nodes, [zoo.info("x", T.FLOAT, ["n", 2])], [zoo.info("y", T.FLOAT, ["n", 2])]
    )


def cumulative(path: Path) -> Path:
    """Each row adds the rows before it."""
    axis = numpy_helper.from_array(np.array(0), "axis")
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["y"])]
    return zoo.save(
        path,
        nodes,
        [zoo.info("x", T.FLOAT, ["n", 2])],
        [zoo.info("y", T.FLOAT, ["n", 2])],
        initializer=[axis],
    )


def random(path: Path) -> Path:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["y"])]
    return zoo.save(
        path, nodes, [zoo.info("x", T.FLOAT, ["n", 2])], [zoo.info("y", T.FLOAT, ["n", 2])]
    )


def compacting(path: Path) -> Path:
    """Gives the non-zero places only: rows out are not rows in."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["at"]),
        helper.make_node("Transpose", ["at"], ["y"]),
    ]
    return zoo.save(
        path, nodes, [zoo.info("x", T.FLOAT, ["n", 2])], [zoo.info("y", T.INT64, [None, 2])]
    )


def constant(path: Path) -> Path:
    """Always zero, whatever comes."""
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes = [helper.make_node("Mul", ["x", "zero"], ["y"])]
    return zoo.save(
        path,
        nodes,
        [zoo.info("x", T.FLOAT, ["n", 2])],
        [zoo.info("y", T.FLOAT, ["n", 2])],
        initializer=[zero],
    )


@pytest.mark.parametrize("make", [zoo.every_datatype, zoo.bfloat, zoo.classifier, zoo.picky])
def test_rows_that_do_not_know_of_one_another_are_batched(registry, tmp_path, make) -> None:
    assert held(registry, make(tmp_path / "m.onnx")).signature.batching == "rows"


@pytest.mark.parametrize(
    "make",
    [
        zoo.mixing,
        zoo.recurrent,
        zoo.scalar,
        scaled_by_largest,
        softmax_over_rows,
        cumulative,
        random,
        compacting,
        constant,
        lambda path: zoo.fixed(path, 1),
        lambda path: zoo.fixed(path, 4),
    ],
)
def test_rows_that_might_are_not(registry, tmp_path, make: Callable[[Path], Path]) -> None:
    assert held(registry, make(tmp_path / "m.onnx")).signature.batching == "none"


def test_the_wish_for_batches_is_met_or_refused(registry, tmp_path) -> None:
    for make in (zoo.mixing, cumulative, zoo.scalar, random):
        with pytest.raises(NotRegistered, match=r"with --batch yes: .*leave the option out"):
            held(registry, make(tmp_path / "m.onnx"), batch="yes")
    assert registry.names() == ()
    assert held(registry, constant(tmp_path / "m.onnx"), batch="yes").signature.batching == "rows"
    rows = zoo.classifier(tmp_path / "m.onnx")
    assert held(registry, rows, batch="no", version="2").signature.batching == "none"


@pytest.mark.parametrize(
    ("inputs", "outputs", "strict", "apart"),
    [
        ([("n", 2)], [("n",)], True, True),
        ([("", 2)], [("n",)], True, True),
        ([("n", 2), ("m", 2)], [("n",)], True, False),
        ([("n", 2), ("m", 2)], [("n",)], False, True),
        ([("n", "n")], [("n",)], True, False),
        ([("n", 2)], [("n", "n")], False, False),
        ([("n", 2)], [(3,)], False, False),
        ([("n", 2), (1,)], [("n",)], False, False),
        ([()], [("n",)], False, False),
    ],
)
def test_shapes_that_allow_rows(inputs, outputs, strict, apart) -> None:
    def ports(found: list[tuple[Any, ...]]) -> list[Port]:
        return [Port(f"t{place}", "FP32", dims) for place, dims in enumerate(found)]

    assert may_batch(ports(inputs), ports(outputs), strict=strict).apart is apart


def test_declared_shapes_that_are_wrong_are_put_right(registry, tmp_path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Shape", ["x"], ["s"])]
    path = zoo.save(
        tmp_path / "m.onnx",
        nodes,
        [zoo.info("x", T.FLOAT, ["n", "w"])],
        [zoo.info("y", T.FLOAT, None), zoo.info("s", T.INT64, None)],
    )
    signature = held(registry, path).signature
    assert [spec.shape for spec in signature.outputs] == [(-1, -1), (2,)]


def test_an_example_stands_in_where_nothing_random_is_answered(registry, tmp_path) -> None:
    """Texts that must be numbers of a table far from zero: random ones are refused."""
    nodes = [
        helper.make_node("Cast", ["word"], ["number"], to=T.INT64),
        helper.make_node("Sub", ["number", "base"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["y"]),
    ]
    base = numpy_helper.from_array(np.array(1000), "base")
    table = numpy_helper.from_array(np.arange(5, dtype=np.float32), "table")
    path = zoo.save(
        tmp_path / "m.onnx",
        nodes,
        [zoo.info("word", T.STRING, ["n"])],
        [zoo.info("y", T.FLOAT, ["n"])],
        initializer=[base, table],
    )
    with pytest.raises(NotRegistered, match="give one with --example"):
        held(registry, path)
    words = np.array([b"1000", b"1003", b"1004"], dtype=object)
    found = held(registry, path, example={"word": words})
    assert found.signature.batching == "rows"
    one = held(registry, path, example={"word": words[:1]}, version="2")
    assert one.signature.batching == "none", "one row cannot show that two may meet"
    for wrong in ({"other": words}, {"word": np.zeros(2)}, {"word": words.reshape(3, 1)}):
        with pytest.raises(NotRegistered, match="could not use the example"):
            held(registry, path, example=wrong, version="3")


def test_warm_up_runs_what_was_tried(registry, tmp_path) -> None:
    held(registry, zoo.picky(tmp_path / "m.onnx"))
    artefact = registry.open("m", "1")
    assert set(artefact.manifest.files) == {"network/model.onnx", "example.bin", "model.yaml"}
    open_model(artefact, CPU).warm_up()


def test_labels_need_an_output_that_can_hold_them(registry, tmp_path) -> None:
    path = zoo.classifier(tmp_path / "m.onnx")
    for wish, says in (
        ({"labels": ("a", "b")}, "could not find output 'label'"),
        ({"labels": ("a", "b"), "label_output": "scores"}, "holds FP32"),
        ({"labels": ("a", "b"), "label_output": "class", "score_output": "z"}, "output 'z'"),
        ({"labels": ("a",), "label_output": "class", "positive_label": "b"}, "--positive-label"),
        ({"label_output": "class"}, "--labels is missing"),
        ({"labels": ("a",), "label_output": "class", "batch": "no"}, "may hold more"),
        ({"labels": ("a", "b", "a"), "label_output": "class"}, "'a' is there twice"),
        (
            {"labels": ("a", "\U0001f600"), "label_output": "class"},
            r"'\\U0001f600': .* up to U\+FFFF",
        ),
        ({"labels": ("a", "b\n"), "label_output": "class"}, "printable"),
    ):
        with pytest.raises(NotRegistered, match=says):
            held(registry, path, **wish)
    found = held(registry, path, labels=("a", "b"), label_output="class", score_output="scores")
    assert (found.label_output, found.score_output, found.explainable) == ("class", "scores", False)


def test_operators_and_types_that_cannot_be_served_are_refused(tmp_path) -> None:
    strange = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [strange], "g", [zoo.info("x", T.FLOAT, [1])], [zoo.info("y", T.FLOAT, [1])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 9
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(NotRegistered, match=r"ONNX Runtime says: .*Frobnicate"):
        read_onnx(tmp_path / "m.onnx")
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["y"])]
    sequence = helper.make_tensor_sequence_value_info("y", T.FLOAT, [1])
    zoo.save(tmp_path / "m.onnx", nodes, [zoo.info("x", T.FLOAT, [1])], [sequence])
    with pytest.raises(NotRegistered, match=r"output 'y' is a seq\(tensor\(float\)\)"):
        read_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"\xffnothing")
    with pytest.raises(NotRegistered, match=r"m\.onnx: it is no ONNX file"):
        read_onnx(tmp_path / "m.onnx")
    nothing = helper.make_node("Constant", [], ["y"], value_float=1.0)
    zoo.save(tmp_path / "m.onnx", [nothing], [], [zoo.info("y", T.FLOAT, [])])
    with pytest.raises(NotRegistered, match="it has no inputs"):
        held(Registry(tmp_path / "home"), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../secret.bin", "not a file below its own folder"),
        ("/etc/hostname", "not a file below its own folder"),
        ("gone.bin", r"data file 'gone\.bin' is missing; put it beside m\.onnx"),
    ],
)
def test_data_files_elsewhere_are_refused(tmp_path, location, says) -> None:
    path = zoo.external(tmp_path / "m.onnx")
    (tmp_path.parent / "secret.bin").write_bytes(b"x" * 20_000)
    proto = onnx.load(str(path), load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(NotRegistered, match=says):
        read_onnx(path)


def test_a_changed_data_file_is_not_loaded(registry, tmp_path) -> None:
    held(registry, zoo.external(tmp_path / "m.onnx"))
    artefact = registry.open("m", "1")
    weights = artefact.path / "network" / "weights.bin"
    weights.write_bytes(b"\0" + weights.read_bytes()[1:])
    with pytest.raises(RunnerError, match=r"weights\.bin.* was changed"):
        open_model(artefact, CPU)


@pytest.mark.parametrize("name", ["M", "../m", ""])
def test_a_name_that_is_no_tag_leaves_nothing(registry, tmp_path, name) -> None:
    with pytest.raises(RunnerError, match="use a-z"):
        held(registry, zoo.classifier(tmp_path / "m.onnx"), name=name)
    assert registry.names() == ()


def test_a_held_tag_is_not_replaced(registry, tmp_path) -> None:
    path = zoo.classifier(tmp_path / "m.onnx")
    first = held(registry, path)
    with pytest.raises(NotRegistered, match="m:1: it is held already; choose another version"):
        held(registry, path)
    assert registry.manifest("m", "1") == first


@pytest.mark.parametrize("text", ["x", "x:FP32", "x:FP99:1", "x:FP32:1,,2", "x:FP32:-2", ":FP32:1"])
def test_an_input_option_that_says_nothing_is_refused(text) -> None:
    with pytest.raises(NotRegistered, match="write it as name:FP32:-1,4"):
        parse_port(text)


def test_an_input_option_is_read() -> None:
    assert parse_port("x:FP32:-1,4") == Port("x", "FP32", ("", 4))
    assert parse_port("flag:BOOL:") == Port("flag", "BOOL", ())
    assert parse_port("x:FP32:-1,4").spec.shape == (-1, 4)


def masked(path: Path) -> Path:
    nodes = [helper.make_node("Mul", ["x", "mask"], ["y"])]
    inputs = [zoo.info(name, T.FLOAT, ["n", "words"]) for name in ("x", "mask")]
    return zoo.save(path, nodes, inputs, [zoo.info("y", T.FLOAT, ["n", "words"])])


def test_sizes_of_one_name_must_be_one_size(registry, tmp_path) -> None:
    signature = held(registry, masked(tmp_path / "m.onnx")).signature
    assert signature.ties == ((("x", 1), ("mask", 1)),)

    def sent(*shapes: tuple[int, ...]) -> dict[str, Tensor]:
        return {
            name: Tensor(name, "FP32", np.zeros(shape, np.float32))
            for name, shape in zip(("x", "mask"), shapes, strict=True)
        }

    assert signature.check(sent((3, 5), (3, 5))) == 3
    with pytest.raises(InputInvalid, match="must have one size: 1 of 'x', 1 of 'mask'"):
        signature.check(sent((3, 5), (3, 4)))
    state = held(registry, zoo.recurrent(tmp_path / "m.onnx"), version="2").signature
    assert state.ties == ((("x", 1), ("h0", 1), ("c0", 1)),)
