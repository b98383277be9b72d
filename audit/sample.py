"""Which decisions are explained: decided by a keyed hash, so that nobody can pick and choose.

u = first 8 bytes of HMAC-SHA256(key, decision id) / 2^64. Every rule that applies to a decision
offers a probability; the highest one counts, and the decision is selected if u is below it. So the
inclusion probability is known exactly, is written in the record, and whoever gets the key (which is
committed before and revealed after) can check each choice.
Rule: pure; no random source, no clock.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from .canonical import decimal
from .mac import Mac

_SCALE = 1 << 64


@dataclass(frozen=True, slots=True)
class Rules:
    """Probabilities in [0, 1].

    Attributes:
        base: of every decision.
        near_threshold: of one whose score is within `margin` of its threshold.
        low_confidence: of one whose score is below `confidence`.
    """

    base: float = 0.01
    near_threshold: float = 0.25
    margin: float = 0.05
    low_confidence: float = 0.25
    confidence: float = 0.6


class Selection(NamedTuple):
    """The rule that counted, its probability as a decimal string, and whether it selected."""

    rule: str
    probability: str
    selected: bool


class Sampler:
    """Selects decisions.

    Args:
        key: 32 bytes, secret until revealed.
        rules: the probabilities.
    """

    def __init__(self, key: bytes, rules: Rules | None = None) -> None:
        self._mac = Mac(key)
        self._rules = rules = rules or Rules()
        self._base = _offer("base", rules.base)
        self._near = max(self._base, _offer("near_threshold", rules.near_threshold), key=_chance)
        self._low = max(self._base, _offer("low_confidence", rules.low_confidence), key=_chance)

    @property
    def commitment(self) -> str:
        """What to record before using the key; `hmac` of a fixed text under it."""
        return self._mac.digest(b"weighbridge sampling key").hex()

    def select(
        self, decision_id: str, *, score: float | None, threshold: float | None, rows: int
    ) -> Selection:
        """Whether a decision is to be explained.

        Args:
            decision_id: its id.
            score: the probability that was compared or is the highest, if there is one.
            threshold: what it was compared with, if it was.
            rows: in the request; only single rows have a score to go by.
        """
        offer, rules = self._base, self._rules
        if score is not None and rows == 1:
            if threshold is None:
                offer = self._low if score < rules.confidence else offer
            elif abs(score - threshold) <= rules.margin:
                offer = self._near
        draw = int.from_bytes(self._mac.digest(decision_id.encode())[:8], "big")
        return Selection(offer.rule, offer.probability, draw < offer.below)


class _Offer(NamedTuple):
    """A rule, its probability, and the first draw that is not below it."""

    rule: str
    probability: str
    below: int


def _offer(rule: str, probability: float) -> _Offer:
    return _Offer(rule, decimal(probability), ceil(Fraction(probability) * _SCALE))


def _chance(offer: _Offer) -> int:
    return offer.below
