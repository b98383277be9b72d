"""The shape of a definition file, and faults in the author's words.

Rule: unknown fields and wrong types are refused, never coerced: `version: 1` is a number and a
model version is text. Weights are percentages with at most two decimals (one bucket is 0.01).
Boundary: shape only; sums, ranges and comparisons between files are plan.py's.
"""

import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import Fault
from .lines import Document, Where

KINDS = ("ab",)
LATER_KINDS = ("canary", "shadow", "bandit", "bluegreen")
NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"
_NAME_HINT = "lower-case letters, digits, '.', '_' and '-', at most 64, e.g. digits-ab"


def _check_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueError only
    return Decimal(value)


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Percent = Annotated[
    Decimal, BeforeValidator(_check_number), Field(ge=0, le=100, multiple_of=Decimal("0.01"))
]
Bucket = Annotated[int, Field(ge=0, le=9999)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ArmFile(_Strict):
    """One entry of `arms`."""

    name: Name
    version: Text
    weight: Percent


class DefinitionFile(_Strict):
    """A whole definition file."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: Name
    kind: str
    model: Name
    unit: Name = "user"
    layer: Name | None = None  # the model's name when it is not given
    salt: Text | None = None  # the layer's name when it is not given
    epoch: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    metric: Name
    description: Annotated[str, Field(max_length=2000)] = ""
    arms: Annotated[list[ArmFile], Field(min_length=2, max_length=64)]
    ranges: dict[str, list[Annotated[list[Bucket], Field(min_length=2, max_length=2)]]] | None = (
        None
    )


def read(document: Document) -> DefinitionFile | list[Fault]:
    """The file's shape, or every fault in it."""
    if not isinstance(document.value, dict):
        found = "nothing" if document.value is None else "something else"
        return [document.fault((), f"must be a map of fields, found {found}", "start with 'name:'")]
    kind_faults = list(_kind_faults(document))
    try:
        parsed = DefinitionFile.model_validate(document.value)
    except ValidationError as exc:
        return kind_faults + [_fault(document, dict(error)) for error in exc.errors()]
    return kind_faults or parsed


def _kind_faults(document: Document) -> Iterable[Fault]:
    kind = document.value.get("kind")
    if not isinstance(kind, str) or kind in KINDS:
        return  # a missing or mistyped kind is a matter of shape
    runs = "this version runs: " + ", ".join(KINDS)
    if kind in LATER_KINDS:
        yield document.fault(("kind",), f"the kind {kind!r} is not supported yet", runs)
    else:
        near = nearest(kind, (*KINDS, *LATER_KINDS))
        yield document.fault(("kind",), f"unknown kind {kind!r}", near or runs)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def _fault(document: Document, error: dict[str, Any]) -> Fault:
    path: Where = tuple(error["loc"])
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_fields(path)
        hint = nearest(str(path[-1]), known) or "known fields: " + ", ".join(known)
        return document.fault(path, f"unknown field {path[-1]!r}", hint)
    if kind == "missing":
        return document.fault(path, "is missing", _MISSING.get(str(path[-1]), ""))
    if kind == "string_type":
        return document.fault(path, "must be text", _quote_hint(error["input"]))
    if kind == "string_pattern_mismatch":
        named = context.get("pattern") == NAME
        return document.fault(
            path,
            f"{error['input']!r} is not a valid name" if named else "holds control characters",
            _NAME_HINT if named else "",
        )
    if kind == "multiple_of":
        return document.fault(path, f"{error['input']} has more than two decimals", "")
    message = str(error["msg"]).removeprefix("Value error, ")
    return document.fault(path, message[:1].lower() + message[1:], "")


_MISSING = {
    "version": 'the model version that this arm serves, as text: version: "1"',
    "weight": "a percentage: weight: 50",
    "metric": "the outcome to compare the arms on, e.g. metric: correct",
    "model": "the name of a registered model, e.g. model: digits",
    "kind": "kind: ab",
    "arms": "a list of at least two arms, each with name, version and weight",
}


def _quote_hint(value: object) -> str:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return f'write it in quotes: "{value}"'
    return ""


def known_fields(path: Where) -> list[str]:
    """The field names allowed beside the last part of `path`."""
    model: type[BaseModel] = ArmFile if len(path) > 1 else DefinitionFile
    return [info.alias or name for name, info in model.model_fields.items()]
