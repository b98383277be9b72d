"""The rest of tritonclient, unmodified: callbacks, streams, statistics, configuration, repository.

test_clients.py holds the plain calls.
"""

import json
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import server as servers
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.http as thttp
import tritonclient.http.aio as thttp_aio
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from services.oip import METHODS, message


def image_input(library: Any, image: np.ndarray, **options: Any) -> list[Any]:
    tensor = library.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image, **options)
    return [tensor]


def label_of(result: Any) -> int:
    return int(result.as_numpy("label").reshape(-1)[0])


# --- asynchronous and streaming ---------------------------------------------------------------


def test_http_async_infer(gateway, image) -> None:
    with thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}", concurrency=4) as client:
        asked = [client.async_infer("digits", image_input(thttp, image)) for _ in range(12)]
        assert len({label_of(one.get_result()) for one in asked}) <= 2


def test_grpc_async_infer_and_its_cancellation(gateway, image) -> None:
    seen: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def heard(result: Any, error: Any) -> None:
        seen.put((result, error))

    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        for _ in range(12):
            client.async_infer("digits", image_input(tgrpc, image), heard)
        found = [seen.get(timeout=30) for _ in range(12)]
        assert [error for _, error in found] == [None] * 12
        many = np.repeat(image, 4000, axis=0)
        call = client.async_infer("digits", image_input(tgrpc, many), heard)
        call.cancel()
        result, error = seen.get(timeout=30)
        assert result is None
        assert "CANCELLED" in str(error.status())
        assert label_of(client.infer("digits", image_input(tgrpc, image))) in range(10)


def test_a_grpc_stream_of_the_callback_client(gateway, image) -> None:
    seen: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        client.start_stream(lambda result, error: seen.put((result, error)))
        for number in range(6):
            name = "nothing" if number == 3 else "digits"
            client.async_stream_infer(name, image_input(tgrpc, image), request_id=str(number))
        found = [seen.get(timeout=30) for _ in range(6)]
        client.stop_stream()
    for number, (result, error) in enumerate(found):
        if number == 3:
            assert "nothing" in str(error)
        else:
            assert result.get_response().id == str(number)


@pytest.mark.parametrize("way", ["gzip", "deflate"])
async def test_aio_clients_compress_both_ways(gateway, image, way) -> None:
    many = np.repeat(image, 64, axis=0)
    async with thttp_aio.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        found = await client.infer(
            "digits",
            image_input(thttp_aio, many),
            request_compression_algorithm=way,
            response_compression_algorithm=way,
        )
        assert found.as_numpy("probabilities").shape == (64, 10)
    async with tgrpc_aio.InferenceServerClient(gateway.grpc) as client:
        found = await client.infer(
            "digits", image_input(tgrpc_aio, many), compression_algorithm="gzip"
        )
        assert found.as_numpy("probabilities").shape == (64, 10)


def test_grpc_takes_gzip_and_deflate_or_says_that_it_does_not(gateway, image) -> None:
    unit = {"x-weighbridge-unit": "u"}

    def ask(way: str | None) -> np.ndarray:
        asked = image_input(tgrpc, image)
        found = client.infer("digits", asked, headers=unit, compression_algorithm=way)
        return found.as_numpy("probabilities")

    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        plain = ask(None)
        assert np.array_equal(ask("gzip"), plain)
        try:
            assert np.array_equal(ask("deflate"), plain)
        except InferenceServerException as exc:  # an engine may lack it: gRPC's compression guide
            assert "UNIMPLEMENTED" in str(exc.status())  # noqa: PT017


def test_parameters_of_the_request_choose_the_unit_and_the_deadline(gateway, image) -> None:
    parameters = {"weighbridge_unit": "alice", "weighbridge_timeout_ms": 20000}
    with thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        one = client.infer("digits", image_input(thttp, image), parameters=parameters)
    with tgrpc.InferenceServerClient(gateway.grpc) as client:
        two = client.infer("digits", image_input(tgrpc, image), parameters=parameters)
        headers = {"x-weighbridge-unit": "alice"}
        three = client.infer("digits", image_input(tgrpc, image), headers=headers)
    versions = {one.get_response()["model_version"]}
    versions |= {two.get_response().model_version, three.get_response().model_version}
    assert len(versions) == 1


