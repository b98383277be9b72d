"""The Open Inference Protocol's gRPC messages, built in a descriptor pool of our own.

Rule: two packages that define `inference.*` cannot share the default pool ("duplicate symbol"), and
tritonclient defines it, too; so these messages live in a private pool and both can be imported.
`inference.binpb` is `protoc --descriptor_set_out` of `inference.proto`; a test makes it anew and
compares.
`Envelope` is `ModelInferRequest` with its inputs left as bytes, which is the same on the wire (a
message and a byte string are both length-delimited): who knows the bytes need not parse them.
Boundary: messages only; rpc.py serves them.
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "POOL", "SERVICE", "Envelope", "message"]

SERVICE = "inference.GRPCInferenceService"
POOL = descriptor_pool.DescriptorPool()

_FILES = descriptor_pb2.FileDescriptorSet.FromString(
    (resources.files(__package__) / "inference.binpb").read_bytes()
)
for _file in _FILES.file:
    POOL.Add(_file)


def message(name: str) -> Any:
    """The message class `inference.NAME`; nested names with dots."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


METHODS: dict[str, tuple[Any, Any]] = {
    method.name: (
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
    )
    for method in POOL.FindServiceByName(SERVICE).methods
}


def _envelope() -> Any:
    files = descriptor_pb2.FileDescriptorSet.FromString(_FILES.SerializeToString())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        for kind in file.message_type:
            for field in kind.field:
                if (kind.name, field.name) == ("ModelInferRequest", "inputs"):
                    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                    field.ClearField("type_name")
        pool.Add(file)
    found = pool.FindMessageTypeByName("inference.ModelInferRequest")
    return message_factory.GetMessageClass(found)


Envelope = _envelope()
