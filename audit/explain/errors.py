"""Why a decision has no explanation.

Rule: `reason` is one of a closed list, so that an `explanation_skipped` record can carry it and a
report can count it; `detail` never holds a value of the row, which may be personal.
"""

from typing import Literal

from ..errors import AuditError

Reason = Literal[
    "unknown_modality",  # neither image, text nor table
    "wrong_shape",  # the row or the model's answer is not of the promised shape
    "not_finite",  # the model answered with NaN or infinity
    "empty_input",  # nothing that could be hidden: no words, a blank picture, no free columns
    "input_too_large",  # more pixels or characters than an explanation is allowed to cost
    "too_many_classes",
    "background_invalid",  # background.json lacks what the row needs
    "flat_prediction",  # whatever is hidden, the answer stays the same: there is nothing to weigh
]


class ExplainError(AuditError):
    """The row could not be explained; nothing was changed.

    Args:
        reason: one of `Reason`.
        detail: what was expected and found, without values of the row.
    """

    status_hint = 422

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason: Reason = reason
        self.detail = detail
        super().__init__(f"could not explain the row: {reason}: {detail}")
