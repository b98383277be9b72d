"""The log that a process keeps opens whatever strangers once wrote into it, and answers."""

from audit.canonical import dumps
from audit.notary import Notary
from audit.record import ModelPromoted, encode
from services.ledger import LocalLedger
from services.masterkey import load_or_create_keyring
from services.settings import Settings
from tests.audit.worlds import START_US, decision, uuid


def promoted(number, model, version="1"):
    return ModelPromoted(
        id=uuid(number), time_us=START_US, model=model, version=version, digest="d", reason="r"
    )


def odd(kind, number, **values):
    body = {"id": uuid(number), "time_us": START_US, "schema": 1, "type": kind} | values
    return uuid(number), dumps(body)


REGISTERED = {"version": "1", "digest": "d", "device": None, "runtime": None}
OUTCOME = {"decision": None, "unit_ref": None, "metric": "m", "value": "1", "observed_us": 1}


async def test_a_log_with_mistyped_records_opens_with_a_warning(tmp_path, caplog):
    settings = Settings(home=tmp_path / "home")
    ring = load_or_create_keyring(settings)
    notary = await Notary.open(settings.log_dir, ring, origin=settings.origin)
    await notary.append(decision(1))
    listed = [
        odd("model_registered", 2, model=["secret"], manifest_evaluation={}, **REGISTERED),
        odd("outcome", 3, event_id=[], **OUTCOME),
        odd("outcome", 7, event_id="e", **OUTCOME | {"observed_us": -1}),
        odd("gap", 8, instance="a", reason="r", first_seq=1, last_seq=1 << 52),
        (uuid(4), encode(promoted(4, 5))),
        (uuid(5), encode(promoted(5, "income", version="2"))),
        (uuid(6), encode(promoted(6, "\U0001f600"))),
    ]
    for event_id, data in listed:
        notary.submit(event_id, data, lambda *_: None)
    await notary.close()

    ledger = LocalLedger(settings)
    await ledger.open()
    try:
        assert await ledger.leading_now() == {"income": "2", "\U0001f600": "1"}
        assert await ledger._lead({}) == {"leading": {"income": "2"}}
        assert ledger.known == {}
    finally:
        await ledger.close()
    assert "passed over 5 malformed records, the first is leaf 1" in caplog.text
    assert "secret" not in caplog.text
