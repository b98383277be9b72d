"""The exit statuses of what judges a log: something is wrong with it, or nobody could look."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.audit.worlds import decision
from tests.services.test_accessed import audit, home
from tests.services.test_cli_edge import command

__all__ = ["home"]

JUDGES = (["verify"], ["fsck"])


@pytest.fixture
def carried(home, tmp_path):
    """A proof, its record and the key, as words of `audit check`."""
    proof, record = tmp_path / "proof", tmp_path / "record"
    assert audit(home, "prove", decision(2).id, "--out", str(proof)).returncode == 0
    record.write_text(audit(home, "show", decision(2).id, "--raw").stdout)
    return [str(proof), str(record), "--key", audit(home, "key").stdout.strip()]


@pytest.mark.parametrize("words", JUDGES)
def test_what_cannot_be_looked_at_is_not_said_to_be_wrong(home, tmp_path, words):
    assert audit(home, *words).returncode == 0
    for more, said in (
        (["--log", str(tmp_path / "none")], "there is no log in"),
        (["--key", "x"], "as `weighbridge audit key` prints it"),
        (["--key", ""], "--key is empty"),
        (["--nonsense"], "No such option"),
    ):
        done = audit(home, *words, *more)
        assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    status, said = command(home, words, output=subprocess.DEVNULL, WEIGHBRIDGE_DURABILITY="no")
    assert (status, "WEIGHBRIDGE_DURABILITY" in said) == (2, True)


@pytest.mark.parametrize("words", JUDGES)
def test_a_verdict_that_nobody_took_is_none(home, words):
    with Path("/dev/full").open("wb") as full:
        status, said = command(home, words, output=full)
    assert (status, "No space left" in said) == (2, True)
    reads, writes = os.pipe()
    os.close(reads)
    assert command(home, words, output=writes) == (2, "")
    os.close(writes)


def test_a_record_that_was_changed_is_what_does_not_hold(home):
    segment = next((home.log_dir / "wal").iterdir())
    segment.write_bytes(segment.read_bytes().replace(b'"seq":2', b'"seq":3'))
    assert [audit(home, *words).returncode for words in JUDGES] == [1, 2]
    assert audit(home, "show", decision(2).id).returncode == 1


def test_a_proof_that_does_not_hold_is_told_from_one_that_cannot_be_read(home, carried, tmp_path):
    proof, record, *key = carried
    assert audit(home, "check", *carried).returncode == 0
    other = tmp_path / "other"
    other.write_bytes(Path(record).read_bytes().replace(b'"seq":2', b'"seq":3'))
    for words, status in (
        ((proof, str(other), *key), 1),
        ((str(other), record, *key), 1),  # it is no proof at all
        ((proof, record, "--key", "x"), 2),
        ((proof, str(tmp_path), *key), 2),
        ((str(tmp_path / "none"), record, *key), 2),
        ((proof, record), 2),
    ):
        done = audit(home, "check", *words)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
