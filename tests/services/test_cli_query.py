"""`audit parquet` and `audit query` from a shell: what they print, refuse and put on record."""

import csv
import json
import shutil

import pytest

from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from services import cli_query
from services.settings import Settings
from tests.audit.worlds import decision
from tests.services.test_accessed import accesses, audit


@pytest.fixture
async def home(tmp_path):
    """A home whose log holds nine decisions in several segments; no gateway runs."""
    settings = Settings(home=tmp_path / "home")
    keyring = Keyring.load_or_create(settings.keys_dir)
    notary = await Notary.open(
        settings.log_dir, keyring, origin=settings.origin, segment_bytes=3_000
    )
    for seq in range(1, 10):
        await notary.append(decision(seq, label='a "b",\n[bold]c' if seq == 1 else ">50K"))
    await notary.close()
    return settings


def ok(settings, *words):
    done = audit(settings, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(settings, *words):
    done = audit(settings, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_the_log_is_exported_checked_and_asked(home):
    first = ok(home, "parquet")
    assert "the rest is in the segment that is being written" in first
    everything = ok(home, "parquet", "--all")
    assert "now holds" in everything
    assert "wrote 0 leaves" in ok(home, "parquet")
    assert "the leaves 0 to " in ok(home, "parquet", "--check")
    # Nine decisions in files, and the accesses since then from the log.
    said = ok(home, "query", "select count(*) n, min(label) l from decision", "--json")
    assert json.loads(said)["n"] == 9
    said = ok(home, "query", "select action from access order by leaf", "--json", "--actor", "eve")
    assert [json.loads(line)["action"] for line in said.splitlines()] == [
        *["parquet"] * 4,
        *["query"] * 2,
    ]
    last = accesses(home)[-1]
    assert last.actor == "eve"
    assert last.target == "select action from access order by leaf"
    victim = next((home.home / "parquet").rglob("*.parquet"))
    victim.unlink()
    done = audit(home, "parquet", "--check")
    assert done.returncode == 1
    assert f"{victim.name} is missing" in done.stdout


def test_answers_come_as_a_table_as_csv_and_as_json(home):
    sql = "select seq, label, score, time, sum(seq) over () total from decision order by seq"
    rows = list(csv.reader(ok(home, "query", sql, "--csv").splitlines(keepends=True)))
    assert rows[0] == ["seq", "label", "score", "time", "total"]
    assert rows[1][:3] == ["1", 'a "b",\n[bold]c', "0.81"]
    assert len(rows) == 10
    lines = [json.loads(line) for line in ok(home, "query", sql, "--json").splitlines()]
    assert lines[8]["total"] == 45
    assert lines[0]["time"] == "2026-09-21T14:13:20.001000+00:00"
    table = ok(home, "query", sql)
    assert "[bold]c" in table
    assert len(table.splitlines()) == 10


def test_what_is_wrong_is_said_in_one_sentence(home):
    assert "nothing" in refused(home, "query", "select nothing from decision")
    assert "one SELECT" in refused(home, "query", "drop view decision")
    assert "disabled" in refused(home, "query", "select * from read_text('/etc/hostname')")
    assert "not both" in refused(home, "query", "select 1", "--json", "--csv")
    assert "AS" in refused(home, "query", "select 1 a, 2 a", "--json")
    assert "give one of" in refused(home, "parquet", "--check", "--drop-pruned")
    assert "Protocol not known" in refused(home, "parquet", "--to", "nosuch://x")
    assert "export to it first" in refused(home, "parquet", "--check", "--to", str(home.home / "x"))


@pytest.mark.parametrize("form", ["--json", "--csv"])
@pytest.mark.parametrize("moment", ["timestamp 'infinity'", "[date '20000-01-01']"])
def test_a_moment_that_no_calendar_has_is_refused_in_words(home, moment, form):
    assert "before year 1 or after year 9999" in refused(home, "query", f"select {moment}", form)


def test_words_that_are_no_text_and_numbers_that_are_too_large_are_no_fault(home):
    assert "bytes that are no text" in refused(home, "query", "select '\udcff'")
    assert "bytes that are no text" in refused(home, "show", "a\udcff")
    assert len(ok(home, "find", "--json", "--limit", "9" * 30).splitlines()) == 10


def test_a_long_answer_is_printed_table_by_table(monkeypatch):
    taken, printed = [], []

    def rows(count):
        for number in range(count):
            taken.append(number)
            yield (number,)

    monkeypatch.setattr(cli_query, "_TABLE_ROWS", 3)
    monkeypatch.setattr(
        cli_query, "print_rows", lambda _, part: printed.append((len(part), len(taken)))
    )
    for count, expected in ((0, [0]), (2, [2]), (6, [3, 3]), (7, [3, 3, 1])):
        taken.clear()
        printed.clear()
        cli_query._print_rows(["n"], rows(count))
        assert [size for size, _ in printed] == expected
        assert all(held <= 3 * place for place, (_, held) in enumerate(printed, 1))


def test_a_reviewer_exports_and_asks_a_copy(home, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(home.log_dir, copy)
    stranger = Settings(home=tmp_path / "nowhere")
    before = LogReader(copy).size()
    ok(stranger, "parquet", "--log", str(copy), "--to", str(out), "--all")
    said = ok(
        stranger, "query", "select count(*) n from decision", "--json",
        "--log", str(copy), "--parquet", str(out),
    )  # fmt: skip
    assert json.loads(said) == {"n": 9}
    assert LogReader(copy).size() == before
    assert not stranger.home.exists()


def test_lists_objects_and_bytes_are_the_same_in_every_form(home):
    sql = "select [1, null] a, {'x': 'nan'::double, 'y': [blob '\\x01']} b, blob '\\xff' c"
    cells = ["[1,null]", '{"x":null,"y":["01"]}', "ff"]
    (lines,) = ok(home, "query", sql, "--json").splitlines()
    assert lines == f'{{"a":{cells[0]},"b":{cells[1]},"c":"ff"}}'
    _, row = csv.reader(ok(home, "query", sql, "--csv").splitlines())
    assert row == cells
    assert ok(home, "query", sql).splitlines()[1].split() == cells
