"""Who reads the live log is on record first; a copy can be read by anyone, without."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Access, Outcome, new_id, now_us
from audit.socket_link import serve
from audit.testing import check_log
from services.accessed import NotRecorded, record_access
from services.settings import Settings
from tests.audit.worlds import decision

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def home(tmp_path):
    """A home whose log holds three decisions; no gateway runs."""
    settings = Settings(home=tmp_path / "home")
    keyring = Keyring.load_or_create(settings.keys_dir)
    notary = await Notary.open(settings.log_dir, keyring, origin=settings.origin)
    for seq in (1, 2, 3):
        ref = keyring.unit_ref("alice" if seq == 2 else "bob")
        await notary.append(decision(seq, unit_ref=ref))
    await notary.close()
    return settings


def audit(settings, *words):
    environment = {**os.environ, "WEIGHBRIDGE_HOME": str(settings.home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", "from services.cli import main; main()", "audit", *words],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def accesses(settings):
    entries = LogReader(settings.log_dir).entries()
    return [entry.event for entry in entries if isinstance(entry.event, Access)]


def test_reading_while_no_gateway_runs_is_recorded_under_the_lock(home):
    record_access(home, home.log_dir, action="show", target="x", actor="eve", reason="audit 7")
    record_access(home, home.log_dir, action="find", target=None)
    first, second = accesses(home)
    assert (first.actor, first.action, first.target, first.reason) == (
        "eve",
        "show",
        "x",
        "audit 7",
    )
    assert second.actor
    assert second.reason == "not given"
    found = check_log(home.log_dir, Keyring.load(home.keys_dir).verifier_key(home.origin))
    assert found.ok


async def test_reading_while_a_gateway_runs_goes_through_its_socket(home):
    keyring = Keyring.load(home.keys_dir)
    notary = await Notary.open(home.log_dir, keyring, origin=home.origin)
    home.run_dir.mkdir(parents=True)
    server = await serve(notary, home.run_dir / "notary.sock")
    await asyncio.to_thread(record_access, home, home.log_dir, action="show", target="x")
    assert [event.target for event in accesses(home)] == ["x"]
    await server.close()
    await notary.close()


async def test_a_gateway_that_only_starts_is_waited_for(home):
    keyring = Keyring.load(home.keys_dir)
    notary = await Notary.open(home.log_dir, keyring, origin=home.origin)
    reading = asyncio.create_task(
        asyncio.to_thread(record_access, home, home.log_dir, action="show", target="x")
    )
    await asyncio.sleep(0.2)
    assert not reading.done()
    home.run_dir.mkdir(parents=True)
    server = await serve(notary, home.run_dir / "notary.sock")
    await reading
    assert len(accesses(home)) == 1
    await server.close()
    await notary.close()


async def test_many_readers_at_once_are_all_on_record(home):
    def read(number):
        record_access(home, home.log_dir, action="show", target=str(number))

    await asyncio.gather(*(asyncio.to_thread(read, number) for number in range(8)))
    assert sorted(event.target for event in accesses(home)) == [str(n) for n in range(8)]


async def test_what_cannot_be_recorded_is_not_read(home, monkeypatch):
    wanted = decision(1).id
    shutil.move(home.keys_dir, home.home / "away")
    refused = audit(home, "show", wanted)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "could not record this reading" in refused.stderr
    assert "--log COPY" in refused.stderr
    shutil.move(home.home / "away", home.keys_dir)
    notary = await Notary.open(
        home.log_dir, Keyring.load(home.keys_dir), origin=home.origin
    )  # and no socket
    monkeypatch.setattr("services.writing._WITHIN_S", 0.2)
    with pytest.raises(NotRecorded, match="offers no socket"):
        await asyncio.to_thread(record_access, home, home.log_dir, action="show", target="x")
    await notary.close()
    assert accesses(home) == []


def test_a_copy_is_read_without_keys_and_says_that_nothing_is_recorded(home, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(home.log_dir, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    stranger = Settings(home=tmp_path / "nowhere")
    done = audit(stranger, "show", decision(2).id, "--log", str(copy))
    assert json.loads(done.stdout)["seq"] == 2
    assert done.stderr.splitlines() == [f"note: {copy} is a copy: this reading is not recorded"]
    assert before == {path: path.read_bytes() for path in before}


async def test_the_log_of_an_unknown_gateway_is_not_read_past_it(home, tmp_path):
    notary = await Notary.open(home.log_dir, Keyring.load(home.keys_dir), origin=home.origin)
    other = Settings(home=tmp_path / "other")
    with pytest.raises(NotRecorded, match="WEIGHBRIDGE_HOME"):
        record_access(other, home.log_dir, action="show", target="x")
    await notary.close()


def test_a_folder_without_a_log_does_not_become_one(tmp_path):
    empty = Settings(home=tmp_path / "home")
    empty.log_dir.mkdir(parents=True)
    Keyring.load_or_create(empty.keys_dir)
    record_access(empty, empty.log_dir, action="find", target=None)
    assert list(empty.log_dir.iterdir()) == []


def test_strange_texts_are_recorded_in_a_form_that_has_bytes(home):
    record_access(home, home.log_dir, action="query", target="\udcff" + "x" * 9999, actor="e" * 999)
    (event,) = accesses(home)
    assert event.target == "?" + "x" * 3999 + "…"
    assert len(event.actor) == 201


def test_find_prints_a_table_or_lines_and_names_no_unit_in_the_record(home):
    reference = Keyring.load(home.keys_dir).unit_ref("alice")
    by_name = audit(home, "find", "--unit", "alice", "--json", "--actor", "eve")
    by_reference = audit(home, "find", "--unit-ref", reference, "--json")
    assert [json.loads(line)["seq"] for line in by_name.stdout.splitlines()] == [2]
    assert by_reference.stdout == by_name.stdout
    assert [event.target for event in accesses(home)] == [f"unit_ref={reference}"] * 2
    assert accesses(home)[0].actor == "eve"
    words = ("--model", "income", "--arm", "control", "--version", "1", "--type", "decision")
    table = audit(home, "find", *words, "--limit", "2")
    assert decision(1).id not in table.stdout
    assert decision(3).id in table.stdout
    assert "the newest 2, --limit shows more" in table.stdout
    assert "shows more" not in audit(home, "find", *words, "--limit", "3").stdout
    timed = audit(home, "find", "--from", "2026-09-21", "--to", "2026-09-22", "--trace", "45" * 16)
    assert "3 records" in timed.stdout
    none = audit(home, "find", "--decision", "nobody's")
    assert "0 records" in none.stdout
    for wrong in (
        ("--unit", "a", "--unit-ref", "b"),
        ("--from", "yesterday"),
        ("--from", "2026-09-22", "--to", "2026-09-21"),
        ("--unit", ""),
        ("--unit-ref", reference.upper()),
        ("--trace", "45"),
        ("--type", "decisions"),
    ):
        refused = audit(home, "find", *wrong)
        assert refused.returncode == 2
        assert "could not" in refused.stderr
    read = audit(home, "find", "--type", "access", "--limit", "1")
    assert "eve" not in read.stdout
    assert "find" in read.stdout  # what was done, and not only that something was


@pytest.mark.parametrize("command", ["verify", "fsck", "export"])
def test_an_empty_key_is_not_the_operators_own(home, command):
    out = ("--out", str(home.home / "pack.zip")) if command == "export" else ()
    for key in ("", " "):
        refused = audit(home, command, *out, "--key", key)
        assert refused.returncode == 2
        assert "--key is empty" in refused.stderr
    assert audit(home, command, *out).returncode == 0
    assert "export" not in [event.action for event in accesses(home)[:-1]]


def test_who_has_a_copy_and_no_keys_is_told_to_give_one(home):
    elsewhere = Settings(home=home.home / "elsewhere")
    refused = audit(elsewhere, "verify", "--log", str(home.log_dir))
    assert refused.returncode == 2
    assert "give --key" in refused.stderr


def test_a_record_that_was_not_printed_raw_is_told_from_a_changed_one(home, tmp_path):
    shown, raw, proof = (tmp_path / name for name in ("shown", "raw", "proof"))
    shown.write_text(audit(home, "show", decision(2).id).stdout)
    raw.write_text(audit(home, "show", decision(2).id, "--raw").stdout)
    assert audit(home, "prove", decision(2).id, "--out", str(proof)).returncode == 0
    key = audit(home, "key").stdout.strip()
    assert audit(home, "check", str(proof), str(raw), "--key", key).returncode == 0
    refused = audit(home, "check", str(proof), str(shown), "--key", key)
    assert (refused.returncode, "show --raw" in refused.stderr) == (1, True)
    raw.write_text(raw.read_text().replace('"seq":2', '"seq":3'))
    changed = audit(home, "check", str(proof), str(raw), "--key", key)
    assert (changed.returncode, "show --raw" in changed.stderr) == (1, False)


async def test_what_became_of_a_decision_is_said_in_its_line(home):
    keyring = Keyring.load(home.keys_dir)
    notary = await Notary.open(home.log_dir, keyring, origin=home.origin)
    said = {"metric": "correct", "value": "0.5", "event_id": "e", "observed_us": 1}
    event = Outcome(id=new_id(), time_us=now_us(), decision=decision(2).id, **said)
    await notary.append(event)
    await notary.close()
    _, line, _ = audit(home, "find", "--type", "outcome").stdout.splitlines()
    assert line.split()[-2:] == ["correct,", "0.5"]


@pytest.mark.parametrize("command", [["find"], ["show", "x"], ["verify"], ["query", "select 1"]])
def test_a_folder_that_is_no_log_is_refused_and_left_as_it_is(home, command):
    before = sorted(home.home.iterdir())
    refused = audit(home, *command, "--log", str(home.home))  # one level too high
    assert refused.returncode == 2
    assert f"there is no log in {home.home}; name the folder" in " ".join(refused.stderr.split())
    assert sorted(home.home.iterdir()) == before
    assert audit(home, "find", "--log", str(home.log_dir)).returncode == 0


def test_reports_and_tables_are_not_written_among_the_log_and_its_keys(home):
    start = [sys.executable, "-c", "from services.cli import main; main()"]
    environment = {**os.environ, "WEIGHBRIDGE_HOME": str(home.home), "PYTHONPATH": str(ROOT)}
    for folder in (home.log_dir, home.keys_dir / "new"):
        before = sorted(folder.parent.rglob("*"))
        to = ["audit", "parquet", "--to"]
        for words in (["report", "--out", folder], [*to, folder], [*to, folder.as_uri()]):
            done = subprocess.run(
                [*start, *words],
                env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, "the server's own" in done.stderr) == (2, True)
        assert sorted(folder.parent.rglob("*")) == before
    assert not accesses(home)


@pytest.mark.parametrize("command", [["find"], ["show", "x"], ["query", "select 1"]])
def test_no_reading_waits_for_a_pipe_in_place_of_a_file(home, command):
    pipe = home.log_dir / "committed"
    pipe.unlink()
    os.mkfifo(pipe)
    refused = audit(home, *command)
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert f"could not open {pipe}: it is a pipe in place of a file; put it right" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample", "3", "--from", "yesterday"], "could not read the moment 'yesterday'"),
        (["x", "--model", "income"], "choose what --sample draws from"),
        (["x", "--sample", "3"], "name a decision, or say how many"),
    ],
)
def test_what_replay_cannot_understand_is_refused_before_it_is_an_access(home, words, said):
    refused = audit(home, "replay", *words)
    assert refused.returncode == 2
    assert said in " ".join(refused.stderr.split())
    assert not accesses(home)
