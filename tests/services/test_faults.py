"""One place decides what a caller learns of an error."""

import logging

import pytest

from audit.errors import EntryTooLarge, EvidenceError, LogUnavailable
from experiments.errors import UnitError
from runners.errors import (
    DeadlinePassed,
    InputInvalid,
    ModelFailed,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
)
from services import faults
from services.faults import (
    BadRequest,
    Conflict,
    Forbidden,
    RateLimited,
    TooLarge,
    TryLater,
    Unauthenticated,
    Unsupported,
    fault_of,
    report,
)

SECRET = "canary"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(faults, "_held", {})


def test_of_a_kind_of_fault_one_a_second_is_in_the_process_log_and_the_others_counted(caplog):
    now = 100.0
    for _ in range(1000):
        assert report(LogUnavailable("no space"), clock=lambda: now).status == 503
    report(ModelNotReady("another kind"), clock=lambda: now)
    now += 1.5
    report(LogUnavailable("no space"), clock=lambda: now)
    assert [record.getMessage() for record in caplog.records] == [
        "refused with 503: no space",
        "refused with 503: another kind",
        "refused with 503: no space (999 more like it before)",
    ]


@pytest.mark.parametrize(
    ("error", "status", "code", "told"),
    [
        (BadRequest(SECRET), 400, 3, True),
        (TooLarge(SECRET), 413, 3, True),
        (Conflict(SECRET), 409, 6, True),
        (Unauthenticated(SECRET), 401, 16, True),
        (Forbidden(SECRET), 403, 7, True),
        (RateLimited(SECRET), 429, 8, True),
        (TryLater(SECRET), 503, 14, True),
        (Unsupported(SECRET), 501, 12, True),
        (InputInvalid(SECRET), 400, 3, True),
        (ModelNotFound(SECRET), 404, 5, True),
        (Overloaded(SECRET), 429, 8, True),
        (DeadlinePassed(SECRET), 504, 4, True),
        (UnitError(SECRET), 400, 3, True),
        (ModelNotReady(SECRET), 503, 14, False),
        (ModelFailed(SECRET), 500, 13, False),
        (LogUnavailable(SECRET), 503, 14, False),
        (EntryTooLarge(SECRET), 413, 3, False),
        (EvidenceError(SECRET), 500, 13, False),
        (RuntimeError(SECRET), 500, 13, False),
        (KeyError(SECRET), 500, 13, False),
    ],
)
def test_an_error_has_one_status_and_our_faults_keep_their_text(error, status, code, told) -> None:
    fault = fault_of(error)
    assert (fault.status, fault.grpc_code) == (status, code)
    assert (SECRET in fault.message) == told
    assert len(fault.message) > 5


@pytest.mark.parametrize("error", [Overloaded("x"), ModelNotReady("x"), LogUnavailable("x")])
def test_who_may_come_back_is_told_when(error) -> None:
    assert fault_of(error).retry_after_s == 1
    assert fault_of(BadRequest("x")).retry_after_s is None
    assert fault_of(RateLimited("x", 7)).retry_after_s == 7
    assert fault_of(TryLater("x")).retry_after_s == 1


def test_a_text_fits_into_a_grpc_trailer() -> None:
    message = fault_of(BadRequest("\U0001f600" * 100_000)).message
    assert len(message.encode()) * 3 < 8000


def test_only_faults_of_ours_are_logged(caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        for error in (BadRequest(SECRET), InputInvalid(SECRET), DeadlinePassed(SECRET)):
            report(error)
        assert not caplog.records
        report(ModelFailed(SECRET))
        report(RuntimeError(SECRET))
    assert len(caplog.records) == 2
