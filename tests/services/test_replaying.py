"""Replays where files are missing: each decision has its fate, and the others go on."""

from types import SimpleNamespace

import pytest

from audit.errors import LogDamaged, PayloadDamaged
from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.sealfiles import roots_path
from audit.seals import Seals
from runners.errors import ArtefactCorrupt, ModelFailed
from services.replaying import Replayed, Replayer
from tests.audit.worlds import decision

BODIES = {"input": b"in", "output": b"out"}


@pytest.fixture
async def kept(tmp_path):
    """A reader of a log with two kept decisions, its keyring, and both decisions."""
    keyring = Keyring.load_or_create(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", keyring, origin="example.org/log")
    Seals(notary.directory, keyring, create=True)
    events = [decision(seq, unit_ref=f"{seq:02x}" * 16) for seq in (1, 2)]
    for event in events:
        await notary.append(event, payloads=BODIES, subject=event.unit_ref)
    await notary.close()
    return LogReader(tmp_path / "log"), keyring, events


def test_without_the_seal_files_every_decision_is_told_with_the_reason(kept):
    reader, keyring, events = kept
    roots_path(reader.directory).unlink()
    replayer = Replayer(reader, keyring, SimpleNamespace())
    found = [replayer.replay(event) for event in events]
    assert [(one.decision, one.outcome) for one in found] == [
        (event.id, "not replayable") for event in events
    ]
    assert all("seal.roots" in one.detail and "restore" in one.detail for one in found)
    assert all(one.wrong and not one.replayed for one in found)


def test_damaged_seal_files_are_told_too(kept):
    reader, keyring, events = kept
    roots_path(reader.directory).write_bytes(b"short")
    told = Replayer(reader, keyring, SimpleNamespace()).replay(events[0])
    assert told.outcome == "not replayable"
    assert "seal.roots" in told.detail


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PayloadDamaged("secret"), "payload changed"),
        (LogDamaged("f", offset=1, expected="a", found="b"), "not replayable"),
    ],
)
def test_a_payload_that_is_damaged_is_the_fate_of_one_decision(kept, error, outcome):
    reader, keyring, events = kept

    def payload(*_):
        raise error

    broken = SimpleNamespace(directory=reader.directory, payload=payload)
    told = Replayer(broken, keyring, SimpleNamespace()).replay(events[0])
    assert told.outcome == outcome
    assert "secret" not in told.detail


def test_an_artefact_that_does_not_open_is_the_fate_of_its_decisions(kept, monkeypatch):
    reader, keyring, events = kept

    def versions(_):
        raise ModelFailed("secret")

    fleet = SimpleNamespace(registry=SimpleNamespace(versions=versions))
    replayer = Replayer(reader, keyring, fleet)
    monkeypatch.setattr(replayer, "_committed", lambda *_: True)
    told = replayer.replay(events[0])
    assert (told.outcome, told.detail) == ("failed", "the artefact does not open: ModelFailed")


@pytest.mark.parametrize("damaged", ["manifest", "files"])
def test_a_damaged_version_is_not_the_fate_of_what_another_one_holds(kept, monkeypatch, damaged):
    reader, keyring, events = kept

    def manifest(_, version):
        if (version, damaged) == ("1", "manifest"):
            raise ArtefactCorrupt("secret")
        return SimpleNamespace(digest=events[0].digest, backend="remote")

    def opened(name, version):
        if version == "1":
            raise ArtefactCorrupt("secret")
        return SimpleNamespace(manifest=manifest(name, version))

    registry = SimpleNamespace(versions=lambda _: ("1", "2"), manifest=manifest, open=opened)
    model = SimpleNamespace(warm_up=lambda: None)
    fleet = SimpleNamespace(registry=registry, open_model=lambda _: model)
    replayer = Replayer(reader, keyring, fleet)
    monkeypatch.setattr(replayer, "_committed", lambda *_: True)
    assert replayer.replay(events[0]).outcome == "not reproducible"  # so it was found
    registry.versions = lambda _: ("1",)
    told = Replayer(reader, keyring, fleet)
    monkeypatch.setattr(told, "_committed", lambda *_: True)
    assert told.replay(events[0]).outcome == "failed"


@pytest.mark.parametrize(
    ("outcome", "wrong"),
    [
        ("equal", False),
        ("within tolerance", False),
        ("differs", True),
        ("payload changed", True),
        ("not replayable", True),
        ("artefact missing", True),
        ("failed", True),
        ("nothing kept", False),
        ("not reproducible", False),
    ],
)
def test_what_was_not_made_again_is_wrong_unless_it_was_erased_or_remote(outcome, wrong):
    told = Replayed("id", "income", "1", "sha256:00", outcome, "", None, "cpu", "")
    assert told.wrong == wrong
