"""What needs no large body gets none, and no report keeps the others waiting."""

import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from services.admin import Admin
from services.bodylimits import OTHER_BYTES, OUTCOMES_BYTES, check_values, limit_of
from services.faults import BadRequest
from services.http import HttpDoor

LARGEST = 64 << 20
REFUSED = "more values than 10000 outcomes"


def outcomes(text: str) -> list[dict[str, Any]]:
    """As many, and as long, as one call may bring."""
    one = {
        "event_id": text,
        "decision": "0" * 36,
        "unit": text,
        "metric": text,
        "value": -1.2345678901234567e-15,
        "observed_us": (1 << 53) - 1,
    }
    return [one] * 10_000


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("v2/models/m/infer", LARGEST),
        ("v2/models/m/versions/1/infer", LARGEST),
        ("v1/models/m:predict", LARGEST),
        ("v1/models/m/versions/1:explain", LARGEST),
        ("v1/outcomes", OUTCOMES_BYTES),
        ("v1/outcomes/x", OTHER_BYTES),
        ("v1/overrides", OTHER_BYTES),
        ("v1/audit/erasures", OTHER_BYTES),
        ("v1/audit/holds/release", OTHER_BYTES),
        ("v1/experiments/reload", OTHER_BYTES),
        ("v1/models/m", OTHER_BYTES),
        ("v2/repository/index", OTHER_BYTES),
        ("v2/repository/models/infer/load", OTHER_BYTES),
        ("v2", OTHER_BYTES),
    ],
)
def test_a_limit_for_each_path(path, limit) -> None:
    assert limit_of(path.split("/"), LARGEST) == limit
    assert limit_of(path.split("/"), 1024) == 1024, "the operator's holds for all"


@pytest.mark.parametrize("text", ["\U0001f600" * 256, '","' * 85, "\\\\" * 128, '\\"' * 128, "a"])
def test_ten_thousand_of_the_longest_outcomes_fit(text) -> None:
    written = json.dumps({"outcomes": outcomes(text)}, ensure_ascii=False).encode()
    assert len(written) <= OUTCOMES_BYTES
    assert check_values(written) is written


@pytest.mark.parametrize("value", [b"{}", b"[]", b"0", b'""', b'"\\""', b'"\\\\"', b'{"":0}'])
def test_more_values_are_refused_before_they_are_parsed(value) -> None:
    listed = b'{"outcomes":[' + b",".join([value] * 200_000)
    with pytest.raises(BadRequest, match=REFUSED):
        check_values(listed)  # it does not even end


async def test_a_report_is_counted_where_it_is_answered() -> None:
    reports = SimpleNamespace(report=None)
    admin = Admin(SimpleNamespace(), SimpleNamespace(), reports, ready=lambda: True)
    with pytest.raises(BadRequest, match=REFUSED):
        await admin.answer("POST", ["v1", "outcomes"], b'{"a":[' + b"0," * 100_000)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/overrides", OTHER_BYTES),
        ("/v1/outcomes", OUTCOMES_BYTES),
        ("/v2/models/m/infer", 40 << 20),
    ],
)
async def test_a_body_is_read_no_further_than_its_limit_and_the_answer_names_it(
    path, limit
) -> None:
    read, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1 << 14
        return {"type": "http.request", "body": bytes(1 << 14), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    door = HttpDoor(
        SimpleNamespace(), SimpleNamespace(), SimpleNamespace(), max_body_bytes=40 << 20
    )
    await door({"method": "POST", "path": path, "headers": []}, receive, send)
    assert sent[0]["status"] == 413
    assert orjson.loads(sent[1]["body"]) == {"error": f"the body is larger than {limit} bytes"}
    assert read == limit + (1 << 14)
