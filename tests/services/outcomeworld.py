"""Outcomes on record, for tests: events, reports, and what answers them over a book of its own."""

from audit.keys import Keyring
from audit.record import ModelPromoted, ModelRegistered, Outcome
from services.outcomes import Outcomes
from services.reported import Reported
from tests.audit.worlds import START_US, uuid

SECRET = b"a key of these tests"
NAME = "outcomes.sqlite"


def outcome(number, *, event_id=None, value="1"):
    return Outcome(
        id=uuid(number),
        time_us=START_US,
        unit_ref="ab" * 16,
        metric="clicked",
        value=value,
        event_id=event_id or f"event {number}",
        observed_us=START_US,
    )


def registered(number, digest):
    return ModelRegistered(
        id=uuid(number),
        time_us=START_US,
        model="income",
        version="1",
        digest=digest,
        device="cpu",
        manifest_evaluation={},
    )


def promoted(number, version):
    return ModelPromoted(
        id=uuid(number), time_us=START_US, model="income", version=version, digest="d", reason="r"
    )


def full(book):
    """Let the file of a book not grow any more."""
    db = book._file._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")


async def opened(notary, folder):
    keyring = Keyring.load_or_create(folder / "keys")
    reported = await Reported.open(folder / NAME, SECRET, notary.reader())
    return Outcomes(notary, keyring, reported)


def call(numbers, value=1):
    listed = [
        {"event_id": f"e{n}", "unit": "alice", "metric": "clicked", "value": value} for n in numbers
    ]
    return {"outcomes": listed}
