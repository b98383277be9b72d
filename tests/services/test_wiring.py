"""What readiness says of a log that takes no records."""

from types import SimpleNamespace

from services.ledger import LocalLedger
from services.settings import Settings
from services.wiring import House


def test_readiness_says_that_the_log_takes_no_records_and_not_why(tmp_path) -> None:
    settings = Settings(home=tmp_path)
    house = House(settings)
    house.ledger = ledger = LocalLedger(settings)
    ledger.cosigning = SimpleNamespace(states=list)
    ledger.notary = SimpleNamespace(failure=None)
    assert house.log_state() == {}
    ledger.notary.failure = "the disk has not answered for 6 s"
    assert house.log_state() == {"log": "unavailable"}
    ledger.notary.failure = None
    assert house.log_state() == {}
