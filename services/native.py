"""Native BentoML calls to the data plane: Python values in, a plain dict out.

Rule: the same checks, the same routing and the same record as over HTTP and gRPC; only the shape of
the values differs. Our headers mean what they mean at the other doors, and stand in the reply.
Refusals
are answered here, because BentoML's exceptions would lose their text or their form.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError
from starlette.responses import JSONResponse

from runners.tensor import DTYPES, Signature, Tensor

from .admin import Admin
from .claims import checked_unit, take_claims
from .connection import header, read_headers
from .dataplane import DataPlane, Request
from .faults import BadRequest, report
from .v1 import decode_rows, prediction_rows
from .values import to_array

__all__ = ["NATIVE_PATHS", "hide_inputs", "predict"]

NATIVE_PATHS = frozenset({"/cnn", "/lstm", "/dnn"})

_BENTOML_LOG = "bentoml._internal.server.http_app"


class Doors(Protocol):
    """What a native call needs of the house."""

    plane: DataPlane
    admin: Admin


def hide_inputs() -> None:
    """Keep what callers sent out of the log, where BentoML puts the text of every refusal."""
    logging.getLogger(_BENTOML_LOG).addFilter(_without_text)


def _without_text(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BentoMLException | ValidationError):
        record.exc_info, record.exc_text = None, None
    return True


async def predict(
    house: Doors, context: Any, model: str, values: Mapping[str, Any], unit: str
) -> dict[str, Any]:
    """Answer `{"model", "version", "arm", "decision", "receipt", "predictions": [...]}`.

    Args:
        house: answers, and knows the signatures.
        context: BentoML's, with the request's headers; the reply's are put there.
        model: the model's name.
        values: input name to array or list; or {"rows": [objects]} for named columns.
        unit: the randomisation unit; a header wins; without both it is the request id.

    Returns:
        The answer; a refusal is a response of its own, `{"error": text}` with its status.
    """
    plane, admin = house.plane, house.admin
    try:
        signature = admin.signature(model, None)
        if signature is None:
            raise admin.unknown(model, "")
        headers = read_headers(context.request.headers.raw)
        request = Request(
            model=model,
            version=None,
            inputs={},
            origin="native",
            trace=plane.telemetry.begin(
                header(headers, "traceparent"), header(headers, "tracestate")
            ),
            request_id=uuid.uuid4().hex,
        )
        take_claims(request, partial(header, headers), {})
        request.inputs = _tensors(values, signature)
        if unit and request.unit is None:
            request.unit, request.unit_source = checked_unit(unit), "parameter"
        reply = await plane.infer(request)
    except Exception as exc:  # noqa: BLE001  the edge: the caller gets a stable text, we the log
        fault = report(exc)
        context.response.status_code = fault.status  # BentoML copies it over the response's
        waits = {} if fault.retry_after_s is None else {"retry-after": str(fault.retry_after_s)}
        refused = JSONResponse({"error": fault.message}, fault.status, waits)
        return cast("dict[str, Any]", refused)  # BentoML sends a response as it is
    context.response.headers.update(dict(reply.headers()))
    return {
        "model": reply.model,
        "version": reply.version,
        "arm": reply.arm,
        "decision": reply.decision,
        "receipt": str(reply.receipt),
        "predictions": prediction_rows(reply.specs, reply.outputs),
    }


def _tensors(values: Mapping[str, Any], signature: Signature) -> dict[str, Tensor]:
    if "rows" in values:
        return decode_rows(values["rows"], signature)
    found = {}
    for spec in signature.inputs:
        if spec.name not in values:
            raise BadRequest(f"this model takes '{spec.name}'; use /v2 for other signatures")
        data = values[spec.name]
        if isinstance(data, np.ndarray):
            found[spec.name] = Tensor(spec.name, spec.datatype, _exact(data, spec.datatype))
        else:
            shape = (len(data), *(1 if dim < 0 else dim for dim in spec.shape[1:]))
            array = to_array(data, spec.datatype, shape, spec.name)
            found[spec.name] = Tensor(spec.name, spec.datatype, array)
    return found


def _exact(data: np.ndarray[Any, Any], datatype: str) -> np.ndarray[Any, Any]:
    """`data` in the model's type, if no value changes by that."""
    if data.dtype.kind not in "biuf":
        raise BadRequest(f"the array must hold numbers that {datatype} can hold")
    with np.errstate(invalid="ignore"):
        cast = data.astype(DTYPES[datatype])
    if not np.array_equal(cast, data):
        raise BadRequest(f"the array holds values that {datatype} cannot hold")
    return cast
