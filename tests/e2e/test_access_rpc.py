"""Who may do what over gRPC, on a real server: every method, reflection, streams."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from callers import ROLES
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc


@pytest.fixture
def channel(callers) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(callers.server.grpc) as found:
        yield found


TEXT = pb.ModelInferRequest(model_name="sentiment")
TEXT.inputs.add(name="text", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"ok")
CALLS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("ServerMetadata", pb.ServerMetadataRequest(), ROLES),
    ("ModelReady", pb.ModelReadyRequest(name="income"), ROLES),
    ("ModelMetadata", pb.ModelMetadataRequest(name="income"), ROLES),
    ("RepositoryIndex", pb.RepositoryIndexRequest(), ROLES),
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nobody"), ("operate",)),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nobody"), ("operate",)),
    ("ModelInfer", TEXT, ("infer",)),
    ("ModelStatistics", pb.ModelStatisticsRequest(), ROLES),
    ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(), ("infer",)),
]


def code(call: Any, request: Any, *metadata: tuple[str, str | bytes]) -> grpc.StatusCode:
    try:
        call(request, metadata=metadata, timeout=20)
    except grpc.RpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


def bearer(key: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {key}")


@pytest.mark.parametrize(("name", "request_", "roles"), CALLS, ids=[call[0] for call in CALLS])
def test_a_method_answers_its_roles_and_nobody_else(callers, channel, name, request_, roles):
    call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), name)
    assert code(call, request_) is grpc.StatusCode.UNAUTHENTICATED
    for role in ROLES:
        found = code(call, request_, bearer(callers.keys[role]))
        assert (found is grpc.StatusCode.PERMISSION_DENIED) == (role not in roles), (role, found)
        assert found is not grpc.StatusCode.UNAUTHENTICATED


def test_grpc_health_is_open_and_reflection_is_not(callers, channel) -> None:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=20).live
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as found:
        list(reflect(iter([ask]), timeout=20))
    assert found.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = bearer(callers.keys["erase"])
    assert list(reflect(iter([ask]), metadata=[key], timeout=20))


def test_a_refused_message_is_not_waited_for(callers, channel) -> None:
    """A message that never comes: the server waits for it from those who may call, only."""
    method = "/inference.GRPCInferenceService/ModelInfer"
    call = channel.stream_unary(method, pb.ModelInferRequest.SerializeToString)
    never: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with pytest.raises(grpc.RpcError) as refused:
        call(iter(never.get, None), timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = bearer(callers.keys["infer"])
    with pytest.raises(grpc.RpcError) as waited:
        call(iter(never.get, None), metadata=[key], timeout=0.5)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    never.put(None)
    never.put(None)


def test_one_whole_credential_or_none_over_grpc(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerMetadata
    key, request = callers.keys["infer"], pb.ServerMetadataRequest()
    unauthenticated, invalid = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT
    assert code(call, request, ("x-api-key", key)) is grpc.StatusCode.OK
    assert code(call, request, ("x-api-key-bin", key.encode())) is unauthenticated
    assert code(call, request, ("authorization-bin", f"Bearer {key}".encode())) is unauthenticated
    assert code(call, request, bearer(key), ("x-api-key", key)) is invalid
    assert code(call, request, bearer(key), bearer(key)) is invalid
    assert code(call, request, ("x-api-key", "A" * 8193)) is not grpc.StatusCode.OK
    assert code(call, request, ("x-api-key", key + "A")) is unauthenticated


def test_forcing_an_arm_over_grpc_needs_its_role(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    arm = ("x-weighbridge-arm", "treatment")
    assert code(call, TEXT, bearer(callers.keys["infer"]), arm) is grpc.StatusCode.PERMISSION_DENIED
    assert code(call, TEXT, bearer(callers.keys["forcing"]), arm) is grpc.StatusCode.OK


def test_a_stream_is_asked_again_for_each_message(callers, channel) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
    with pytest.raises(grpc.RpcError) as refused:
        list(call(iter([TEXT]), timeout=20))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    key = callers.key("streamer", "infer")
    assert callers.wait({"x-api-key": key}, 200)
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    replies = call(iter(feed.get, None), metadata=[bearer(key)], timeout=60)
    feed.put(TEXT)
    assert next(replies).infer_response.model_name == "sentiment"
    assert callers.server.cli("apikey", "revoke", "streamer").returncode == 0
    assert callers.wait({"x-api-key": key}, 401)
    feed.put(TEXT)
    assert "does not hold" in next(replies).error_message
    feed.put(None)
    assert not list(replies)
