"""The index answers as a scan of the whole log would, whatever happened to its file."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.errors import LogUnavailable
from audit.fsck_derived import _index_seen
from audit.index import Criteria, Index, read_leaves
from audit.reader import LogReader
from audit.record import encode
from tests.audit.anyevents import entries, write_log
from tests.audit.worlds import START_US, decision, uuid

MODELS, ARMS, TRACES = ["income", "digits"], ["control", "treatment"], ["45" * 16, "46" * 16]
SOME = st.lists(
    st.builds(
        lambda model, arm, trace, unit, version, at: {
            "model": model, "arm_served": arm, "trace_id": trace, "unit_ref": unit * 16,
            "version": version, "time_us": START_US + at,
        },
        st.sampled_from(MODELS), st.sampled_from([*ARMS, None]), st.sampled_from([*TRACES, None]),
        st.sampled_from(["ab", "cd"]), st.sampled_from(["1", "2"]), st.integers(0, 9),
    ),
    max_size=25,
)  # fmt: skip
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([*MODELS, "none", "'; DROP TABLE leaf"]),
        "arm": st.sampled_from(ARMS),
        "trace_id": st.sampled_from(TRACES),
        "unit_ref": st.sampled_from(["ab" * 16, "cd" * 16]),
        "version": st.sampled_from(["1", "2"]),
        "type": st.sampled_from(["decision", "outcome"]),
        "decision": st.integers(1, 30).map(uuid),
        "from_us": st.integers(START_US, START_US + 10),
        "to_us": st.integers(START_US, START_US + 10),
    },
)


def scan(directory, asked, limit):
    """What the index should find, by reading everything; written without the index's own rules."""
    found = []
    for leaf, data in LogReader(directory).raw():
        body = json.loads(data)
        arm = body["arm_served"] if body.get("arm_served") is not None else body.get("arm")
        if not all(
            {
                "decision": wanted in (body["id"], body.get("decision")),
                "from_us": name != "from_us" or body["time_us"] >= wanted,
                "to_us": name != "to_us" or body["time_us"] < wanted,
                "arm": arm == wanted,
            }.get(name, body.get(name) == wanted)
            for name, wanted in asked.items()
        ):
            continue
        found.append(leaf)
    return found[-limit:]


@settings(max_examples=60)
@given(SOME, entries(max_size=5), st.lists(ASKED, min_size=1, max_size=6), st.integers(1, 9))
def test_every_lookup_finds_what_a_scan_finds_step_by_step_and_rebuilt(some, others, asks, limit):
    made = [encode(decision(n + 100, **changes)) for n, changes in enumerate(some)]
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "index.sqlite"
        half = len(made) // 2
        for part in (made[:half], others, made[half:]):
            log = write_log(folder, part)
            with Index(log, path) as grown:
                for asked in asks:
                    found = grown.search(Criteria(**asked), limit=limit)
                    assert found == scan(log, asked, limit)
        with Index(log, path) as grown, Index(log, Path(":memory:")) as fresh:
            grown.catch_up()
            fresh.catch_up()
            everything = "SELECT * FROM leaf ORDER BY leaf"
            before = grown._file._db.execute(everything).fetchall()
            assert before == fresh._file._db.execute(everything).fetchall()
            grown.rebuild()
            assert before == grown._file._db.execute(everything).fetchall()


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path, [encode(decision(seq)) for seq in range(1, 41)])


def leaves(log, path=None):
    with Index(log, path) as index:
        return index.search(Criteria(model="income"))


