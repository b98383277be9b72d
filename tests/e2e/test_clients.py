"""Unmodified third-party clients against a real server: tritonclient, BentoML's own, httpx."""

import asyncio
import json
from typing import Any

import bentoml
import grpc
import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.http as thttp
import tritonclient.http.aio as thttp_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException


def image_input(library: Any, image: np.ndarray, **options: Any) -> list[Any]:
    tensor = library.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image, **options)
    return [tensor]


def check(result: Any) -> int:
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (1, 10)
    assert probabilities.dtype == np.float32
    assert abs(probabilities.sum() - 1) < 1e-4
    label = int(result.as_numpy("label").reshape(-1)[0])
    assert label == int(probabilities.argmax())
    return label


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_http(gateway, image, binary_in, binary_out) -> None:
    with thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        assert client.get_server_metadata()["name"] == "weighbridge"
        metadata = client.get_model_metadata("digits")
        assert metadata["inputs"] == [
            {"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}
        ]
        assert metadata["versions"] == ["1", "2"]
        outputs = [
            thttp.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("label", "probabilities")
        ]
        result = client.infer(
            "digits",
            image_input(thttp, image, binary_data=binary_in),
            outputs=outputs,
            request_id="r-1",
        )
        check(result)
        response = result.get_response()
        assert response["id"] == "r-1"
        assert [item["name"] for item in response["outputs"]] == ["label", "probabilities"]


def test_tritonclient_http_with_compression_both_ways(gateway, image) -> None:
    with thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        many = np.repeat(image, 64, axis=0)
        for way in ("gzip", "deflate"):
            result = client.infer(
                "digits",
                image_input(thttp, many),
                request_compression_algorithm=way,
                response_compression_algorithm=way,
            )
            assert result.as_numpy("probabilities").shape == (64, 10)


async def test_tritonclient_http_aio(gateway, image) -> None:
    async with thttp_aio.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("digits"))["name"] == "digits"
        index = await client.get_model_repository_index()
        assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in index
        results = await asyncio.gather(
            *(client.infer("digits", image_input(thttp_aio, image)) for _ in range(20))
        )
        assert len({check(result) for result in results}) <= 2, "one answer per arm"


