"""What readiness says of a log that takes no records, and a start of models that it lacks."""

from types import SimpleNamespace

import pytest

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


@pytest.mark.parametrize(
    ("wanted", "held", "said"),
    [
        ("", ["income"], []),
        ("income", ["digits", "income"], []),
        ("incme,digits", ["digits", "income"], ["names 'incme', which the registry in R lacks"]),
        ("", [], ["no model is served: the registry under R is empty"]),
    ],
)
def test_a_model_that_is_named_and_not_held_is_said(tmp_path, caplog, wanted, held, said) -> None:
    house = House(Settings(home=tmp_path, models=wanted))
    registry = SimpleNamespace(home="R", names=lambda: held)
    house.fleet = SimpleNamespace(index=list, names=lambda: held, registry=registry)
    house._report_models()
    assert len(caplog.messages) == len(said)
    assert all(map(str.__contains__, caplog.messages, said))