# --- configuration and statistics -------------------------------------------------------------


def test_the_configuration_is_the_same_over_http_and_grpc(gateway) -> None:
    with (
        thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as over_http,
        tgrpc.InferenceServerClient(gateway.grpc) as over_grpc,
    ):
        for name in ("digits", "sentiment", "income", "recommend"):
            told = over_http.get_model_config(name, "1")
            typed = over_grpc.get_model_config(name, "1").config
            assert typed.name == told["name"] == name
            assert typed.max_batch_size == told["max_batch_size"] == 64
            assert [list(t.dims) for t in typed.input] == [t["dims"] for t in told["input"]]
            kinds = [model_config_pb2.DataType.Name(t.data_type) for t in typed.output]
            assert kinds == [t["data_type"] for t in told["output"]]
            digest = typed.parameters["digest"].string_value
            assert digest == told["parameters"]["digest"]["string_value"]
            assert typed.HasField("dynamic_batching")
            as_json = over_grpc.get_model_config(name, as_json=True)["config"]
            assert as_json["backend"] == "onnxruntime"
        with pytest.raises(InferenceServerException, match="unknown"):
            over_grpc.get_model_config("nothing")
        with pytest.raises(InferenceServerException, match="77"):
            over_http.get_model_config("digits", "77")


def of(statistics: dict[str, Any]) -> dict[str, Any]:
    (found,) = statistics["model_stats"]
    return found


def test_statistics_count_what_was_asked(gateway, image) -> None:
    with (
        thttp.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as over_http,
        tgrpc.InferenceServerClient(gateway.grpc) as over_grpc,
    ):
        before = of(over_http.get_inference_statistics("digits", "2"))
        for rows in (1, 3):
            over_http.infer("digits", image_input(thttp, np.repeat(image, rows, 0)), "2")
        over_grpc.infer("digits", image_input(tgrpc, np.repeat(image, 100, 0)), "2")
        with pytest.raises(InferenceServerException):
            over_grpc.infer("digits", image_input(tgrpc, image[:, :, :27]), "2")
        after = of(over_http.get_inference_statistics("digits", "2"))
        assert after["inference_count"] - before["inference_count"] == 104
        assert after["execution_count"] - before["execution_count"] == 4, "100 rows ran in two"
        for field, more in (("success", 3), ("fail", 1), ("queue", 3), ("compute_infer", 3)):
            grown = {
                unit: after["inference_stats"][field][unit] - before["inference_stats"][field][unit]
                for unit in ("count", "ns")
            }
            assert grown["count"] == more, field
            assert grown["ns"] > 0, field
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        spent = sum(after["inference_stats"][part]["ns"] for part in parts)
        assert spent <= after["inference_stats"]["success"]["ns"]
        sizes = {batch["batch_size"] for batch in after["batch_stats"]}
        assert {1, 3, 64} <= sizes

        typed = over_grpc.get_inference_statistics("digits", "2").model_stats[0]
        assert typed.inference_count == after["inference_count"]
        assert typed.inference_stats.success.ns == after["inference_stats"]["success"]["ns"]
        assert typed.last_inference == after["last_inference"]
        everything = over_grpc.get_inference_statistics().model_stats
        assert {(s.name, s.version) for s in everything} >= {("digits", "1"), ("income", "2")}
        assert len(over_http.get_inference_statistics("digits")["model_stats"]) == 2
        with pytest.raises(InferenceServerException, match="unknown"):
            over_grpc.get_inference_statistics("nothing")


async def test_aio_clients_ask_the_same_questions(gateway) -> None:
    async with thttp_aio.InferenceServerClient(f"127.0.0.1:{gateway.http_port}") as client:
        assert (await client.get_model_config("income"))["name"] == "income"
        assert (await client.get_inference_statistics("income"))["model_stats"]
    async with tgrpc_aio.InferenceServerClient(gateway.grpc) as client:
        assert (await client.get_model_config("income")).config.name == "income"
        assert (await client.get_inference_statistics("income")).model_stats
        assert await client.is_model_ready("income", "1")


