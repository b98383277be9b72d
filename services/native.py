"""Native BentoML calls to the data plane: Python values in, a plain dict out.

Rule: the same checks, the same routing and the same record as over HTTP and gRPC; only the shape of
the values differs. Refusals become BentoML's own exceptions with the status of faults.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import numpy as np
from bentoml.exceptions import BentoMLException

from runners.tensor import DTYPES, Signature, Tensor

from .admin import Admin
from .codec import to_array
from .dataplane import DataPlane, Request
from .faults import BadRequest, report
from .v1 import decode_rows, prediction_rows

__all__ = ["Refused", "predict"]


class Refused(BentoMLException):
    """A refusal with a status of ours; BentoML sends its text."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is an HTTP status."""
        super().__init__(message)
        self.error_code = HTTPStatus(status)


async def predict(
    plane: DataPlane, admin: Admin, model: str, values: Mapping[str, Any], unit: str
) -> dict[str, Any]:
    """Answer `{"model", "version", "arm", "decision", "receipt", "predictions": [...]}`.

    Args:
        plane: answers.
        admin: knows the signatures.
        model: the model's name.
        values: input name to array or list; or {"rows": [objects]} for named columns.
        unit: the randomisation unit; "" uses the request id.

    Raises:
        Refused: every refusal, with its status.
    """
    try:
        signature = admin.signature(model, None)
        if signature is None:
            raise admin.unknown(model, "")
        request = Request(
            model=model,
            version=None,
            inputs=_tensors(values, signature),
            origin="native",
            trace=plane.telemetry.begin(None),
            request_id=uuid.uuid4().hex,
        )
        if unit:
            request.unit, request.unit_source = unit, "parameter"
        reply = await plane.infer(request)
    except Exception as exc:
        fault = report(exc)
        raise Refused(fault.message, fault.status) from exc
    return {
        "model": reply.model,
        "version": reply.version,
        "arm": reply.arm,
        "decision": reply.decision,
        "receipt": f"{reply.receipt.origin}#{reply.receipt.index}",
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
    cast = data.astype(DTYPES[datatype])
    if not np.array_equal(cast, data):
        raise BadRequest(f"the array holds values that {datatype} cannot hold")
    return cast
