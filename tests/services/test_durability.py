"""`WEIGHBRIDGE_DURABILITY` and `WEIGHBRIDGE_HIGH_RISK`: what is understood, and what is refused."""

import pytest

from services.durability import STRICT, DurabilityPolicy, parse_durability
from services.settings import Settings, SettingsError, settings


def test_a_default_and_models_that_differ():
    policy = parse_durability(" bounded , income = strict,demo=async ", "income")
    assert policy == DurabilityPolicy("bounded", {"income": "strict", "demo": "async"})
    assert [policy.of(name) for name in ("income", "demo", "other")] == [
        "strict",
        "async",
        "bounded",
    ]
    assert parse_durability("") == STRICT


@pytest.mark.parametrize(
    "text", ["lax", "income=lax", "=strict", "a=strict,a=async", "strict;async"]
)
def test_anything_else_is_refused_and_says_what_is_meant(text):
    with pytest.raises(ValueError, match="one of strict, bounded, async"):
        parse_durability(text)


@pytest.mark.parametrize("text", ["async", "strict,income=async"])
def test_a_high_risk_model_is_never_async(text, monkeypatch):
    with pytest.raises(ValueError, match="income=strict or income=bounded"):
        parse_durability(text, "income")
    monkeypatch.setenv("WEIGHBRIDGE_DURABILITY", text)
    monkeypatch.setenv("WEIGHBRIDGE_HIGH_RISK", "income")
    settings.cache_clear()
    with pytest.raises(SettingsError, match=r"WEIGHBRIDGE_HIGH_RISK: .*'income' is marked"):
        settings()
    settings.cache_clear()
    monkeypatch.setenv("WEIGHBRIDGE_HIGH_RISK", "digits")
    if text != "async":
        assert Settings().durabilities().of("income") == "async"
