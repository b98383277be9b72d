"""The same held-out rows get the same answers from every backend of a model.

Tolerance: 1e-5 absolute on probabilities and scores (FP32, other orders of the same additions).
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runners.backends import Opening, open_model
from runners.errors import DeviceUnavailable, ModelFailed
from runners.intake.draft import NotRegistered, Wish, parse_port
from runners.intake.onnx import read_onnx
from runners.intake.register import register
from runners.intake.sniff import backend_of
from runners.intake.torch import read_torch
from runners.manifest import Manifest
from runners.model import Model
from runners.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))

import networks

ATOL = 1e-5
CPU = Opening(device="cpu")
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# torch 2.13 tells the users of torch.jit to move to torch.export; both are served.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
each_kind = pytest.mark.parametrize("kind", networks.KINDS)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


def held(registry: Registry, draft, version: str = "1", **wish) -> Model:
    """Register and open again, as a server would."""
    register(
        registry,
        draft,
        Wish(name="m", version=version, **wish),
        signer=SIGNER,
        open_model=lambda artefact: open_model(artefact, CPU),
    )
    model = open_model(registry.open("m", version), CPU)
    model.warm_up()
    return model


def manifest(registry: Registry, version: str = "1") -> Manifest:
    return registry.manifest("m", version)


def answer(model: Model, x: np.ndarray) -> np.ndarray:
    (out,) = model.infer({model.signature.inputs[0].name: x}).values()
    return out


def port(kind: str):
    shape = ",".join(str(dim) for dim in networks.KINDS[kind].shape)
    return parse_port(f"x:{networks.KINDS[kind].datatype}:-1,{shape}")


@each_kind
def test_every_form_of_a_network_gives_the_same_answers(registry, tmp_path, kind) -> None:
    script = networks.to_script(kind, tmp_path / "m.pt")
    program = networks.to_program(kind, tmp_path / "m.pt2")
    assert (backend_of(script), backend_of(program)) == ("torchscript", "torch-export")
    models = {
        "onnx": held(registry, read_onnx(networks.to_onnx(kind, tmp_path / "m.onnx")), "1"),
        "torchscript": held(registry, read_torch(script, "torchscript", inputs=[port(kind)]), "2"),
        "torch-export": held(registry, read_torch(program, "torch-export"), "3"),
    }
    x = networks.rows(kind, 37, seed=99)
    expected = networks.expected(kind, x)
    assert expected.std() > 1e-3, "a network that answers anything would pass"
    for place, (backend, model) in enumerate(models.items(), 1):
        np.testing.assert_allclose(answer(model, x), expected, atol=ATOL, err_msg=backend)
        np.testing.assert_allclose(answer(model, x[:1]), expected[:1], atol=ATOL)
        found = manifest(registry, str(place))
        assert (found.backend, found.signature.batching) == (backend, "rows")
        assert model.device == "cpu"
        assert model.runtime.split()[0] in ("onnxruntime", "torch")


def test_a_network_that_writes_into_its_input_changes_nothing_of_the_callers(
    registry, tmp_path
) -> None:
    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mul_(2)
            return x

    torch.jit.script(Writes()).save(str(tmp_path / "m.pt"))
    draft = read_torch(tmp_path / "m.pt", "torchscript", inputs=[parse_port("x:FP32:-1,2")])
    model = held(registry, draft)
    x = np.ones((1, 2), np.float32)
    x.setflags(write=False)
    first, second = answer(model, x), answer(model, x)
    assert first.tolist() == second.tolist() == [[2.0, 2.0]]
    assert x.tolist() == [[1.0, 1.0]]


def test_torch_takes_every_number_type(registry, tmp_path) -> None:
    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"same": x}

    torch.jit.script(Same()).save(str(tmp_path / "m.pt"))
    types = ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
    for place, datatype in enumerate([*types, "FP16", "BF16", "FP32", "FP64"]):
        draft = read_torch(
            tmp_path / "m.pt", "torchscript", inputs=[parse_port(f"x:{datatype}:-1,3")]
        )
        model = held(registry, draft, str(place))
        (spec,) = model.signature.outputs
        assert (spec.name, spec.datatype, spec.shape) == ("same", datatype, (-1, 3))
    x = np.array([[1.5, -2, 1e30]], ml_dtypes.bfloat16)
    bf16 = open_model(registry.open("m", "10"), CPU)
    assert answer(bf16, x).tobytes() == x.tobytes()


def test_several_inputs_and_keywords_of_an_exported_program(registry, tmp_path) -> None:
    class Two(torch.nn.Module):
        def forward(self, a, *, b):
            return a + 10 * b, a - b

    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(
        Two(), (torch.ones(2, 3),), {"b": torch.ones(2, 3)}, dynamic_shapes={"a": rows, "b": rows}
    )
    torch.export.save(program, tmp_path / "m.pt2")
    draft = read_torch(tmp_path / "m.pt2", "torch-export", outputs=["sum", "difference"])
    model = held(registry, draft)
    assert [spec.name for spec in model.signature.inputs] == ["a", "b"]
    found = model.infer({"b": np.ones((1, 3), np.float32), "a": np.zeros((1, 3), np.float32)})
    assert found["sum"].tolist() == [[10.0] * 3]
    assert found["difference"].tolist() == [[-1.0] * 3]


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_an_exported_program_runs_compiled_where_the_manifest_says_so(registry, tmp_path) -> None:
    path = networks.to_program("dnn", tmp_path / "m.pt2")
    model = held(registry, read_torch(path, "torch-export", compiled=True))
    assert manifest(registry).options["compile"] == "true"
    x = networks.rows("dnn", 5, seed=7)
    np.testing.assert_allclose(answer(model, x), networks.expected("dnn", x), atol=ATOL)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], r"give each of its inputs \(x\) in order, for example --input x:FP32:-1,4"),
        (["a:FP32:-1,9", "b:FP32:-1,9"], "give each of its inputs"),
        (["x:FP32:-1,8"], "could not find inputs that the model answers; give one with --example"),
    ],
)
def test_a_script_that_says_too_little_is_refused(registry, tmp_path, inputs, says) -> None:
    path = networks.to_script("dnn", tmp_path / "m.pt")
    with pytest.raises(NotRegistered, match=says):
        held(registry, read_torch(path, "torchscript", inputs=[parse_port(i) for i in inputs]))
    assert registry.names() == ()


def test_saved_weights_and_other_files_are_refused(tmp_path) -> None:
    torch.save(networks.network("dnn").state_dict(), tmp_path / "w.pt")
    with pytest.raises(NotRegistered, match="holds weights without the network"):
        backend_of(tmp_path / "w.pt")
    (tmp_path / "text.pt").write_text("nothing")
    for path in ("text.pt", "missing.pt", "."):
        with pytest.raises(NotRegistered):
            backend_of(tmp_path / path)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_torch_never_falls_back_to_the_cpu_unasked(registry, tmp_path, device) -> None:
    held(registry, read_torch(networks.to_program("dnn", tmp_path / "m.pt2"), "torch-export"))
    artefact = registry.open("m", "1")
    with pytest.raises(DeviceUnavailable, match=f"asked to run on {device}"):
        open_model(artefact, Opening(device=device))
    assert open_model(artefact, Opening(device="auto")).device == "cpu"


def test_a_module_that_raises_is_the_models_fault(registry, tmp_path) -> None:
    held(registry, read_torch(networks.to_program("lstm", tmp_path / "m.pt2"), "torch-export"))
    model = open_model(registry.open("m", "1"), CPU)
    with pytest.raises(ModelFailed, match="could not run m:1"):
        model.infer({"x": np.full((1, 6), 1000)})


@pytest.fixture(scope="module")
def tensorflow_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the TensorFlow backend says to the held-out rows, from a process of its own."""
    folder = tmp_path_factory.mktemp("tensorflow")
    for kind in networks.KINDS:
        x = networks.rows(kind, 37, seed=99)
        np.savez(folder / f"{kind}.npz", held_out=x, **networks.weights(kind))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tensorflow_child.py")), str(folder)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(folder / "answers.npz", allow_pickle=True))


