"""Alerts about the log itself: a disk that refused, a checkpoint not signed, a witness's alarm."""

import pytest

from audit.cosigning import WitnessState
from audit.errors import LogUnavailable
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Alert
from audit.testing import FaultyFiles
from services.logwatch import LogWatch
from tests.audit.worlds import ORIGIN, decision, make_keyring


async def test_each_is_on_record_once_when_it_can_be(tmp_path):
    files, states = FaultyFiles(), [WitnessState("example.org/w", 3)]
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    watch = LogWatch(notary, lambda: states)
    await watch.look()
    with files.failing("not-stored"):
        with pytest.raises(LogUnavailable):
            await notary.append(decision(1))
        await watch.look()
        assert notary.size == 0
    await notary.append(decision(1))
    await watch.look()
    states[0] = WitnessState("example.org/w", 3, "it saw another tree", alarm=True)
    notary.checkpoints.failure = "no space left on device"
    for _ in range(3):
        await watch.look()
    notary.checkpoints.failure = None
    await watch.look()
    notary.checkpoints.failure = "no space left on device"
    await watch.look()
    await notary.close()
    found = [e.event for e in LogReader(tmp_path / "log").entries() if isinstance(e.event, Alert)]
    assert [alert.name for alert in found] == [
        "audit_log_unavailable",
        "checkpoint_not_signed",
        "witness_alarm",
        "checkpoint_not_signed",
    ]
    assert "injected" in found[0].message
    assert found[2].details == {"witness": "example.org/w"}
    await watch.close()
