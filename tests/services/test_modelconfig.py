"""A configuration is Triton's: its typed message takes every field, and means the same."""

from types import SimpleNamespace

from google.protobuf.json_format import ParseDict
from tritonclient.grpc import model_config_pb2

from runners.fleet import Slot
from runners.tensor import DTYPES, Signature, TensorSpec
from services.modelconfig import model_config
from services.oip import message

DATATYPES = [*DTYPES, "BF16"] if "BF16" not in DTYPES else [*DTYPES]


def slot(device: str = "cpu") -> Slot:
    tensors = tuple(TensorSpec(f"t{i}", kind, (-1, 2, -1)) for i, kind in enumerate(DATATYPES))
    manifest = SimpleNamespace(
        name="m",
        version="3",
        backend="onnx",
        runtime="onnxruntime 1.31.1",
        digest="sha256:00",
        labels=("a", "b"),
        signature=Signature(tensors, tensors),
    )
    return Slot(manifest, "READY", device=device, runtime="onnxruntime 1.31.1")


def test_tritons_message_takes_every_field_and_ours_gives_the_same_bytes() -> None:
    found = model_config(slot(), max_batch_rows=64)
    theirs = ParseDict(found, model_config_pb2.ModelConfig())
    ours = ParseDict(found, message("ModelConfig")())
    crossed = model_config_pb2.ModelConfig.FromString(ours.SerializeToString())
    assert crossed == theirs
    assert theirs.max_batch_size == 64
    assert theirs.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert [list(t.dims) for t in theirs.input] == [[2, -1]] * len(DATATYPES)
    names = {model_config_pb2.DataType.Name(t.data_type) for t in theirs.output}
    assert names == {"TYPE_STRING" if d == "BYTES" else f"TYPE_{d}" for d in DATATYPES}


def test_the_instance_stands_on_the_device_that_serves() -> None:
    assert model_config(slot(), max_batch_rows=1)["instance_group"][0]["kind"] == "KIND_CPU"
    group = model_config(slot("cuda:1"), max_batch_rows=1)["instance_group"][0]
    assert (group["kind"], group["gpus"]) == ("KIND_GPU", [1])
