"""SQL sees every signed leaf once, and nothing else on the machine."""

import json
import os
from pathlib import Path

import pytest

from audit.errors import NotFound
from audit.parquet import Destination, ParquetMismatch, export
from audit.reader import LogReader
from audit.record import encode
from audit.sql import QueryInvalid, Tables
from tests.audit.anyevents import write_log
from tests.audit.test_parquet import mixed, outcome
from tests.audit.worlds import decision


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path, list(mixed(60)), segment_bytes=8_000)


def rows(tables, sql):
    found = tables.ask(sql)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def ask(log, sql, destination=None):
    with Tables(LogReader(log), destination) as tables:
        return rows(tables, sql)


EVERY_LEAF = "select leaf from decision union all select leaf from outcome order by leaf"


@pytest.mark.parametrize("exported", ["nothing", "sealed", "all", "all, then more", "remote"])
def test_every_signed_leaf_is_seen_once_whatever_was_exported(log, tmp_path, exported):
    url = "memory://sql" if exported == "remote" else str(tmp_path / "out")
    destination, count = Destination(url), 60
    if exported != "nothing":
        export(LogReader(log), destination, all_signed=exported.startswith("all"))
    if exported == "all, then more":
        write_log(tmp_path, list(mixed(30, first=61)), segment_bytes=8_000)
        count = 90
    found = ask(log, EVERY_LEAF, destination)
    assert [row["leaf"] for row in found] == list(range(count))


def test_answers_are_those_of_the_records(log, tmp_path):
    destination = Destination(str(tmp_path / "out"))
    export(LogReader(log), destination)
    bodies = [json.loads(data) for _, data in LogReader(log).raw()]
    decisions = [body for body in bodies if body["type"] == "decision"]
    (found,) = ask(
        log,
        "select count(*) n, sum(seq) seqs, max(d.time) latest, avg(score) score, "
        "count(o.id) outcomes, sum((label_counts->>'$.\">50K\"')::int) labels, "
        "sum(total_us) us from decision d left join outcome o on o.decision = d.id",
        destination,
    )
    assert found["n"] == len(decisions)
    assert found["seqs"] == sum(body["seq"] for body in decisions)
    assert round(found["latest"].timestamp() * 1e6) == max(body["time_us"] for body in decisions)
    assert round(found["score"], 9) == 0.81
    assert found["labels"] == len(decisions)
    assert found["us"] == 40 * len(decisions)
    by_day = ask(log, "select time::date as day, count(*) n from decision group by 1 order by 1")
    assert [str(row["day"]) for row in by_day] == ["2026-09-21", "2026-09-22", "2026-09-23"]


def test_every_type_is_a_table_also_when_it_is_empty(log):
    names = {row["name"] for row in ask(log, "show tables")}
    assert {"decision", "outcome", "access", "explanation", "unknown"} <= names
    for name in names:
        ask(log, f'select * from "{name}" where leaf < 0')