@given(st.sets(st.integers(0, 39)), st.integers(1, 5))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_leaves_are_read_in_few_passes(log, wanted, near):
    reader, leaves = LogReader(log), sorted(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.index._NEAR", near)
        found = list(read_leaves(reader, leaves))
    assert found == [(leaf, encode(decision(leaf + 1))) for leaf in leaves]


def test_a_record_of_a_later_version_is_found_by_what_it_has(tmp_path):
    known = encode(decision(1))
    odd = [
        json.dumps(body, separators=(",", ":")).encode()
        for body in (
            {"model": "income", "schema": 9, "time_us": "noon", "type": "later"},
            {"decision": uuid(7), "id": 5, "model": "income", "time_us": 1 << 70, "type": "later"},
        )
    ]
    with Index(write_log(tmp_path, [*odd, known])) as index:
        assert index.search(Criteria(model="income")) == [0, 1, 2]
        assert index.search(Criteria(decision=uuid(7))) == [1]
        assert index.search(Criteria(from_us=1)) == [2]
        assert index.search(Criteria(to_us=1)) == [0, 1]
        assert index.find(uuid(7)) is None


def test_an_index_of_an_older_version_is_made_again(log):
    with sqlite3.connect(log / "index.sqlite") as old:
        old.execute("CREATE TABLE leaf (leaf INTEGER PRIMARY KEY, id TEXT)")
        old.execute("INSERT INTO leaf VALUES (0, 'x')")
    old.close()
    assert leaves(log) == list(range(40))


def test_an_index_of_a_log_that_was_rolled_back_is_made_again(log, tmp_path):
    write_log(tmp_path / "other", [encode(decision(seq, model="else")) for seq in range(1, 61)])
    kept = tmp_path / "index.sqlite"
    assert leaves(log, kept) == list(range(40))
    # Shorter, then longer again with other records: the counts alone would not show it.
    for other, expected in ((tmp_path / "other" / "log", []), (log, list(range(40)))):
        assert leaves(other, kept) == expected


@pytest.mark.parametrize("at", [0, 100, 5000, 20_000])
def test_a_damaged_or_cut_index_is_made_again(log, at):
    assert leaves(log) == list(range(40))
    path = log / "index.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + b"\xff" * 600 + whole[at + 600 :])
    assert leaves(log) == list(range(40))
    path.write_bytes(whole[:at])
    assert leaves(log) == list(range(40))


def test_an_index_whose_schema_is_no_text_any_more_is_made_again(log):
    assert leaves(log) == list(range(40))
    path = log / "index.sqlite"
    path.write_bytes(path.read_bytes().replace(b"unit_ref IS", b"unit\x94ref IS"))
    assert [one.what for one in _index_seen(log)] == ["damaged: malformed database schema"]
    assert leaves(log) == list(range(40))
    assert [one.level for one in _index_seen(log)] == ["fine"]


def test_an_index_that_can_neither_be_used_nor_removed_is_left_and_another_is_in_memory(log):
    beside = log / "index.sqlite-wal"
    beside.mkdir()
    assert leaves(log) == list(range(40))
    assert beside.is_dir()


def test_rows_that_point_elsewhere_are_noticed(log):
    assert leaves(log) == list(range(40))
    with sqlite3.connect(log / "index.sqlite") as db:
        db.execute("UPDATE leaf SET model = 'digits' WHERE leaf = 7")
    db.close()
    with Index(log) as index:
        assert index.search(Criteria(model="digits")) == []
        assert index.search(Criteria(model="income")) == list(range(40))


def test_where_nothing_can_be_written_the_index_is_in_memory(log):
    assert leaves(log, log / "committed" / "no folder" / "index.sqlite") == list(range(40))


def test_an_index_that_somebody_else_builds_is_waited_for_then_refused_by_name(log, monkeypatch):
    assert leaves(log) == list(range(40))
    write_log(log.parent, [encode(decision(41))])
    holder = sqlite3.connect(log / "index.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Index(log) as index:
        index._file._db.execute("PRAGMA busy_timeout=50")
        with pytest.raises(LogUnavailable, match=r"index\.sqlite"):
            index.search(Criteria(model="income"))
        holder.execute("ROLLBACK")
        assert index.search(Criteria(model="income")) == list(range(41))
    holder.close()


BUILDER = """
import sys
from pathlib import Path
from audit import index
index._BATCH = 7
take = index.Index._take
def told(self, start, stop):
    take(self, start, stop)
    print(stop, flush=True)
index.Index._take = told
with index.Index(Path(sys.argv[1])) as found:
    found.catch_up()
"""


def test_a_killed_builder_leaves_an_index_that_goes_on(log):
    for kill_at in (7, 21, 35):
        for leftover in log.glob("index.sqlite*"):
            leftover.unlink()
        builder = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(log)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        for line in builder.stdout:
            if int(line) >= kill_at:
                builder.send_signal(signal.SIGKILL)
                break
        builder.stdout.close()
        builder.wait()
        assert leaves(log) == list(range(40))


def test_a_copy_with_an_index_of_its_own_goes_on(log, tmp_path):
    leaves(log)
    copy = tmp_path / "copy"
    shutil.copytree(log, copy)
    assert leaves(copy) == list(range(40))


MANY = """
import sys
from pathlib import Path
from audit.index import Criteria, Index
for _ in range(6):
    with Index(Path(sys.argv[1]), Path(sys.argv[2])) as index:
        if sys.argv[3] == "rebuild":
            index.rebuild()
        found = index.search(Criteria(model="income"))
        assert found == list(range(40)), found
"""


def test_several_processes_build_and_ask_one_index_at_once(log, tmp_path):
    path = tmp_path / "index.sqlite"
    several = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(log), str(path), what],
            env={**os.environ, "PYTHONPATH": str(Path.cwd())}, stderr=subprocess.PIPE, text=True,
        )
        for what in ("ask", "rebuild", "ask", "rebuild")
    ]  # fmt: skip
    for one in several:
        assert one.communicate()[1] == ""
        assert one.returncode == 0
