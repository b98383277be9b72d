"""`audit hold`, `release` and `erase` from a shell, with no gateway running: what they say."""

import pytest

from audit.keys import Keyring
from audit.notary import Notary
from audit.seals import Seals
from services.settings import Settings
from tests.audit.worlds import decision
from tests.services.test_accessed import audit


@pytest.fixture
async def home(tmp_path):
    """A home whose log holds one decision about alice, with one kept payload."""
    settings = Settings(home=tmp_path / "home")
    keyring = Keyring.load_or_create(settings.keys_dir)
    notary = await Notary.open(settings.log_dir, keyring, origin=settings.origin)
    Seals(notary.directory, keyring, create=True)
    event = decision(1, unit_ref=keyring.unit_ref("alice"))
    await notary.append(event, payloads={"input": b"in"}, subject=event.unit_ref)
    await notary.close()
    return settings


def said(settings, verb):
    done = audit(settings, verb, "--subject", "alice", "--reason", "case 12")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_is_said_as_one(home):
    said(home, "hold")
    assert "2 holds stand on it now" in said(home, "hold")
    assert "2 holds stand" not in said(home, "release")
    said(home, "hold")
    assert "; 1 more stands on" in said(home, "release")
    assert "is no longer held" in said(home, "release")
    assert ": 1 data key destroyed" in said(home, "erase")
