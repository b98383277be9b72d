"""The edge of the command line: terminals, pipes and disks that refuse, and what is said then."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audit.keys import Keyring
from audit.notary import Notary
from services.cli_edge import printable, read_text, said_of
from tests.audit.worlds import decision
from tests.services.test_accessed import ROOT, audit, home

__all__ = ["home"]

SELECT = ("query", "select '中😀' x, seq from decision")


def command(settings, words, *, output, before="pass", **environment):
    """Run a command with such an output; its status and what it said on standard error."""
    given = {**os.environ, "WEIGHBRIDGE_HOME": str(settings.home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}; from services.cli import main; main()", "audit", *words],
        env=given | environment, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("form", ["--json", "--csv", "table"])
def test_a_full_disk_is_said_and_a_closed_pipe_is_not(home, form):
    words = (*SELECT, *([] if form == "table" else [form]))
    with Path("/dev/full").open("wb") as full:
        status, said = command(home, words, output=full)
    assert status == 2
    assert said.startswith("weighbridge: could not use what it reads or writes: No space left")
    assert len(said.splitlines()) == 1
    reads, writes = os.pipe()
    os.close(reads)
    status, said = command(home, words, output=writes)
    os.close(writes)
    assert (status, said) == (2, "")


def test_an_output_that_is_closed_is_not_written_to(home):
    before = "import os, sys; os.close(1); sys.stdout = None"
    assert command(home, SELECT, output=subprocess.DEVNULL, before=before) == (0, "")


def test_a_terminal_without_the_characters_shows_their_numbers(home, tmp_path):
    found = {}
    for form in ("--json", "--csv", "table"):
        words = (*SELECT, *([] if form == "table" else [form]))
        with (tmp_path / form).open("wb") as file:
            assert command(home, words, output=file, PYTHONIOENCODING="ascii") == (0, "")
        found[form] = (tmp_path / form).read_text(encoding="utf-8")
    assert "\\u4e2d\\U0001f600" in found["table"]
    assert "中😀" in found["--json"]  # programs get UTF-8
    assert "中😀" in found["--csv"]


def test_an_error_of_the_system_names_the_file_and_a_remedy(home, tmp_path):
    gone = tmp_path / "gone"
    done = audit(home, "verify", "--earlier", str(gone))
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"could not use {gone}: No such file or directory; check the path" in said
    done = audit(home, "export", "--out", str(gone / "pack.zip"))
    assert done.returncode == 2
    assert f"{gone} is no folder; make it first" in " ".join(done.stderr.split())
    done = audit(home, "export", "--out", "/dev/null")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_file_is_replaced_unasked_and_none_of_the_log_or_its_keys_at_all(home, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    own = [home.keys_dir / "master.key", next((home.log_dir / "wal").iterdir())]
    before = [path.read_bytes() for path in own]
    for words in (["export"], ["prove", "0" * 36]):
        done = audit(home, *words, "--out", str(theirs))
        assert (done.returncode, "--force" in done.stderr) == (2, True)
        for path in (*own, home.keys_dir / "new"):
            done = audit(home, *words, "--out", str(path), "--force")
            assert (done.returncode, "the server's own" in " ".join(done.stderr.split())) == (
                2,
                True,
            )
    assert theirs.read_text() == "kept"
    assert [path.read_bytes() for path in own] == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.ELOOP])
def test_every_error_of_the_system_says_what_to_do(number):
    words = os.strerror(number)
    said = said_of(OSError(number, words, "/a\nb"))
    assert said.startswith(f"could not use /a\N{REPLACEMENT CHARACTER}b: {words}; ")
    assert said.rpartition("; ")[2]
    assert "what it reads or writes" in said_of(OSError(number, words))


def test_bytes_that_are_no_text_are_named_by_their_file_and_not_shown(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"secret \xff")
    with pytest.raises(ValueError, match=r"x: it is no text in UTF-8") as refused:
        read_text(path)
    assert "secret" not in str(refused.value)
    assert "secret" not in said_of(UnicodeDecodeError("utf-8", b"secret \xff", 7, 8, "secret"))
    assert "secret" not in said_of(UnicodeEncodeError("utf-8", "secret \udcff", 7, 8, "secret"))
    assert printable("a\x1b[0m中") == "a\N{REPLACEMENT CHARACTER}[0m中"


def test_what_is_found_of_a_damaged_log_is_printed_whole(home):
    (home.log_dir / "committed").unlink()
    plain = json.loads(audit(home, "verify", "--json").stdout)
    done = audit(home, "verify", "--complete", "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert said["problems"][0] == "step 8: committed: missing or empty"
    assert len(said["problems"]) == len(plain["problems"]) + 1
    done = audit(home, "verify", "--complete")
    assert (done.returncode, done.stderr) == (1, "")
    for line in ("PROBLEM    step 8: committed: missing", "PROBLEM    nothing was counted: "):
        assert line in done.stdout


async def test_records_and_proofs_keep_their_bytes_whatever_a_terminal_can_show(home, tmp_path):
    notary = await Notary.open(home.log_dir, Keyring.load(home.keys_dir), origin=home.origin)
    await notary.append(decision(4, label="中😀"))
    await notary.close()
    for verb, sign in (("show", "中😀"), ("prove", "— ")):
        for encoding in ("utf-8", "ascii", "latin-1"):
            with (tmp_path / verb).open("wb") as file:
                words = (verb, decision(4).id)
                assert command(home, words, output=file, PYTHONIOENCODING=encoding)[0] == 0
            assert sign in (tmp_path / verb).read_text(encoding="utf-8")


def test_what_a_record_says_does_not_reach_the_terminal_as_orders(home):
    orders = "\x1b[31mcase"
    held = audit(home, "hold", "--subject", "alice", "--reason", orders)
    assert held.returncode == 0, held.stderr
    refused = audit(home, "erase", "--subject", "alice", "--reason", "x")
    assert (refused.returncode, "[31mcase" in refused.stderr) == (2, True)
    said = audit(home, "override", decision(1).id, "--label", f"{orders}\nx", "--reason", "x")
    assert said.returncode == 0, said.stderr
    assert len(said.stdout.splitlines()) == 1
    assert "\x1b" not in refused.stderr + said.stdout
    assert said_of(ValueError("a\nb\x1bc")) == "a\nb\N{REPLACEMENT CHARACTER}c"
