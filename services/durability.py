"""How durable a decision's record is before its answer leaves: by model.

Rule: what is promised stands in each record, and the log is asked for just that. For a model that
is marked as high-risk `async`, which is made for development, is refused at the start.
Boundary: pure; `WEIGHBRIDGE_DURABILITY` and `WEIGHBRIDGE_HIGH_RISK` are parsed here, recorder.py
asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, cast, get_args

from audit.receipts import Durability

from .bymodel import parse_by_model

__all__ = ["STRICT", "DurabilityPolicy", "parse_durability"]


class DurabilityPolicy(NamedTuple):
    """What is promised for whom.

    Attributes:
        default: for models that are not named, and for all that is not a decision.
        by_model: for those that are.
    """

    default: Durability = "strict"
    by_model: Mapping[str, Durability] = {}

    def of(self, model: str) -> Durability:
        """What is promised for a model's decisions."""
        return self.by_model.get(model, self.default)


STRICT: Final = DurabilityPolicy()


def parse_durability(text: str, high_risk: str = "") -> DurabilityPolicy:
    """Read `strict`, `bounded,income=strict` and the like: a default, and models that differ.

    Args:
        text: the policy.
        high_risk: the models that `async` is refused for, comma separated.

    Raises:
        ValueError: it is not of this form, or a high-risk model would be `async`; says what is.
    """
    default, by_model = parse_by_model(text, get_args(Durability))
    policy = DurabilityPolicy(
        cast("Durability", default or "strict"), cast("dict[str, Durability]", by_model)
    )
    for model in filter(None, (name.strip() for name in high_risk.split(","))):
        if policy.of(model) == "async":
            raise ValueError(
                f"'{model}' is marked as high-risk, and async is refused for it: give it "
                f"{model}=strict or {model}=bounded"
            )
    return policy
