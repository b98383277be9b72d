"""How long records are kept: floors and ceilings by route.

Rule: a route is a model's name. A record that names no model is under the default; one that speaks
of a decision by its id is kept as long as the longest floor, since only the index knows its model.
Where nothing is said, a record is kept for ever.
Boundary: pure; `WEIGHBRIDGE_RETENTION` is parsed here.
Read next: pruneplan.py (which segments go by it).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = ["FOREVER", "KEEP", "Retention", "Span", "parse_retention"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdwy])")
FOREVER: Final = 1 << 62
_HOW: Final = (
    "must be FLOOR..CEILING, such as 180d..400d, and MODEL=FLOOR..CEILING for models that differ, "
    "each once, comma separated; a duration is a number and s, m, h, d, w or y, and the ceiling "
    "may be left out"
)


class Span(NamedTuple):
    """How long a route's records are kept, in microseconds: at least `floor`, at most `ceiling`."""

    floor_us: int = FOREVER
    ceiling_us: int = FOREVER


KEEP: Final = Span()


@dataclass(frozen=True, slots=True)
class Retention:
    """The policy of one installation.

    Attributes:
        default: of models that are not named, and of records that name none.
        by_model: of those that are.
    """

    default: Span = KEEP
    by_model: Mapping[str, Span] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything may ever be pruned."""
        return any(span != KEEP for span in (self.default, *self.by_model.values()))

    @property
    def longest_us(self) -> int:
        """The longest floor."""
        return max(span.floor_us for span in (self.default, *self.by_model.values()))

    @property
    def shortest_ceiling_us(self) -> int:
        """The shortest ceiling."""
        return min(span.ceiling_us for span in (self.default, *self.by_model.values()))

    def of(self, body: Mapping[str, Any]) -> tuple[str, Span]:
        """The route of a record, in words, and how long it is kept."""
        model = body.get("model")
        if isinstance(model, str):
            return model, self.by_model.get(model, self.default)
        if body.get("decision") is not None:
            return "records of decisions", self.default._replace(floor_us=self.longest_us)
        return "records of no model", self.default


def parse_retention(text: str) -> Retention:
    """Read `180d..400d,income=10y..` and the like; empty keeps everything.

    Raises:
        ValueError: it is not of this form; says what is.
    """
    default: Span | None = None
    by_model: dict[str, Span] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        model, named, said = (piece.strip() for piece in part.rpartition("="))
        floor, dots, ceiling = said.partition("..")
        if not dots or (named and (not model or model in by_model)):
            raise ValueError(_HOW)
        span = Span(_duration(floor), _duration(ceiling) if ceiling.strip() else FOREVER)
        if span.ceiling_us < span.floor_us:
            raise ValueError(f"the ceiling is below the floor in {part!r}; it {_HOW}")
        if named:
            by_model[model] = span
        elif default is None:
            default = span
        else:
            raise ValueError(_HOW)
    return Retention(default or KEEP, by_model)


def _duration(text: str) -> int:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(_HOW)
    return int(found[1]) * _UNITS[found[2]] * 1_000_000