@pytest.mark.parametrize("fault", ["changed", "missing", "a pipe"])
def test_parts_that_are_not_as_they_were_written_are_refused(log, tmp_path, fault):
    destination = Destination(str(tmp_path / "out"))
    export(LogReader(log), destination)
    part = sorted((tmp_path / "out").rglob("*.parquet"))[0]
    if fault == "missing":
        part.unlink()
    elif fault == "a pipe":
        part.unlink()
        os.mkfifo(part)
    else:
        raw = bytearray(part.read_bytes())
        raw[len(raw) // 2] ^= 1
        part.write_bytes(raw)
    with pytest.raises(ParquetMismatch, match=f"{part.name} is missing or not as it was written"):
        ask(log, EVERY_LEAF, destination)


def test_parts_that_no_step_names_are_not_counted(log, tmp_path):
    destination = Destination(str(tmp_path / "out"))
    export(LogReader(log), destination, all_signed=True)
    part = next((tmp_path / "out").rglob("*.parquet"))
    part.with_name("part-stray.parquet").write_bytes(part.read_bytes())
    assert ask(log, "select count(*) n from decision", destination) == [{"n": 45}]


def test_files_of_another_log_are_refused(log, tmp_path):
    destination = Destination(str(tmp_path / "out"))
    export(LogReader(log), destination, all_signed=True)
    other = write_log(tmp_path / "other", list(mixed(60, first=9)))
    with pytest.raises(ParquetMismatch):
        ask(other, "select 1", destination)


def test_a_log_that_was_never_signed_has_no_tables(tmp_path):
    with pytest.raises(NotFound):
        ask(tmp_path, "select 1")


SECRET = Path("/etc/hostname")
FORBIDDEN = [
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from read_csv('{file}')",
    "select * from '{parquet}'",
    "select * from read_parquet('{parquet}')",
    "select * from parquet_metadata('{parquet}')",
    "select * from glob('/*')",
    "select * from sniff_csv('{file}')",
    "select * from read_json('https://example.com/x.json')",
    "copy (select 1) to '{out}'",
    "copy decision to '{out}' (format parquet)",
    "export database '{out}'",
    "attach '{out}' as x",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset enable_external_access",
    "pragma enable_profiling",
    "select getenv('HOME')",
    "select * from duckdb_secrets()",
    "select * from environment",
    "select * from tables",
    "create table x as select 1",
    "create macro f() as 1",
    "drop view decision",
    "insert into decision select * from decision",
    "delete from decision",
    "prepare p as select 1",
    "call pragma_version()",
    "select 1; select 2",
    "",
    "selec 1",
    "select nothing from decision",
    "select * from arrow_scan(1, 2, 3)",
    "select error('x')",
    "select case when leaf > 50 then error('x') else leaf end from decision",
    "select * from query('select * from read_text(''{file}'')')",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_a_query_reaches_nothing_but_the_tables(log, tmp_path, sql, monkeypatch):
    environment = [{"secret": 1}]
    assert environment, "not a variable that SQL may see"
    destination = Destination(str(tmp_path / "out"))
    export(LogReader(log), destination, all_signed=True)
    parquet = next((tmp_path / "out").rglob("*.parquet"))
    target = tmp_path / "written"
    text = sql.format(file=SECRET, parquet=parquet, out=target)
    with Tables(LogReader(log), destination) as tables:
        with pytest.raises(QueryInvalid, match="could not"):
            rows(tables, text)
        assert not target.exists()
        # The tables are as they were.
        assert rows(tables, "select count(*) n from decision") == [{"n": 45}]


def test_a_value_that_is_not_written_canonically_is_a_number_all_the_same(tmp_path):
    data = [encode(outcome(1, value="0.50")), encode(decision(2, score="1e-3"))]
    log = write_log(tmp_path, data)
    found = ask(log, "select value, exact from outcome")
    assert found == [{"value": 0.5, "exact": '{"value":"0.50"}'}]


def test_nothing_is_written_where_the_query_runs(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    ask(log, "select a.leaf from decision a, decision b, outcome c order by random() limit 3")
    assert sorted(tmp_path.iterdir()) == before


def test_a_long_query_writes_no_progress_among_the_rows(log):
    found = ask(log, "select value from duckdb_settings() where name = 'enable_progress_bar'")
    assert found == [{"value": "false"}]


LENGTHS = (
    "interval 0 days", "interval 1 day", "interval '-3 days'", "interval '-14 months'", "null",
    "interval '1 year 2 months 3 days 04:05:06.5'", "interval '-00:00:01.000001'",
    "interval '100:00:00'", "timestamptz '2026-01-02' - timestamptz '2026-01-01 22:59:59.5'",
)  # fmt: skip


def test_a_length_of_time_reads_as_duckdb_writes_it(log):
    with Tables(LogReader(log)) as tables:
        for length in LENGTHS:
            ((found, wanted),) = tables.ask(f"select {length}, ({length})::varchar").rows
            assert found == wanted, length
