"""SQL over the signed log: one table for each type of record, by DuckDB.

Rules:
1. A question sees every leaf that the checkpoint covers, each once: the parts that the manifest of
   a Parquet folder names, and the rest from the log itself. The parts are a copy: that they are as
   they were written is looked at, that they say what the log says is parquet.py's `check`.
2. It sees nothing else: no file, no network, no extension, no setting, no variable of this process.
   These are locked before the first question. Only one SELECT (or EXPLAIN) is taken at a time.
Read next: columns.py (the tables' columns), parquet.py.
"""

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from .columns import Gathering, row_of, schema, types
from .errors import RequestError
from .parquet import Destination, Manifest, ParquetMismatch, check_same_log, signed_size
from .reader import LogReader

_MEMORY = "2GB"
_CHUNK = 16_384
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "memory_limit": _MEMORY,
}
_LOCK = (  # its progress bar would be written among the rows
    "SET TimeZone = 'UTC'; SET enable_external_access = false; SET enable_progress_bar = false; "
    "SET lock_configuration = true;"
)
_TAKEN = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


class QueryInvalid(RequestError):
    """A question that cannot be answered; says why in DuckDB's words."""


class Answer(NamedTuple):
    """What a question found: the columns' names, and the rows, read as they are asked for."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


class Tables:
    """The signed log as tables. A context manager; for one thread.

    Args:
        reader: of the log.
        destination: Parquet files of the same log, so that the log is read from their end only.

    Attributes:
        leaves: how many are signed.
        copied: which of those come from the Parquet files.
        pruned: how many are in neither any more.

    Raises:
        NotFound: the log was never signed.
        ParquetMismatch: the files are of another log, or not those that were written.
        LogDamaged: the log cannot be read.
    """

    def __init__(self, reader: LogReader, destination: Destination | None = None) -> None:
        origin, self.leaves = signed_size(reader)
        self.copied = range(0)
        manifest = destination.manifest() if destination is not None else None
        if manifest is not None and destination is not None:
            check_same_log(manifest, origin, reader, destination)
            if (part := destination.altered(manifest)) is not None:
                raise ParquetMismatch(
                    f"could not use {destination.name}: {part} is missing or not as it was "
                    "written; see `weighbridge audit parquet --check`, or export to an empty folder"
                )
            self.copied = manifest.leaves
        first = reader.first()
        self.pruned = min(self.copied.start, first) + max(first - self.copied.stop, 0)
        rest = _rest(reader, self.copied, self.leaves)
        self._db = duckdb.connect(":memory:", config=_CONFIG)
        for type_ in types():
            parts: list[ds.Dataset] = [ds.dataset(rest[type_])]
            if manifest is not None and destination is not None:
                parts.insert(0, _files(manifest, destination, type_))
            self._db.register(type_, ds.dataset(parts))
        self._db.execute(_LOCK)

    def __enter__(self) -> "Tables":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, sql: str) -> Answer:
        """The rows of one SELECT; read them before the next question.

        Raises:
            QueryInvalid: it cannot be answered, or asks for more than to read; reading the rows
                may raise it, too.
        """
        try:
            sql.encode()
        except UnicodeEncodeError as exc:
            raise QueryInvalid(
                "could not run the query: it holds bytes that are no text in UTF-8; write it again"
            ) from exc
        try:
            statements = self._db.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _TAKEN:
                raise QueryInvalid("could not run the query: write one SELECT statement")
            reader = self._db.sql(statements[0]).to_arrow_reader(_CHUNK)
        except (duckdb.Error, pa.ArrowException, OSError, UnicodeError) as exc:
            raise _refused(exc) from exc
        return Answer(reader.schema.names, _rows(reader))

    def close(self) -> None:
        """Release everything."""
        with suppress(duckdb.Error):
            self._db.close()


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    try:
        for batch in reader:
            yield from zip(*map(_values, batch.columns), strict=True)
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        raise _refused(exc) from exc


def _values(column: Any) -> list[Any]:
    try:
        found: list[Any] = column.to_pylist()
    except OverflowError as exc:  # Python's calendar has the years 1 to 9999
        raise QueryInvalid(
            "could not answer the query: it gives a moment before year 1 or after year 9999; have "
            "it written as text, CAST(… AS VARCHAR)"
        ) from exc
    if column.type == pa.month_day_nano_interval():
        return [None if value is None else _interval(*value) for value in found]
    return found


def _interval(months: int, days: int, nanoseconds: int) -> str:
    """A length of time, such as the difference of two moments, as DuckDB writes it."""
    sign = -1 if months < 0 else 1
    years, months = divmod(abs(months), 12)
    named = ((sign * years, "year"), (sign * months, "month"), (days, "day"))
    words = [f"{n} {thing}{'' if abs(n) == 1 else 's'}" for n, thing in named if n]
    if nanoseconds or not words:
        seconds, rest = divmod(abs(nanoseconds) // 1000, 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:06}".rstrip("0") if rest else ""
        words.append(f"{'-' if nanoseconds < 0 else ''}{clock}{fraction}")
    return " ".join(words)


def _refused(error: Exception) -> QueryInvalid:
    said = " ".join(str(error).split())
    return QueryInvalid(f"could not answer the query: {said}")


def _rest(reader: LogReader, copied: range, end: int) -> dict[str, pa.Table]:
    """What the log holds and no Parquet file does, by type."""
    gathered, first = Gathering(), reader.first()
    # Files may begin later than the log: their first ones were dropped, and a copy has the leaves.
    for start, stop in ((first, copied.start), (max(first, copied.stop), end)):
        for leaf, entry in reader.raw(start, stop):
            gathered.add(row_of(leaf, entry))
    tables = {type_: [schema(type_).empty_table()] for type_ in types()}
    for (type_, _), rows in gathered.finish().items():
        tables[type_].append(rows)
    return {type_: pa.concat_tables(found) for type_, found in tables.items()}


def _files(manifest: Manifest, destination: Destination, type_: str) -> ds.Dataset:
    paths = [f"{destination.root}/{path}" for path in manifest.parts(type_)]
    if not paths:
        return ds.dataset(schema(type_).empty_table())
    return ds.dataset(
        paths, schema=schema(type_), format="parquet", filesystem=destination.fs, partitioning=None
    )


__all__ = ["Answer", "QueryInvalid", "Tables"]
