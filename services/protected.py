"""Protected attributes of one request: read, coarsened, counted, never kept in clear.

Rule: values come from the inputs that the manifest names and from the caller's attributes header
(which wins); numbers become bands; what leaves this module is the count of rows per group and
label, which the decision record holds sealed. Nothing is guessed from other data.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping

import orjson

from runners.manifest import Manifest, Protected
from runners.tensor import Array, Batch

from .faults import BadRequest

__all__ = ["Group", "count_groups", "parse_attributes"]

Group = tuple[dict[str, str], str, int]
_MAX_ATTRIBUTES = 16
_MAX_TEXT = 64  # bytes, so that a record of the most groups fits into an entry of the log
_MAX_GROUPS = 100


def parse_attributes(text: str | None) -> dict[str, str]:
    """Read the `x-weighbridge-attributes` header: a flat JSON object of short values.

    Raises:
        BadRequest: not such an object; the message never repeats a value.
    """
    if not text:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise BadRequest("x-weighbridge-attributes is not JSON; send a flat object") from exc
    if not isinstance(found, dict) or len(found) > _MAX_ATTRIBUTES:
        raise BadRequest(f"x-weighbridge-attributes must be an object of <= {_MAX_ATTRIBUTES} keys")
    for value in found.values():
        if not isinstance(value, str | int | float | bool) or len(str(value)) > _MAX_TEXT:
            raise BadRequest("x-weighbridge-attributes: values must be short text or numbers")
    return {str(name): str(value) for name, value in found.items()}


def count_groups(
    manifest: Manifest, batch: Batch, attributes: Mapping[str, str], labels: list[str]
) -> list[Group]:
    """Rows per combination of protected attributes and label; [] when the model declares none.

    Args:
        manifest: names the protected attributes and where they stand.
        batch: the raw inputs, `len(labels)` rows.
        attributes: from the header; they hold for every row.
        labels: the label answered for each row.
    """
    if not manifest.protected:
        return []
    if len(labels) == 1:
        group = {}
        for name, rule in manifest.protected.items():
            found = attributes.get(name)
            if found is None:
                data = batch.get(rule["input"])
                found = "unknown" if data is None else data.item(0)
            group[name] = _coarse(found, rule)
        return [(group, labels[0], 1)]
    columns = {
        name: [_coarse(attributes[name], rule)] * len(labels)
        if name in attributes
        else _column(batch.get(rule["input"]), rule, len(labels))
        for name, rule in manifest.protected.items()
    }
    names = list(columns)
    counted = Counter(zip(*columns.values(), labels, strict=True))
    if len(counted) > _MAX_GROUPS:
        counted = _folded(counted)
    return [(dict(zip(names, key[:-1], strict=True)), key[-1], n) for key, n in counted.items()]


def _folded(counted: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """The largest groups, and the rest as one group `other` per label: every row stays counted."""
    kept = Counter(dict(counted.most_common(_MAX_GROUPS)))
    for key, n in counted.items():
        if key not in kept:
            kept[*["other"] * (len(key) - 1), key[-1]] += n
    return kept


def _column(data: Array | None, rule: Protected, rows: int) -> list[str]:
    if data is None:
        return ["unknown"] * rows
    values = data.reshape(rows, -1)[:, 0].tolist()
    known = {value: _coarse(value, rule) for value in set(values)}  # few, for many rows
    return [known[value] for value in values]


def _coarse(value: object, rule: Protected) -> str:
    """One value as a group: its text, or the band that holds the number."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text.strip()
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    if len(text) > _MAX_TEXT // 4:  # a character takes at most four bytes
        text = text.encode()[:_MAX_TEXT].decode("utf-8", "ignore")
    text, bands = text or "unknown", rule["bands"]
    try:
        number = float(text) if bands else math.nan
    except ValueError:
        return text  # a caller who sends the band itself
    if not bands or math.isnan(number):
        return text
    place = bisect_right(bands, number)
    if place == 0:
        return f"under {bands[0]}"
    return f"{bands[-1]}+" if place == len(bands) else f"{bands[place - 1]}-{bands[place] - 1}"
