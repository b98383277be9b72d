"""A unit's arm: a pure function of the definition and the unit.

Implements docs/adr/0005: slot = floor(10,000 * h / 2^64), where h is the first 8 bytes,
big-endian, of SHA-256(layer salt || 0x1F || unit in UTF-8).
Rule: no state, no clock, no randomness: every process, and an auditor who holds only the record,
finds the same arm. 0x1F cannot stand in a salt (schema.py), so salt and unit cannot run together.
Refusals raise UnitError and change nothing.
"""

from bisect import bisect_right
from hashlib import sha256
from typing import NamedTuple

from .definition import BUCKETS, Definition
from .errors import UnitError

SEPARATOR = b"\x1f"


class Assignment(NamedTuple):
    """Where a unit belongs, with everything an auditor needs to find it again."""

    experiment: str
    experiment_version: str  # sha256 hex of the canonical definition
    epoch: int
    slot: int  # 0..9999
    arm: str
    model_version: str
    propensity: str  # probability of this arm, shortest decimal


def slot_of(salt: bytes, unit: str) -> int:
    """The bucket 0..9999 of `unit` in the layer salted `salt`; about 1 microsecond.

    >>> slot_of(b"digits", "user-1")
    3345

    Raises:
        UnitError: the unit is empty, or holds lone surrogates.
    """
    if not unit:
        raise UnitError("could not assign unit: it is empty")
    try:
        data = unit.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UnitError(f"could not assign unit: not Unicode text at {exc.start}") from exc
    digest = sha256(salt + SEPARATOR + data).digest()
    return (int.from_bytes(digest[:8], "big") * BUCKETS) >> 64


def assign(definition: Definition, unit: str) -> Assignment:
    """The assignment of `unit`; the same answer in every process, for ever.

    Raises:
        UnitError: the unit is empty, or holds lone surrogates.
    """
    slot = slot_of(definition.layer_salt, unit)
    arm = definition.owners[bisect_right(definition.starts, slot) - 1]
    return Assignment(
        definition.name,
        definition.version,
        definition.epoch,
        slot,
        arm.name,
        arm.version,
        arm.propensity,
    )
