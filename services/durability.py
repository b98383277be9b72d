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
    default: Durability = "strict"
    by_model: dict[str, Durability] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        model, named, word = (piece.strip() for piece in part.rpartition("="))
        if word not in get_args(Durability) or (named and not model) or model in by_model:
            raise ValueError(
                "must be strict, bounded or async, and MODEL=strict, MODEL=bounded or MODEL=async "
                "for models that differ, each once, such as bounded,income=strict"
            )
        if named:
            by_model[model] = cast("Durability", word)
        else:
            default = cast("Durability", word)
    policy = DurabilityPolicy(default, by_model)
    for model in filter(None, (name.strip() for name in high_risk.split(","))):
        if policy.of(model) == "async":
            raise ValueError(
                f"'{model}' is marked as high-risk, and async is refused for it: give it "
                f"{model}=strict or {model}=bounded"
            )
    return policy
