"""gRPC to the data plane and back: the servicer of `inference.GRPCInferenceService`.

Source: docs/protocol.md; Open Inference Protocol, gRPC.
Rule 1: raw in, raw out; typed in, typed out. `raw_input_contents` holds exactly one entry per input
and the typed contents are then empty. FP16 travels raw only.
Rule 2: "not ready" is an OK reply with `ready = false`; refusals carry the codes of faults.py and
never an exception's text.
Rule 3: a stream answers its requests one by one, in order; an error is a message in it.
Boundary: a servicer of async methods with `context`; grpcserver.py starts a server around it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np

from runners.errors import InputInvalid, RunnerError
from runners.tensor import DTYPES, Array, Tensor, format_raw, parse_raw

from .admin import Admin
from .dataplane import DataPlane, Reply, Request
from .faults import BadRequest, report
from .http import parse_timeout
from .oip import message
from .protected import parse_attributes

__all__ = ["Servicer"]

_InferResponse = message("ModelInferResponse")
_StreamResponse = message("ModelStreamInferResponse")
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_MAX_DEADLINE_S = 3600.0


class Servicer:
    """The methods of the service; every one may raise, `grpcserver` turns that into a status."""

    def __init__(
        self,
        plane: DataPlane,
        admin: Admin,
        status: Callable[[int], Any],
        *,
        always_raw: bool = False,
    ) -> None:
        """`status` turns a code's number into what `context.abort` takes."""
        self._plane = plane
        self._admin = admin
        self._status = status
        self._always_raw = always_raw

    async def call(self, name: str, request: Any, context: Any) -> Any:
        """Run a unary method; refusals become a status of the call."""
        try:
            return await getattr(self, name)(request, context)
        except Exception as exc:  # noqa: BLE001  the edge: the caller gets a code, we the log
            fault = report(exc)
            await context.abort(self._status(fault.grpc_code), fault.message)

    async def ServerLive(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerLiveResponse")(live=True)

    async def ServerReady(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerReadyResponse")(ready=self._admin.ready())

    async def ModelReady(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        try:
            slot = self._admin.slot(request.name, request.version or None)
        except RunnerError:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=slot.state == "READY")

    async def ServerMetadata(self, _: Any, __: Any) -> Any:  # noqa: N802, D102
        return message("ServerMetadataResponse")(**self._admin.server())

    async def ModelMetadata(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        found = self._admin.metadata(request.name, request.version or None)
        return message("ModelMetadataResponse")(**found)

    async def RepositoryIndex(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        return message("RepositoryIndexResponse")(
            models=self._admin.index(only_ready=request.ready)
        )

    async def RepositoryModelLoad(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        await self._admin.change(request.model_name, "load")
        return message("RepositoryModelLoadResponse")()

    async def RepositoryModelUnload(self, request: Any, _: Any) -> Any:  # noqa: N802, D102
        await self._admin.change(request.model_name, "unload")
        return message("RepositoryModelUnloadResponse")()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        reply, raw = await self._infer(request, context)
        context.set_trailing_metadata(reply.headers())
        return _response(reply, request.id, raw=raw or self._always_raw)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer each request of the stream in its order; a refusal is a message, not the end."""
        async for request in requests:
            try:
                reply, raw = await self._infer(request, context)
            except Exception as exc:  # noqa: BLE001  the edge, as in `call`
                refused = _StreamResponse(error_message=report(exc).message)
                refused.infer_response.id = request.id
                yield refused
            else:
                response = _response(reply, request.id, raw=raw or self._always_raw)
                yield _StreamResponse(infer_response=response)

    async def _infer(self, message_in: Any, context: Any) -> tuple[Reply, bool]:
        metadata: dict[str, str] = dict(context.invocation_metadata() or ())
        started = time.time_ns()
        request = Request(
            model=message_in.model_name,
            version=message_in.model_version or None,
            inputs=_inputs(message_in),
            origin="grpc",
            trace=self._plane.telemetry.begin(
                metadata.get("traceparent"), metadata.get("tracestate")
            ),
            outputs=tuple(output.name for output in message_in.outputs) or None,
            request_id=message_in.id or uuid.uuid4().hex,
            started_ns=started,
        )
        _take_unit(request, metadata, message_in.parameters)
        left = context.time_remaining()
        if left is not None and left < _MAX_DEADLINE_S:
            request.deadline = time.monotonic() + left
        reply = await self._plane.infer(request)
        return reply, bool(message_in.raw_input_contents)


def _take_unit(request: Request, metadata: Mapping[str, str], parameters: Any) -> None:
    """Our metadata, or the OIP parameters of the same meaning."""
    if unit := metadata.get("x-weighbridge-unit"):
        request.unit, request.unit_source = unit, "header"
    elif "weighbridge_unit" in parameters:
        request.unit = _parameter(parameters["weighbridge_unit"])
        request.unit_source = "parameter"
    attributes = metadata.get("x-weighbridge-attributes")
    if attributes is None and "weighbridge_attributes" in parameters:
        attributes = _parameter(parameters["weighbridge_attributes"])
    request.attributes = parse_attributes(attributes)
    request.forced_arm = metadata.get("x-weighbridge-arm")
    request.deadline = parse_timeout(metadata.get("x-weighbridge-timeout-ms"))


def _parameter(parameter: Any) -> str:
    chosen = parameter.WhichOneof("parameter_choice")
    return str(getattr(parameter, chosen)) if chosen else ""


def _inputs(request: Any) -> dict[str, Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs"
        )
    if not request.inputs:
        raise BadRequest("the request has no inputs")
    found: dict[str, Tensor] = {}
    for place, tensor in enumerate(request.inputs):
        if tensor.name in found:
            raise BadRequest(f"input '{tensor.name}' stands twice")
        if tensor.datatype not in DTYPES:
            raise BadRequest(f"input '{tensor.name}' has unknown datatype '{tensor.datatype[:32]}'")
        shape = tuple(tensor.shape)
        if any(dim < 0 for dim in shape) or len(shape) > 16:
            raise BadRequest(f"input '{tensor.name}' has a shape that is not one")
        data = _raw(tensor, raw[place], shape) if raw else _typed(tensor, shape)
        found[tensor.name] = Tensor(tensor.name, tensor.datatype, data)
    return found


def _raw(tensor: Any, data: bytes, shape: tuple[int, ...]) -> Array:
    if tensor.HasField("contents") and tensor.contents.ByteSize():
        raise BadRequest(f"input '{tensor.name}' has typed contents beside raw_input_contents")
    try:
        return parse_raw(data, tensor.datatype, shape, tensor.name)
    except InputInvalid as exc:
        raise BadRequest(str(exc)) from exc


def _typed(tensor: Any, shape: tuple[int, ...]) -> Array:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise BadRequest(f"input '{tensor.name}': {tensor.datatype} must be sent raw")
    values = getattr(tensor.contents, field)
    dtype = DTYPES[tensor.datatype]
    if dtype == np.dtype(object):
        data = np.empty(len(values), dtype=object)
        data[:] = values
    else:
        wide = np.array(values)
        data = wide.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(wide, data):
            raise BadRequest(f"input '{tensor.name}': a value is out of range")
    expected = int(np.prod(shape, dtype=np.int64))
    if data.size != expected:
        raise BadRequest(
            f"input '{tensor.name}': {field} has {data.size} values, shape {list(shape)} needs "
            f"{expected}"
        )
    return data.reshape(shape)


def _response(reply: Reply, request_id: str, *, raw: bool) -> Any:
    response = _InferResponse(model_name=reply.model, model_version=reply.version, id=request_id)
    response.parameters["weighbridge_decision"].string_param = reply.decision
    receipt = f"{reply.receipt.origin}#{reply.receipt.index}"
    response.parameters["weighbridge_receipt"].string_param = receipt
    if reply.arm:
        response.parameters["weighbridge_arm"].string_param = reply.arm
    raw = raw or any(spec.datatype == "FP16" for spec in reply.specs)
    for spec in reply.specs:
        data = reply.outputs[spec.name]
        tensor = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=data.shape)
        if raw:
            response.raw_output_contents.append(format_raw(data))
        else:
            values = getattr(tensor.contents, _CONTENTS[spec.datatype])
            values.extend(data.ravel().tolist())
    return response
