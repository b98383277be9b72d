"""What the gateway is measured against: the same requests and the same model, and nothing else.

`python -m bench.bare asgi PORT MODEL VERSION`  a bare ASGI application on uvicorn and uvloop
`python -m bench.bare grpc PORT MODEL VERSION`  a bare `grpc.aio` server
`bentoml serve bench.bare:Plain`                one `@bentoml.api` around the same session

Rule: each reads the whole Open Inference Protocol request, builds its tensors, runs the
artefact's own pipeline and ONNX session at once, and writes the outputs: no route, check, batch,
trace or record.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import bentoml
import numpy as np
import orjson

from runners.onnx import OnnxModel
from runners.tensor import DTYPES, format_raw, parse_raw
from services.models import open_registry
from services.oip import METHODS, SERVICE, message
from services.settings import settings

__all__ = ["Plain", "application", "open_model"]

Send = Callable[[dict[str, Any]], Awaitable[None]]


def open_model(name: str, version: str) -> OnnxModel:
    """The session that the gateway uses, too."""
    model = OnnxModel(open_registry(settings()).open(name, version), device="cpu", threads=1)
    model.warm_up()
    return model


def _array(tensor: dict[str, Any]) -> Any:
    dtype, data = DTYPES[tensor["datatype"]], tensor["data"]
    if dtype.hasobject:
        data = [text.encode() for text in data]
    return np.array(data, dtype=dtype).reshape(tensor["shape"])


def answer(model: OnnxModel, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs of one request, as the protocol lists them."""
    outputs = model.infer({tensor["name"]: _array(tensor) for tensor in inputs})
    return [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": outputs[spec.name].shape,
            "data": outputs[spec.name].ravel(),
        }
        for spec in model.signature.outputs
    ]


def answer_json(model: OnnxModel, body: bytes) -> bytes:
    """One JSON request, answered."""
    listed = answer(model, orjson.loads(body)["inputs"])
    reply = {"model_name": model.name, "model_version": model.version, "outputs": listed}
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def application(model: OnnxModel) -> Callable[..., Awaitable[None]]:
    """The ceiling."""

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        out = answer_json(model, body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(out)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    return app


def answer_grpc(model: OnnxModel, data: bytes) -> Any:
    """One raw ModelInfer request, answered."""
    request = METHODS["ModelInfer"][0].FromString(data)
    raw = request.raw_input_contents
    batch = {
        tensor.name: parse_raw(raw[place], tensor.datatype, tuple(tensor.shape), tensor.name)
        for place, tensor in enumerate(request.inputs)
    }
    outputs = model.infer(batch)
    reply = message("ModelInferResponse")(model_name=model.name, model_version=model.version)
    for spec in model.signature.outputs:
        found = outputs[spec.name]
        reply.outputs.add(name=spec.name, datatype=spec.datatype, shape=found.shape)
        reply.raw_output_contents.append(format_raw(found))
    return reply


async def serve_grpc(model: OnnxModel, port: int) -> None:
    """The ceiling of gRPC."""
    import grpc  # noqa: PLC0415  only this case needs it

    async def infer(data: bytes, _: Any) -> Any:
        return answer_grpc(model, data)

    handler = grpc.unary_unary_rpc_method_handler(
        infer, response_serializer=METHODS["ModelInfer"][1].SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


@bentoml.service(name="Plain", workers=1, metrics={"enabled": True})
class Plain:
    """What a user of plain BentoML writes."""

    def __init__(self) -> None:
        self.model = open_model(os.environ["BENCH_MODEL"], os.environ["BENCH_VERSION"])

    @bentoml.api(route="/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The same request, through BentoML's own path."""
        listed = answer(self.model, inputs)
        return {"outputs": [item | {"data": item["data"].tolist()} for item in listed]}


def main(kind: str, port: str, name: str, version: str) -> None:
    """Serve until ended."""
    model = open_model(name, version)
    if kind == "grpc":
        import uvloop  # noqa: PLC0415

        uvloop.run(serve_grpc(model, int(port)))
        return
    import uvicorn  # noqa: PLC0415

    uvicorn.run(
        application(model),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
