"""Records as columns: which columns each type of record has, and rows there and back.

Rules:
1. `entry_of(row) == entry` for every entry, byte for byte: what a typed column cannot hold exactly
   (a decimal written in another way, a value of another type) stands in `exact`, as JSON.
2. A type's columns follow from its fields in events.py, in that order; a field that is added later
   becomes a column at the end of the type's own. Of several schemas of a type, all fields count.
3. What this version does not know, and what is not canonical, is of type `unknown`, its whole
   record in `record`.
Columns: texts and lists or objects (as canonical JSON) are strings; decimals are doubles; Unix
microseconds `x_us` are UTC timestamps `x`; a decision's `sampling` and `latency_us` are flat.
Read next: parquet.py (files), sql.py (questions).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from .canonical import decimal, dumps
from .errors import DecodeError, EventInvalid
from .events import ALL
from .merkle import leaf_hash
from .record import field_names

UNKNOWN = "unknown"

_DECIMALS = frozenset(
    {"propensity", "score", "threshold", "value", "fit_r2", "local_error", "stability"}
)
_TIMES = {"time_us": "time", "observed_us": "observed", "from_us": "from_time", "to_us": "to_time"}
_FLAT: dict[str, dict[str, type]] = {
    "sampling": {"rule": str, "probability": float, "selected": bool},
    "latency_us": {"queue": int, "infer": int, "total": int},
}
_FLAT_NAMES = {"sampling": "sampling_{}", "latency_us": "{}_us"}
_ARROW = {
    "text": pa.string(),
    "json": pa.string(),
    "integer": pa.int64(),
    "yes": pa.bool_(),
    "decimal": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
}
_KINDS = {int: "integer", bool: "yes", str: "text", float: "decimal"}
_HEAD = [("leaf", pa.int64()), ("leaf_hash", pa.string())]
_LIMIT = 1 << 53
_GATHERED = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Column(NamedTuple):
    """One field of a record, or one key of a flat one, as a column."""

    name: str
    kind: str  # a key of _ARROW
    field: str
    key: str | None = None  # of a flat field


class Row(NamedTuple):
    """One record, ready for a table."""

    type: str
    day: str  # YYYY-MM-DD, UTC
    values: dict[str, Any]


def types() -> list[str]:
    """Every type of record that has a table, `unknown` last."""
    return [*_COLUMNS, UNKNOWN]


def columns(type_: str) -> Sequence[Column]:
    """The columns of a type beside `leaf`, `leaf_hash` and `exact`."""
    return _COLUMNS[type_]


def schema(type_: str) -> pa.Schema:
    """The Arrow schema of a type's table; the same for every file of it."""
    if type_ == UNKNOWN:
        return pa.schema([*_HEAD, ("id", pa.string()), ("time", _ARROW["time"]),
                          ("record_type", pa.string()), ("record", pa.string())])  # fmt: skip
    found = [(column.name, _ARROW[column.kind]) for column in _COLUMNS[type_]]
    return pa.schema([*_HEAD, *found, ("exact", pa.string())])


def row_of(leaf: int, entry: bytes) -> Row:
    """An entry of the log as a row; the inverse of `entry_of`.

    Raises:
        DecodeError: the entry is not a record.
    """
    body = _body(entry)
    values: dict[str, Any] = {"leaf": leaf, "leaf_hash": leaf_hash(entry).hex()}
    day = _day(body["time_us"])
    if not _known(body, entry):
        values |= {"id": body["id"], "time": _typed("time", body["time_us"])[1]}
        values |= {"record_type": body["type"], "record": entry.decode()}
        return Row(UNKNOWN, day, values)
    exact: dict[str, Any] = {}
    for column in _COLUMNS[body["type"]]:
        if column.field not in body:
            continue  # of another schema of this type
        if column.key is None:
            fits, values[column.name] = _typed(column.kind, body[column.field])
            if not fits:
                exact[column.field] = body[column.field]
    for field in _FLAT.keys() & body.keys():
        exact |= _flatten(field, body[field], values)
    values["exact"] = dumps(exact).decode() if exact else None
    return Row(body["type"], day, values)


def entry_of(type_: str, row: Mapping[str, Any]) -> bytes:
    """The entry's bytes in a row (as `Table.to_pylist` gives it); the inverse of `row_of`."""
    if type_ == UNKNOWN:
        found: bytes = row["record"].encode()
        return found
    exact = orjson.loads(row["exact"]) if row["exact"] else {}
    there = _FIELDS[type_, row["schema"]] - exact.keys()
    body: dict[str, Any] = {"type": type_}
    for column in _COLUMNS[type_]:
        if column.field not in there:
            continue
        if column.key is None:
            body[column.field] = _plain(column.kind, row[column.name])
        else:
            part = body.setdefault(column.field, {})
            part[column.key] = _plain(column.kind, row[column.name])
    return dumps(body | exact)


def table(type_: str, rows: Iterable[Row]) -> pa.Table:
    """The rows of one type as an Arrow table."""
    return pa.Table.from_pylist([row.values for row in rows], schema=schema(type_))


