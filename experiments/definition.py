"""The values of an experiment: arms, bucket ranges, and the definition with its hash.

Rule: a definition is frozen, and `version` is the SHA-256 of its canonical JSON (the JCS subset
of docs/adr/0009: sorted ASCII keys, integers, no floats), so two processes that hold the same
version assign alike. Ranges cover 0..9999 exactly once; whoever builds a definition has checked.
Read next: plan.py (files to definitions), assign.py (what ranges are for).
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import NamedTuple

BUCKETS = 10_000


class Arm(NamedTuple):
    """One side of an experiment."""

    name: str
    version: str  # the model version it serves
    weight: int  # buckets of 10,000; 5,000 is one half

    @property
    def propensity(self) -> str:
        """The probability of this arm as the shortest decimal text, e.g. "0.5"."""
        return format_share(self.weight)


class Range(NamedTuple):
    """The buckets `first..last` (both included) belong to `arm`."""

    first: int
    last: int
    arm: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A validated experiment. `path` is where it came from and is not hashed."""

    name: str
    kind: str
    model: str
    unit: str  # what a unit is, in one word: "user", "session", ...
    layer: str  # experiments of one layer share its salt, hence its slots
    salt: str
    arms: tuple[Arm, ...]
    ranges: tuple[Range, ...]  # sorted, disjoint, together 0..9999
    metric: str  # the outcome metric the arms are compared on; values in [0, 1]
    epoch: int  # grows with every change of weights; analysis never pools across epochs
    description: str = ""
    path: str = field(default="", compare=False)
    version: str = field(init=False)  # sha256 hex of `canonical()`
    layer_salt: bytes = field(init=False, repr=False, compare=False)
    owners: tuple[Arm, ...] = field(init=False, repr=False, compare=False)  # beside `ranges`
    starts: tuple[int, ...] = field(init=False, repr=False, compare=False)  # beside `ranges`

    def __post_init__(self) -> None:
        by_name = {arm.name: arm for arm in self.arms}
        setter = object.__setattr__  # the documented way to fill a frozen dataclass
        setter(self, "layer_salt", self.salt.encode("utf-8"))
        setter(self, "owners", tuple(by_name[part.arm] for part in self.ranges))
        setter(self, "starts", tuple(part.first for part in self.ranges))
        setter(self, "version", hashlib.sha256(canonical_bytes(self.canonical())).hexdigest())

    def canonical(self) -> dict[str, object]:
        """Everything that decides an assignment, as plain JSON values (no floats)."""
        return {
            "schema": 1,
            "name": self.name,
            "kind": self.kind,
            "model": self.model,
            "unit": self.unit,
            "layer": self.layer,
            "salt": self.salt,
            "epoch": self.epoch,
            "metric": self.metric,
            "description": self.description,
            "arms": [{"name": a.name, "version": a.version, "weight": a.weight} for a in self.arms],
            "ranges": [{"first": r.first, "last": r.last, "arm": r.arm} for r in self.ranges],
        }

    def arm(self, name: str) -> Arm:
        """The arm called `name`; KeyError when there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)


def canonical_bytes(value: object) -> bytes:
    """RFC 8785 bytes of a value with ASCII keys, integers and text only."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def format_share(buckets: int) -> str:
    """Buckets as the shortest decimal: 10000 -> "1", 5000 -> "0.5", 1 -> "0.0001"."""
    whole, rest = divmod(buckets, BUCKETS)
    digits = f"{rest:04d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def format_percent(buckets: int) -> str:
    """Buckets as a percentage without trailing zeros: 5000 -> "50", 1250 -> "12.5"."""
    whole, rest = divmod(buckets, 100)
    digits = f"{rest:02d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