def test_tritonclient_grpc(each_engine, image) -> None:
    with tgrpc.InferenceServerClient(each_engine.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits", "2")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata().name == "weighbridge"
        metadata = client.get_model_metadata("digits")
        assert list(metadata.inputs[0].shape) == [-1, 28, 28, 1]
        result = client.infer("digits", image_input(tgrpc, image), request_id="g-1")
        check(result)
        assert result.get_response().id == "g-1"
        names = {(m.name, m.version) for m in client.get_model_repository_index().models}
        assert ("sentiment", "2") in names


async def test_tritonclient_grpc_aio(each_engine, image) -> None:
    async with tgrpc_aio.InferenceServerClient(each_engine.grpc) as client:
        results = await asyncio.gather(
            *(client.infer("digits", image_input(tgrpc_aio, image)) for _ in range(20))
        )
        assert len({check(result) for result in results}) <= 2


async def test_a_grpc_stream_answers_in_order_and_survives_a_refusal(each_engine, image) -> None:
    async def requests() -> Any:
        for number in range(4):
            yield {
                "model_name": "digits" if number != 2 else "nothing",
                "inputs": image_input(tgrpc_aio, image),
                "request_id": str(number),
            }

    async with tgrpc_aio.InferenceServerClient(each_engine.grpc) as client:
        seen = [pair async for pair in client.stream_infer(requests())]
    assert len(seen) == 4
    for number, (result, error) in enumerate(seen):
        if number == 2:
            assert "nothing" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(number)


def test_typed_contents_over_grpc_are_answered_typed(each_engine) -> None:
    request = service_pb2.ModelInferRequest(model_name="sentiment", id="typed")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[2, 1])
    tensor.contents.bytes_contents.extend([b"a wonderful film", "很好看".encode()])
    with grpc.insecure_channel(each_engine.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response, call = stub.ModelInfer.with_call(request)
        assert not response.raw_output_contents
        by_name = {output.name: output for output in response.outputs}
        assert len(by_name["probabilities"].contents.fp32_contents) == 6
        assert len(by_name["label"].contents.int64_contents) == 2
        metadata = dict(call.trailing_metadata())
        assert metadata["x-weighbridge-arm"] in ("control", "treatment")
        assert metadata["x-weighbridge-experiment"] == "sentiment-ab"
        assert len(metadata["x-weighbridge-decision"]) == 36


def test_grpc_health_and_reflection(each_engine) -> None:
    with grpc.insecure_channel(each_engine.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        assert "ModelInfer" in {method.name for method in service.methods}


def test_bentomls_own_client_calls_the_native_endpoints(gateway, image, income) -> None:
    with bentoml.SyncHTTPClient(gateway.http) as client:
        digit = client.cnn(image=image, unit="alice")
        assert digit["model"] == "digits"
        assert digit["predictions"][0]["label"] in range(10)
        text = client.lstm(text=["wonderful", "terrible"], unit="alice")
        assert len(text["predictions"]) == 2
        row = client.dnn(rows=[income], unit="alice")
        assert set(row["predictions"][0]) == {"probabilities", "label"}
        assert row["arm"] in ("control", "treatment")
        with pytest.raises(bentoml.exceptions.BentoMLException):
            client.dnn(rows=[{"age": 3}])
        client._temp_dir.cleanup()  # closing leaves it to the garbage collector, with a warning


def test_v1_predict_takes_named_columns(gateway, income) -> None:
    reply = httpx.post(
        f"{gateway.http}/v1/models/income:predict",
        json={"instances": [income, income | {"age": 60, "education_num": 16}]},
        headers={"x-weighbridge-unit": "bob"},
    )
    assert reply.status_code == 200, reply.text
    first, second = reply.json()["predictions"]
    assert first["label"] in (0, 1)
    assert len(second["probabilities"]) == 2
    assert httpx.get(f"{gateway.http}/v1/models/income").json() == {"name": "income", "ready": True}


def test_a_plain_curl_body_without_content_type_is_answered(gateway, income) -> None:
    inputs = [
        {
            "name": name,
            "datatype": "BYTES" if isinstance(value, str) else "INT64",
            "shape": [1, 1],
            "data": [value],
        }
        for name, value in income.items()
    ]
    reply = httpx.post(
        f"{gateway.http}/v2/models/income/infer?x=1", content=json.dumps({"inputs": inputs})
    )
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-weighbridge-receipt"].startswith("weighbridge.local/decisions#")
    assert reply.json()["outputs"][0]["name"] == "probabilities"


def test_refusals_reach_tritonclient_as_its_own_exception(gateway, image) -> None:
    with thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        with pytest.raises(InferenceServerException, match="unknown"):
            client.infer("nothing", image_input(thttp, image))
        with pytest.raises(InferenceServerException, match=r"\[1, 28, 27, 1\]"):
            client.infer("digits", image_input(thttp, image[:, :, :27]))
    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("digits", image_input(tgrpc, image[:, :, :27]))
        assert "INVALID_ARGUMENT" in str(refused.value.status())
        with pytest.raises(InferenceServerException) as unknown:
            client.infer("digits", image_input(tgrpc, image), model_version="77")
        assert "NOT_FOUND" in str(unknown.value.status())


def test_without_the_fast_path_the_same_door_answers(home, image) -> None:
    with (
        servers.running(
            home,
            WEIGHBRIDGE_FAST_PATH="false",
            WEIGHBRIDGE_EXPLAINER="false",
            WEIGHBRIDGE_MODELS="digits",
            WEIGHBRIDGE_BASE_PATH="/ml",
        ) as slow,
        thttp.InferenceServerClient(f"127.0.0.1:{slow.http_port}") as client,
    ):
        assert client.is_server_ready()
        check(client.infer("digits", image_input(thttp, image)))
        with pytest.raises(InferenceServerException, match="unknown"):
            client.infer("nothing", image_input(thttp, image))
        reply = httpx.post(
            f"{slow.http}/ml/v1/models/digits:predict", json={"instances": image.tolist()}
        )
        assert httpx.get(f"{slow.http}/ml/v2/models/digits").json()["name"] == "digits"
        for path in ("/nothing", "/ml/nothing"):
            assert httpx.get(slow.http + path).json() == {"error": "no such path"}
        assert httpx.post(f"{slow.http}/ml/cnn", content=b"{}").json()["error"].startswith("image")
        assert reply.headers["x-weighbridge-arm"] in ("control", "treatment")
