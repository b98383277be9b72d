"""KServe's own clients, unmodified, against one gateway; prints what they answered as JSON.

Run with the interpreter of `.venv-clients`, where the package `kserve` is: it wants versions of
pandas and psutil that do not fit beside ours. Words: the HTTP URL, the gRPC address.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

TEXTS = np.array([["a wonderful film"], ["很好看"]], dtype=object)
UNIT = {"x-weighbridge-unit": "alice"}


def request(name: str, *, binary: bool = True, request_id: str = "k-1") -> InferRequest:
    if name == "digits":
        tensor = InferInput("image", [1, 28, 28, 1], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 28, 28, 1), np.uint8), binary_data=binary)
    else:
        tensor = InferInput("text", [2, 1], "BYTES")
        tensor.set_data_from_numpy(TEXTS, binary_data=binary)
    return InferRequest(name, [tensor], request_id=request_id)


def told(response: Any) -> dict[str, Any]:
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    return {
        "id": response.id,
        "version": response.model_version,
        "labels": outputs["label"].ravel().tolist(),
        "sums": outputs["probabilities"].sum(axis=1).round(4).tolist(),
    }


async def over_rest(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=1)) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model"] = await client.is_model_ready(url, "sentiment")
        found["unknown"] = await client.is_model_ready(url, "nothing")
        for name in ("digits", "sentiment"):
            for binary in (True, False):
                headers: dict[str, str] = {}
                response = await client.infer(
                    url,
                    request(name, binary=binary),
                    model_name=name,
                    headers=dict(UNIT),
                    response_headers=headers,
                )
                found[f"{name}-{binary}"] = told(response)
                found["arm"] = headers.get("x-weighbridge-arm")
        try:
            await client.infer(url, request("sentiment"), model_name="nothing")
        except httpx.HTTPStatusError as exc:
            found["refusal"] = str(exc)
    async with InferenceRESTClient(RESTConfig(protocol="v1", retries=1)) as client:
        found["v1_live"] = await client.is_server_live(url)
        found["v1_model"] = await client.is_model_ready(url, "sentiment")
        body = {"instances": ["a wonderful film"]}
        found["v1"] = await client.infer(url, body, model_name="sentiment", headers=dict(UNIT))
        found["v1_explain"] = await client.explain(url, "sentiment", body, headers=dict(UNIT))
    return found


async def over_grpc(address: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(address) as client:
        found["live"] = await client.is_server_live()
        found["ready"] = await client.is_server_ready()
        found["model"] = await client.is_model_ready("sentiment")
        found["unknown"] = await client.is_model_ready("nothing")
        for name in ("digits", "sentiment"):
            for binary in (True, False):
                asked = request(name, binary=binary)
                response = await client.infer(asked, headers=tuple(UNIT.items()))
                found[f"{name}-{binary}"] = told(response)
        try:
            await client.infer(request("nothing"))
        except grpc.RpcError as exc:
            found["refusal"] = [exc.code().name, exc.details()]
    return found


async def main(url: str, address: str) -> None:
    json.dump({"rest": await over_rest(url), "grpc": await over_grpc(address)}, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
