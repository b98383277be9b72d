"""Our messages are what `protoc` makes of inference.proto, and as tritonclient has them."""

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from tritonclient.grpc import service_pb2

from services.oip import METHODS, message

FOLDER = Path(__file__).resolve().parents[2] / "services" / "oip"


def test_the_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    made = tmp_path / "inference.binpb"
    words = ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", "inference.proto"]
    assert protoc.main(words) == 0
    kept = FileDescriptorSet.FromString((FOLDER / "inference.binpb").read_bytes())
    assert kept == FileDescriptorSet.FromString(made.read_bytes())


def test_every_field_has_the_number_and_type_of_tritonclients() -> None:
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    seen: set[str] = set()
    for request, response in METHODS.values():
        for kind in (request, response):
            same_fields(kind.DESCRIPTOR, theirs[kind.DESCRIPTOR.name], seen)
    assert {"inference.ModelConfig", "inference.ModelInput", "inference.ModelStatistics"} <= seen


def same_fields(ours: Any, theirs: Any, seen: set[str]) -> None:
    """Compare a message and, once each, the messages and enums inside it."""
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            other.number,
            other.type,
            other.is_repeated,
        ), field.full_name
        if field.message_type is not None:
            same_fields(field.message_type, other.message_type, seen)
        if field.enum_type is not None:
            values = {value.name: value.number for value in field.enum_type.values}
            assert values == {value.name: value.number for value in other.enum_type.values}


def test_a_message_crosses_over_to_tritonclients_and_back() -> None:
    ours = message("ModelInferRequest")(model_name="m", id="1", raw_input_contents=[b"x"])
    ours.parameters["n"].int64_param = 5
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.parameters["n"].int64_param == 5
    assert type(ours).FromString(theirs.SerializeToString()) == ours
