"""Erasure on a real gateway: over HTTP, by command, running and stopped; the disk is read whole."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import server as servers

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision, Erasure
from audit.seals import Seals
from tests.conftest import link_models

KEY = bytes(range(32)).hex()
TEXT = "a film that only alice of Wonderland Street could have hated so much"
SETTINGS = {
    "WEIGHBRIDGE_MODELS": "sentiment,income",
    "WEIGHBRIDGE_PAYLOADS": "sentiment=all,income=none",
    "WEIGHBRIDGE_EXPLAINER": "false",
}


def predict(gateway: servers.Server, unit: str, text: str = TEXT) -> str:
    reply = httpx.post(
        f"{gateway.http}/v1/models/sentiment:predict",
        json={"instances": [text]},
        headers={"x-weighbridge-unit": unit},
        timeout=30,
    )
    reply.raise_for_status()
    return reply.headers["x-weighbridge-decision"]


def ask(gateway: servers.Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{gateway.http}/v1/audit/{path}", json=body, timeout=30)


class Opened:
    """The log of a home, with the keys."""

    def __init__(self, home: Path) -> None:
        self.reader = LogReader(home / "log")
        self.ring = Keyring.load(home / "keys")
        self.seals = Seals(home / "log", self.ring)
        self.home = home

    def body(self, decision: str, name: str = "input") -> bytes | None:
        return self.reader.payload(self.ring, decision, name)

    def event(self, decision: str) -> Decision:
        found = [e.event for e in self.reader.entries() if e.event.id == decision]
        assert isinstance(found[0], Decision)
        return found[0]

    def disk(self) -> bytes:
        paths = [path for path in (self.home / "log").rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in paths)


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    link_models(trained_home, tmp_path)
    return tmp_path


def test_a_subject_is_erased_from_a_running_gateway_and_from_a_stopped_one(home) -> None:
    with servers.running(home, **SETTINGS) as gateway:
        alice, bob = predict(gateway, "alice"), predict(gateway, "bob", "bob liked it")
        opened = Opened(home)
        (data_key,) = [
            opened.seals.key(opened.event(alice).unit_ref),
        ]
        assert TEXT.encode() in (opened.body(alice) or b"")
        assert opened.seals.secret(opened.event(alice)) is not None
        report = home / "reports" / "report.html"
        report.parent.mkdir()
        report.write_text(f"worked example {alice}: {TEXT}")
        (home / "reports" / "other.html").write_text(f"worked example {bob}")

        held = ask(gateway, "holds", unit="alice", actor="court", reason="case 12")
        assert held.status_code == 200
        refused = ask(gateway, "erasures", unit="alice", actor="officer", reason="asked")
        assert (refused.status_code, "legal hold by anonymous, for court" in refused.text) == (
            409,
            True,
        )
        refused_too = gateway.cli("audit", "erase", "--subject", "alice", "--reason", "asked")
        assert (refused_too.returncode, "legal hold" in refused_too.stderr) == (2, True)
        released = gateway.cli("audit", "release", "--subject", "alice", "--reason", "closed")
        assert released.returncode == 0, released.stderr

        done = ask(gateway, "erasures", unit="alice", actor="officer", reason="asked")
        assert done.status_code == 200, done.text
        assert (done.json()["keys"], done.json()["reports_removed"]) == (1, ["report.html"])
        assert (home / "reports" / "other.html").exists()
        again = ask(gateway, "erasures", unit="alice", actor="officer", reason="asked")
        assert (again.json()["again"], again.json()["leaf"]) == (True, done.json()["leaf"])
        for body in ({"unit": "nobody"}, {"unit_ref": "0" * 32}):
            missing = ask(gateway, "erasures", **body, actor="a", reason="b")
            assert (missing.status_code, "holds nothing" in missing.text) == (404, True)
        for wrong in ({}, {"unit": "x"}, {"unit": "x", "unit_ref": "y"}, {"unit_ref": "x"}):
            assert ask(gateway, "erasures", **wrong).status_code == 400
        assert opened.body(alice) is None
        assert opened.body(alice, "output") is None
        assert opened.seals.secret(opened.event(alice)) is None
        assert b"bob liked it" in (opened.body(bob) or b"")

        # She comes back: a new key, and what was lost stays lost.
        returned = predict(gateway, "alice", "alice is back")
        assert b"alice is back" in (opened.body(returned) or b"")
        assert opened.seals.secret(opened.event(returned)) is not None
        assert opened.body(alice) is None
        assert gateway.cli("audit", "verify").returncode == 0
        assert "Wonderland" not in gateway.output()

    stopped = servers.stopped(home, **SETTINGS)
    kept = home / "kept"
    shutil.copytree(home / "log" / "blobs", kept)
    done_by_command = stopped.cli("audit", "erase", "--subject", "alice", "--reason", "again")
    assert done_by_command.returncode == 0, done_by_command.stderr
    assert "1 data key destroyed" in done_by_command.stdout
    unknown = stopped.cli("audit", "erase", "--subject", "nobody", "--reason", "x")
    assert (unknown.returncode, "holds nothing about it" in unknown.stderr) == (2, True)
    opened = Opened(home)
    assert opened.body(returned) is None
    verified = stopped.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "4 erased payloads" in verified.stdout
    erasures = [e.event for e in opened.reader.entries() if isinstance(e.event, Erasure)]
    assert [event.reason for event in erasures] == ["asked", "again"]
    disk = opened.disk()
    for gone in (TEXT.encode(), b"Wonderland", b"alice", b"bob liked", data_key):
        assert gone not in disk

    # Somebody puts the key files of before back: seen at once, and undone by the next start.
    shutil.rmtree(home / "log" / "blobs")
    shutil.copytree(kept, home / "log" / "blobs")
    assert Opened(home).body(returned) is not None
    found = stopped.cli("audit", "verify")
    assert (found.returncode, "there (again)" in found.stdout) == (1, True)
    with servers.running(home, **SETTINGS) as gateway:
        assert Opened(home).body(returned) is None
        assert gateway.cli("audit", "verify").returncode == 0


def test_kept_decisions_are_replayed_bit_by_bit_under_a_key_that_is_in_no_file(home) -> None:
    settings = SETTINGS | {"WEIGHBRIDGE_MASTER_KEY": KEY}
    with servers.running(home, **settings) as gateway:
        decisions = [predict(gateway, f"unit {n}", f"film number {n} was fine") for n in range(5)]
        one = gateway.cli("audit", "replay", decisions[0])
        assert one.returncode == 0, one.stdout + one.stderr
        drawn = gateway.cli("audit", "replay", "--sample", "9", "--model", "sentiment", "--json")
        found = orjson.loads(drawn.stdout)
        assert found["counts"] == {"equal": 5}, found
        assert {told["decision"] for told in found["decisions"]} == set(decisions)
        assert "alone" in found["how"]
        nothing = gateway.cli("audit", "replay", "--sample", "9", "--model", "income")
        assert nothing.returncode == 1  # its payloads are kept by nobody
        assert gateway.cli("audit", "replay").returncode == 2
        assert "no decision" in gateway.cli("audit", "replay", "x" * 36).stderr
        gateway.cli("audit", "erase", "--subject", "unit 0", "--reason", "asked")
        erased = gateway.cli("audit", "replay", decisions[0])
        assert (erased.returncode, "nothing kept" in erased.stdout) == (1, True)
        assert KEY not in gateway.output()
    assert not (home / "keys" / "master.key").exists()
    assert KEY.encode() not in b"".join(p.read_bytes() for p in (home / "keys").iterdir())

    # Without the artefact there is no replay, rather than another one.
    stopped = servers.stopped(home, **settings)
    store = home / "bentoml" / "models"
    real = store.resolve()
    store.unlink()
    store.mkdir()
    for name in ("income",):
        (store / name).symlink_to(real / name)
    gone = stopped.cli("audit", "replay", decisions[1])
    assert (gone.returncode, "artefact missing" in gone.stdout) == (1, True), gone.stdout
    lost = servers.stopped(home, **SETTINGS).cli("audit", "replay", decisions[1])
    assert (lost.returncode, "master.key" in lost.stderr) == (2, True)
