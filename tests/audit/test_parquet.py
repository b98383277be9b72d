"""Parquet files hold every leaf once, whole, and as the log says; also after a crash."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from audit import parquet
from audit.columns import entry_of, row_of, schema, table, types
from audit.merkle import leaf_hash
from audit.parquet import Destination, ParquetMismatch, _runs, check, export
from audit.reader import LogReader
from audit.record import Outcome, encode
from tests.audit.anyevents import entries, write_log
from tests.audit.worlds import START_US, decision, uuid

DAY_US = 86_400_000_000


def outcome(number, **changes):
    fields = {
        "id": uuid(number + (1 << 40)), "time_us": START_US + number, "decision": uuid(number),
        "metric": "correct", "value": "0.5", "event_id": f"o-{number}", "observed_us": START_US,
    }  # fmt: skip
    return Outcome(**(fields | changes))


def mixed(count, first=1):
    """Decisions over three days, every fourth entry an outcome."""
    for number in range(first, first + count):
        day = number % 3 * DAY_US
        if number % 4 == 0:
            yield encode(outcome(number, time_us=START_US + day))
        else:
            yield encode(decision(number, time_us=START_US + day + number))


def rows_in(folder):
    """Every row of every file, by leaf; fails when a leaf is there twice."""
    found = {}
    for path in sorted(folder.rglob("*.parquet")):
        type_ = path.parents[1].name.removeprefix("type=")
        for row in pq.read_table(path, partitioning=None).to_pylist():
            assert row["leaf"] not in found, path
            found[row["leaf"]] = (type_, path.parent.name, row)
    return found


def tree(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "_lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@settings(max_examples=150)
@given(entries(min_size=1, max_size=8))
def test_any_record_comes_back_from_its_row_byte_for_byte(data):
    for leaf, entry in enumerate(data):
        row = row_of(leaf, entry)
        (back,) = table(row.type, [row]).to_pylist()
        assert entry_of(row.type, back) == entry
        assert back["leaf"] == leaf
        assert back["leaf_hash"] == leaf_hash(entry).hex()


def test_an_ordinary_decision_needs_no_exact_column():
    row = row_of(0, encode(decision(1))).values
    assert row["exact"] is None
    assert row["score"] == 0.81
    assert row["total_us"] == 40
    assert row["sampling_probability"] == 0.01
    assert row["sampling_selected"] is False
    assert row["time"].isoformat() == "2026-09-21T14:13:20.001000+00:00"


def test_bytes_that_are_not_canonical_are_kept_whole():
    entry = encode(decision(1)).replace(b'":', b'": ', 1)
    row = row_of(0, entry)
    assert row.type == "unknown"
    assert entry_of(row.type, row.values) == entry


@settings(max_examples=25)
@given(entries(min_size=1, max_size=14))
def test_the_files_hold_the_log(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = LogReader(write_log(folder, data))
        export(reader, Destination(str(folder / "out")), all_signed=True)
        found = rows_in(folder / "out")
        assert sorted(found) == list(range(len(data)))
        for leaf, entry in enumerate(data):
            type_, day, row = found[leaf]
            assert entry_of(type_, row) == entry
            assert day == f"day={row['time'].date()}" if row["time"] else "day=1970-01-01"
        assert check(reader, Destination(str(folder / "out"))) == []


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path, list(mixed(60)), segment_bytes=8_000)


def test_sealed_segments_first_the_rest_when_asked_and_nothing_twice(log, tmp_path):
    reader, out = LogReader(log), tmp_path / "out"
    last = max(int(path.stem) for path in (log / "wal").iterdir())
    assert last > 20
    manifest = export(reader, Destination(str(out)))
    assert manifest.end == last
    before = tree(out)
    export(reader, Destination(str(out)))
    assert tree(out) == before
    assert export(reader, Destination(str(out)), all_signed=True).end == 60
    write_log(tmp_path, list(mixed(60, first=61)), segment_bytes=8_000)
    assert export(LogReader(log), Destination(str(out)), all_signed=True).end == 120
    assert sorted(rows_in(out)) == list(range(120))
    assert all((out / name).read_bytes() == data for name, data in before.items() if "part" in name)
    assert check(LogReader(log), Destination(str(out))) == []
    assert not list(out.rglob("*.tmp"))


def test_only_signed_leaves_are_written(log, tmp_path):
    kept = (log / "checkpoint").read_bytes()
    write_log(tmp_path, list(mixed(9, first=61)))
    (log / "checkpoint").write_bytes(kept)
    assert export(LogReader(log), Destination(str(tmp_path / "o")), all_signed=True).end == 60


def test_the_same_log_gives_the_same_files_anywhere(log, tmp_path):
    for name in ("a", "b"):
        export(LogReader(log), Destination(str(tmp_path / name)), all_signed=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    memory = Destination("memory://exported")
    export(LogReader(log), memory, all_signed=True)
    export(LogReader(log), memory, all_signed=True)
    files = fsspec.filesystem("memory")
    found = {p.removeprefix("/exported/"): files.cat_file(p) for p in files.find("/exported")}
    assert found == tree(tmp_path / "a")
    assert check(LogReader(log), memory) == []


EXPORTER = """
import os, sys
from pathlib import Path
from audit import files, parquet
from audit.reader import LogReader
parquet.STEP_LEAVES = 7
left = int(sys.argv[3])
write = files.write_all
def counted(layer, fd, data, offset):
    global left
    left -= 1
    if left < 0:
        os.write(fd, data[: len(data) // 2])
        os.kill(os.getpid(), 9)
    write(layer, fd, data, offset)
files.write_all = counted
to = parquet.Destination(sys.argv[2])
parquet.export(LogReader(Path(sys.argv[1])), to, all_signed=True)
"""


def exported(log, out, writes):
    done = subprocess.run(
        [sys.executable, "-c", EXPORTER, str(log), str(out), str(writes)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def test_killed_anywhere_and_run_again_is_as_run_once(log, tmp_path):
    clean = tmp_path / "clean"
    assert exported(log, clean, 10**6)
    rng = random.Random(4)
    for round_ in range(3):
        out = tmp_path / f"out-{round_}"
        while not exported(log, out, rng.randrange(1, 40)):
            for path in out.rglob("*.parquet"):
                pq.read_table(path, partitioning=None)  # whole, whenever we look
        assert tree(out) == tree(clean)


def test_a_log_that_grew_between_a_crash_and_the_next_run_is_exported_once(log, tmp_path):
    out = tmp_path / "out"
    assert not exported(log, out, 12)
    write_log(tmp_path, list(mixed(30, first=61)))
    assert exported(log, out, 10**6)
    assert sorted(rows_in(out)) == list(range(90))
    assert check(LogReader(log), Destination(str(out))) == []


def test_files_of_another_or_a_longer_log_are_refused(log, tmp_path):
    out = Destination(str(tmp_path / "out"))
    export(LogReader(log), out, all_signed=True)
    for count, first in ((60, 2), (40, 1), (90, 5)):
        other = tmp_path / f"other-{count}-{first}"
        reader = LogReader(write_log(other, list(mixed(count, first=first))))
        with pytest.raises(ParquetMismatch, match="empty folder"):
            export(reader, out, all_signed=True)


def test_two_exporters_do_not_meet(log, tmp_path):
    out = Destination(str(tmp_path / "out"))
    with out.locked(), pytest.raises(ParquetMismatch, match="another export"):
        export(LogReader(log), Destination(str(tmp_path / "out")))


@pytest.mark.parametrize("harm", ["remove", "change", "add", "step"])
def test_a_missing_changed_or_added_file_is_named(log, tmp_path, harm):
    out = tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    victim = sorted(out.rglob("*.parquet"))[1]
    if harm == "remove":
        victim.unlink()
    elif harm == "change":
        victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    elif harm == "add":
        shutil.copy(victim, victim.with_name("part-x.parquet"))
    else:
        said = json.loads((out / "_manifest.json").read_text())
        del said["steps"][1]
        (out / "_manifest.json").write_text(json.dumps(said))
    problems = check(LogReader(log), Destination(str(out)))
    expected = {"remove": "is missing", "change": "was changed", "add": "in no step"}
    assert any(expected.get(harm, "are in no step") in problem for problem in problems), problems


@pytest.mark.parametrize(
    "harm",
    [
        {"announced": 5},
        {"announced": [1]},
        {"announced": [0, "x"]},
        {"steps": 3},
        {"steps": [{"first": 0, "end": 1}]},
        {"steps": [{"first": 0, "end": "1", "last_leaf_hash": "", "parts": []}]},
        {"first": -1},
        {"version": 2},
        {"path": "../else.parquet"},
        {"path": "/else.parquet"},
        {"path": "type=decision/../../else.parquet"},
    ],
)
def test_a_manifest_of_another_form_is_refused_in_words(log, tmp_path, harm):
    out = tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    said = json.loads((out / "_manifest.json").read_text())
    if "path" in harm:
        said["steps"][0]["parts"][0] |= harm
    else:
        said |= harm
    (out / "_manifest.json").write_text(json.dumps(said))
    for use in (check, export):
        with pytest.raises(ParquetMismatch, match="export to an empty folder"):
            use(LogReader(log), Destination(str(out)))


def test_a_pipe_in_place_of_the_manifest_is_not_waited_for(log, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / "_manifest.json")
    assert Destination(str(out)).manifest() is None
    end = export(LogReader(log), Destination(str(out)), all_signed=True).end
    assert Destination(str(out)).manifest().end == end


def test_credentials_in_a_url_are_not_repeated():
    assert Destination.name_of("s3://key:secret@bucket/a?token=x") == "s3://bucket/a"
    for chain in ("simplecache::", "zip://x.zip::", "/a/b::"):
        assert (
            Destination.name_of(f"{chain}ftp://u:secret@host/a?token=x") == f"{chain}ftp://host/a"
        )
    with pytest.raises(ValueError, match="could not use"):
        Destination("nosuch://bucket/a")


READ = """
import sys, duckdb, pyarrow.dataset as ds
root = sys.argv[1]
dataset = ds.dataset(root, partitioning="hive")
one = ds.dataset(root + "/type=decision", partitioning="hive")
print(dataset.count_rows(), one.count_rows(), sorted(set(one.to_table()["day"].to_pylist())))
glob = root + "/type=decision/*/*.parquet"
said = duckdb.sql(
    f"select count(*), count(distinct day), round(avg(score), 4) from "
    f"read_parquet('{glob}', hive_partitioning=true)"
).fetchall()
print(said)
"""


def test_other_engines_read_the_layout_in_a_process_of_their_own(log, tmp_path):
    out = tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    days = ["2026-09-21", "2026-09-22", "2026-09-23"]
    assert done.stdout.splitlines() == [f"60 45 {days}", "[(45, 3, 0.81)]"]


def test_every_file_of_a_type_has_the_type_s_schema(log, tmp_path):
    out = tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    for path in out.rglob("*.parquet"):
        type_ = path.parents[1].name.removeprefix("type=")
        assert pq.read_schema(path).equals(schema(type_))
        assert type_ in types()


def test_pandas_reads_one_day(log, tmp_path):
    pandas = pytest.importorskip("pandas")
    out = tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    path, *_ = (out / "type=outcome" / "day=2026-09-22").iterdir()
    frame = pandas.read_parquet(path, partitioning=None)
    assert set(frame["metric"]) == {"correct"}
    assert frame["value"].sum() == len(frame) * 0.5


def test_a_step_is_bounded_and_each_leaf_is_in_one(log, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "STEP_LEAVES", 4)
    manifest = export(LogReader(log), Destination(str(tmp_path / "out")), all_signed=True)
    covered = [leaf for step in manifest.steps for leaf in range(step.first, step.end)]
    assert covered == list(range(60))
    assert max(step.end - step.first for step in manifest.steps) <= 4
    assert ds.dataset(tmp_path / "out", partitioning="hive").count_rows() == 60


def test_leaves_that_are_wrong_are_named_in_runs(tmp_path):
    log, out = write_log(tmp_path, list(mixed(60)), segment_bytes=8_000), tmp_path / "out"
    export(LogReader(log), Destination(str(out)), all_signed=True)
    for path in out.rglob("type=decision/**/*.parquet"):
        path.unlink()
    problems = check(LogReader(log), Destination(str(out)))
    leaves = [problem for problem in problems if problem.endswith("missing, or not the log's")]
    assert leaves
    gone = {
        leaf
        for words in leaves
        for first, _, last in [words.partition(":")[0].split(" ", 1)[1].partition(" to ")]
        for leaf in range(int(first), int(last or first) + 1)
    }
    wanted = {leaf for leaf, data in LogReader(log).raw() if b'"type":"decision"' in data}
    assert gone == wanted


def test_many_runs_of_wrong_leaves_are_named_in_a_few_lines():
    wrong = list(range(0, 100, 2))
    said = list(_runs(wrong, "missing"))
    assert said[:2] == ["leaf 0: missing", "leaf 2: missing"]
    assert (len(said), said[-1]) == (21, "30 more, up to leaf 98: missing")
    assert list(_runs([3, 4, 5, 9], "x")) == ["leaves 3 to 5: x", "leaf 9: x"]
    assert list(_runs([], "x")) == []
    assert len(list(_runs(wrong[:20], "x"))) == 20