class Gathering:
    """Rows become tables as they come, so that few of them are Python values at a time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self._tables: dict[tuple[str, str], list[pa.Table]] = {}

    def add(self, row: Row) -> None:
        """Take a row; those of a type and day keep their order."""
        rows = self._rows.setdefault((row.type, row.day), [])
        rows.append(row)
        if len(rows) == _GATHERED:
            self._pack(row.type, row.day)

    def finish(self) -> dict[tuple[str, str], pa.Table]:
        """One table for each type and day, in that order."""
        for type_, day in list(self._rows):
            self._pack(type_, day)
        return {key: pa.concat_tables(found) for key, found in sorted(self._tables.items())}

    def _pack(self, type_: str, day: str) -> None:
        rows = self._rows.pop((type_, day))
        self._tables.setdefault((type_, day), []).append(table(type_, rows))


def _flatten(field: str, value: object, values: dict[str, Any]) -> dict[str, Any]:
    """Fill the flat columns; what must be kept exactly instead."""
    keys = _FLAT[field]
    whole = isinstance(value, dict) and value.keys() == keys.keys()
    for key, kind in keys.items():
        typed: tuple[bool, Any] = (False, None)
        if isinstance(value, dict) and value.get(key) is not None:
            typed = _typed(_KINDS[kind], value[key])
        values[_FLAT_NAMES[field].format(key)] = typed[1]
        whole = whole and typed[0]
    return {} if whole else {field: value}


def _typed(kind: str, value: Any) -> tuple[bool, Any]:
    """Whether a column of this kind holds the value exactly, and what it holds."""
    if value is None:
        return True, None
    held: float | None = None
    match kind, value:
        case "json", _:
            return True, dumps(value).decode()
        case ("text", str()) | ("yes", bool()):
            return True, value
        case (("integer" | "time"), int()) if not isinstance(value, bool) and abs(value) < _LIMIT:
            return True, value if kind == "integer" else _EPOCH + timedelta(microseconds=value)
        case "decimal", str():
            held = _number(value)
    return held is not None and decimal(held) == value, held


def _plain(kind: str, value: Any) -> Any:
    """The record's value of a column that holds it exactly; the inverse of `_typed`."""
    if value is None:
        return None
    match kind:
        case "json":
            return orjson.loads(value)
        case "decimal":
            return decimal(value)
        case "time":
            return (value - _EPOCH) // timedelta(microseconds=1)
    return value


def _number(text: str) -> float | None:
    """A decimal text as a number; None when it is none, or no finite one."""
    try:
        number = float(text)
        decimal(number)
    except (ValueError, EventInvalid):
        return None
    return number


def _day(time_us: int) -> str:
    inside = time_us if abs(time_us) < _LIMIT else 0
    return (_EPOCH + timedelta(microseconds=inside)).date().isoformat()


def _body(entry: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(entry)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"could not read an entry: {exc}") from exc
    if not isinstance(body, dict):
        raise DecodeError("could not read an entry: it is not a JSON object")
    wanted = (("id", str), ("type", str), ("time_us", int))
    if any(not isinstance(body.get(name), kind) for name, kind in wanted):
        raise DecodeError("could not read an entry: it has no id, no type or no time_us")
    return body


def _known(body: Mapping[str, Any], entry: bytes) -> bool:
    """Whether columns can hold it: a known type and schema, in canonical bytes."""
    number = body.get("schema")
    if type(number) is not int:
        return False
    names = _FIELDS.get((body["type"], number))
    if names is None or names != frozenset(body):
        return False
    try:
        return dumps(body) == entry
    except EventInvalid:
        return False


def _columns_of(kind: type[Any]) -> Iterable[Column]:
    yield Column("id", "text", "id")
    yield Column("time", "time", "time_us")
    yield Column("schema", "integer", "schema")
    for field in fields(kind):
        if field.name in ("id", "time_us"):
            continue
        if field.name in _FLAT:
            for key, type_ in _FLAT[field.name].items():
                name = _FLAT_NAMES[field.name].format(key)
                yield Column(name, _KINDS[type_], field.name, key)
        elif field.name in _TIMES:
            yield Column(_TIMES[field.name], "time", field.name)
        else:
            yield Column(field.name, _kind_of(field.name, field.type), field.name)


def _kind_of(name: str, hint: object) -> str:
    said = hint.__name__ if isinstance(hint, type) else str(hint)
    if name in _DECIMALS:
        return "decimal"
    if "dict" in said or "list" in said:
        return "json"
    return "yes" if "bool" in said else "integer" if "int" in said else "text"


def _all_columns() -> dict[str, list[Column]]:
    found: dict[str, dict[str, Column]] = {}
    for kind in ALL:
        of_type = found.setdefault(kind.type, {})
        for column in _columns_of(kind):
            of_type.setdefault(column.name, column)
    return {type_: list(of_type.values()) for type_, of_type in found.items()}


_COLUMNS = _all_columns()
_FIELDS: dict[tuple[str, int], frozenset[str]] = {
    (kind.type, kind.schema): field_names(kind) for kind in ALL
}

__all__ = [
    "UNKNOWN",
    "Column",
    "Gathering",
    "Row",
    "columns",
    "entry_of",
    "row_of",
    "schema",
    "table",
    "types",
]