@each_kind
def test_a_saved_model_gives_the_same_answers(tensorflow_answers, kind) -> None:
    x = networks.rows(kind, 37, seed=99)
    expected = networks.expected(kind, x)
    np.testing.assert_allclose(tensorflow_answers[kind], expected, atol=ATOL)
    assert tensorflow_answers[f"{kind}_batching"] == "rows"


def test_a_saved_model_takes_texts_and_refuses_a_missing_card(tensorflow_answers) -> None:
    assert tensorflow_answers["upper"].tolist() == [[b"A"], [b"BC"]]
    assert "asked to run on cuda" in str(tensorflow_answers["cuda"])
    assert "it has 'serving_default'" in str(tensorflow_answers["unknown"])


def test_an_artefact_of_a_library_that_is_missing_says_which(registry, tmp_path) -> None:
    held(registry, read_torch(networks.to_program("dnn", tmp_path / "m.pt2"), "torch-export"))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from runners.backends import Opening, open_model\n"
        "from runners.errors import DeviceUnavailable\n"
        "from runners.registry import Registry\n"
        f"registry = Registry(Path({str(registry.home)!r}))\n"
        "try:\n    open_model(registry.open('m', '1'), Opening(device='cpu'))\n"
        "except DeviceUnavailable as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert "the package 'torch' is missing here; install the extra 'torch'" in done.stdout


def test_a_manifest_without_a_known_pair_is_not_opened(registry, tmp_path) -> None:
    held(registry, read_torch(networks.to_program("dnn", tmp_path / "m.pt2"), "torch-export"))
    artefact = registry.open("m", "1")
    wrong = artefact._replace(manifest=replace(artefact.manifest, backend="torchscript"))
    with pytest.raises(ModelFailed, match="could not load a TorchScript file"):
        open_model(wrong, CPU)
