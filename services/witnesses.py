"""The witnesses of the settings: where they are and which keys they have.

Rule: `WEIGHBRIDGE_WITNESSES` is `URL VKEY`, more of them after commas; a wrong one stops the start
with a sentence. Nothing is asked here.
Read next: audit/cosigning.py (who asks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit.cosigning import WitnessAddress, WitnessState

__all__ = ["parse_witnesses", "summary"]


def parse_witnesses(text: str) -> list[WitnessAddress]:
    """The witnesses named in `text`; none if it is empty.

    Raises:
        ValueError: one of them is not `URL VKEY`, or is there twice; names it.
    """
    found: list[WitnessAddress] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        url, _, vkey = part.partition(" ")
        address = WitnessAddress.parse(url, vkey.strip())
        if any(address.key == other.key for other in found):
            raise ValueError(f"the witness {address.key.name} is named twice")
        found.append(address)
    return found


def summary(states: Sequence[WitnessState]) -> dict[str, Any]:
    """What readiness says of the witnesses: nothing where there are none.

    `cosigned` counts those whose last request was answered with a cosignature; `alarms` those that
    saw another tree under this log's name.
    """
    if not states:
        return {}
    return {
        "witnesses": {
            "configured": len(states),
            "cosigned": sum(state.failure is None and state.cosigned > 0 for state in states),
            "alarms": sum(state.alarm for state in states),
        }
    }
