"""Which payloads are kept: none, those of sampled decisions, or all; by model, and up to a size.

Rule: the policy decides what is stored beside a decision, never whether a decision is recorded or
selected. A selected decision without payloads is skipped by the explainer, which records why. One
that was explained on demand follows the same policy.
Boundary: pure; `WEIGHBRIDGE_PAYLOADS` is parsed here, decision.py asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, cast, get_args

from audit.blobfile import MAX_PAYLOAD_BYTES

from .bymodel import parse_by_model

__all__ = ["SAMPLED", "Keep", "PayloadPolicy", "parse_policy"]

Keep = Literal["none", "sampled", "all"]


class PayloadPolicy(NamedTuple):
    """What to keep of whom.

    Attributes:
        default: for models that are not named.
        by_model: for those that are.
        max_bytes: an input or output beyond this is not kept, nor its counterpart.
    """

    default: Keep = "sampled"
    by_model: Mapping[str, Keep] = {}
    max_bytes: int = MAX_PAYLOAD_BYTES

    def keeps(self, model: str, size: int, *, selected: bool) -> bool:
        """Whether to keep input and output, the larger of which has `size` bytes."""
        keep = self.by_model.get(model, self.default)
        return keep != "none" and (selected or keep == "all") and size <= self.max_bytes


SAMPLED: Final = PayloadPolicy()


def parse_policy(text: str, max_bytes: int = MAX_PAYLOAD_BYTES) -> PayloadPolicy:
    """Read `sampled`, `none,income=all` and the like: a default, and models that differ from it.

    Raises:
        ValueError: it is not of this form; says what is.
    """
    default, by_model = parse_by_model(text, get_args(Keep))
    return PayloadPolicy(
        cast("Keep", default or "sampled"), cast("dict[str, Keep]", by_model), max_bytes
    )
