"""Native BentoML calls to the data plane: Python values in, a plain dict out.

Rule: the same checks, the same routing and the same record as over HTTP and gRPC; only the shape of
the values differs. Refusals become BentoML's own exceptions with the status of faults.py.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import numpy as np
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError

from runners.tensor import DTYPES, Signature, Tensor

from .admin import Admin
from .claims import checked_unit
from .dataplane import DataPlane, Request
from .faults import BadRequest, report
from .v1 import decode_rows, prediction_rows
from .values import to_array

__all__ = ["Refused", "hide_inputs", "predict"]

_BENTOML_LOG = "bentoml._internal.server.http_app"


class Refused(BentoMLException):
    """A refusal with a status of ours; BentoML sends its text."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is an HTTP status."""
        super().__init__(message)
        self.error_code = HTTPStatus(status)


def hide_inputs() -> None:
    """Keep what callers sent out of the log, where BentoML puts the text of every refusal."""
    logging.getLogger(_BENTOML_LOG).addFilter(_without_text)


def _without_text(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, Refused | ValidationError):
        record.exc_info, record.exc_text = None, None
    return True


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
            request.unit, request.unit_source = checked_unit(unit), "parameter"
        reply = await plane.infer(request)
    except Exception as exc:
        fault = report(exc)
        raise Refused(fault.message, fault.status) from exc
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
