"""The gateway without its audit log, to measure what the log costs: `bench.unrecorded:Gateway`.

Rule: everything but the record is the gateway's own; no setting of the product can do this.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from audit.notary import Receipt
from audit.record import new_id
from services import decision, recorder
from services.gateway import Gateway

__all__ = ["Gateway"]

_NOWHERE = Receipt("unrecorded", 0, b"")


async def _forget(_: Any, __: decision.Taken) -> tuple[Any, Receipt]:
    event = SimpleNamespace(id=new_id(), unit_ref="")
    return event, _NOWHERE


recorder.Recorder.record = _forget  # type: ignore[method-assign, assignment]
