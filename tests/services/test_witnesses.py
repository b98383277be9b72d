"""WEIGHBRIDGE_WITNESSES: what it may be, and what readiness says of them."""

import pytest

from audit.cosignature import Cosigner
from audit.cosigning import WitnessState
from services.settings import SettingsError, settings
from services.witnesses import parse_witnesses, summary

ONE, TWO = (Cosigner(f"example.org/w{n}", bytes([n]) * 32).key for n in (1, 2))


def test_urls_and_keys_are_read_in_order() -> None:
    found = parse_witnesses(f"https://a.example/w1/ {ONE},\n http://127.0.0.1:3002 {TWO}")
    assert [(w.url, w.key) for w in found] == [
        ("https://a.example/w1", ONE),
        ("http://127.0.0.1:3002", TWO),
    ]
    assert parse_witnesses("") == parse_witnesses(" , ") == []


@pytest.mark.parametrize(
    "text", ["https://a.example", f"{ONE}", f"a.example {ONE}", f"http://a {ONE},http://b {ONE}"]
)
def test_what_it_may_not_be_stops_the_start_with_its_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="witness"):
        parse_witnesses(text)
    monkeypatch.setenv("WEIGHBRIDGE_WITNESSES", text)
    settings.cache_clear()
    try:
        with pytest.raises(SettingsError, match="WEIGHBRIDGE_WITNESSES"):
            settings()
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_readiness_counts_who_cosigned_and_who_saw_another_tree() -> None:
    states = [
        WitnessState("a", 9),
        WitnessState("b", 9, "it could not be reached"),
        WitnessState("c", 0),
        WitnessState("d", 9, "rolled back", alarm=True),
    ]
    assert summary(states) == {"witnesses": {"configured": 4, "cosigned": 1, "alarms": 1}}
    assert summary([]) == {}