def test_two_stubs_of_the_protocol_live_in_one_process(gateway) -> None:
    """This process has tritonclient's messages and ours, of the same full names."""
    ours = message("ModelInferRequest").DESCRIPTOR
    theirs = tgrpc.service_pb2.ModelInferRequest.DESCRIPTOR
    assert ours.full_name == theirs.full_name
    assert ours.file.pool is not theirs.file.pool
    assert set(METHODS) <= set(dir(tgrpc.service_pb2_grpc.GRPCInferenceServiceServicer))


# --- repository -------------------------------------------------------------------------------


@pytest.fixture
def small(trained_home: Path, tmp_path: Path) -> Iterator[servers.Server]:
    """A gateway that holds version 1 of `digits` alone; version 2 is not registered yet."""
    home = tmp_path / "small"
    models = home / "bentoml" / "models" / "digits"
    models.mkdir(parents=True)
    shutil.copy(trained_home / "bentoml" / "signer.pub", home / "bentoml" / "signer.pub")
    (models / "1").symlink_to(trained_home / "bentoml" / "models" / "digits" / "1")
    definitions = tmp_path / "definitions"
    definitions.mkdir()
    with servers.running(
        home, WEIGHBRIDGE_EXPLAINER="false", WEIGHBRIDGE_DEFINITIONS=str(definitions)
    ) as started:
        yield started


def states(client: Any) -> dict[str, str]:
    return {line["version"]: line["state"] for line in client.get_model_repository_index()}


def test_a_newly_registered_version_is_loaded_and_answers_without_a_restart(
    small, trained_home, image
) -> None:
    with (
        thttp.InferenceServerClient(f"127.0.0.1:{small.http_port}") as over_http,
        tgrpc.InferenceServerClient(small.grpc) as over_grpc,
    ):
        answered = over_http.infer("digits", image_input(thttp, image)).get_response()
        assert answered["model_version"] == "1"
        kept = trained_home / "bentoml" / "models" / "digits" / "2"
        (small.home / "bentoml" / "models" / "digits" / "2").symlink_to(kept)
        assert states(over_http) == {"1": "READY", "2": "UNAVAILABLE"}
        assert not over_http.is_model_ready("digits", "2")

        over_http.load_model("digits")
        assert states(over_http) == {"1": "READY", "2": "READY"}
        answered = over_http.infer("digits", image_input(thttp, image)).get_response()
        assert answered["model_version"] == "2"

        policy = {"name": "digits", "version_policy": {"specific": {"versions": [1]}}}
        over_grpc.load_model("digits", config=json.dumps(policy))
        assert states(over_http) == {"1": "READY", "2": "UNAVAILABLE"}
        assert over_http.is_model_ready("digits")
        answered = over_grpc.infer("digits", image_input(tgrpc, image)).get_response()
        assert answered.model_version == "1", "the newest version that is ready"

        url = f"{small.http}/v2/repository/models/digits/versions/2/load"
        assert httpx.post(url).json() == {}
        assert over_grpc.is_model_ready("digits", "2")
        over_grpc.unload_model("digits", unload_dependents=True)
        assert not over_grpc.is_model_ready("digits")
        with pytest.raises(InferenceServerException) as refused:
            over_grpc.infer("digits", image_input(tgrpc, image))
        assert "UNAVAILABLE" in str(refused.value.status())
        assert over_http.get_model_repository_index()[0]["reason"] == "unloaded"


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_a_load_that_brings_more_is_refused_in_one_sentence(gateway, way) -> None:
    address = {"http": f"127.0.0.1:{gateway.http_port}", "grpc": gateway.grpc}[way]
    library = {"http": thttp, "grpc": tgrpc}[way]
    with library.InferenceServerClient(address) as client:
        for words, text in (
            ({"config": json.dumps({"max_batch_size": 1})}, "signed manifest"),
            ({"config": "{}", "files": {"file:1/model.onnx": b"x"}}, "brings no files"),
            ({"config": "{"}, "not JSON"),
        ):
            with pytest.raises(InferenceServerException, match=text) as refused:
                client.load_model("digits", **words)
            assert "\n" not in refused.value.message()
        with pytest.raises(InferenceServerException, match="registry holds no model"):
            client.load_model("nothing")
        with pytest.raises(InferenceServerException, match="unknown"):
            client.unload_model("nothing")
