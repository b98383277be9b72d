"""Which payloads are kept: by model, by selection, up to a size."""

import pytest

from services.payloadpolicy import SAMPLED, parse_policy
from services.settings import Settings


@pytest.mark.parametrize(
    ("text", "model", "selected", "kept"),
    [
        ("", "income", True, True),
        ("sampled", "income", False, False),
        ("all", "income", False, True),
        ("none", "income", True, False),
        ("income=all,digits=none", "income", False, True),
        ("income=all,digits=none", "digits", True, False),
        ("income=all,digits=none", "other", True, True),
        ("income=all,digits=none", "other", False, False),
        (" none , income = sampled ", "income", True, True),
    ],
)
def test_the_model_decides_then_the_selection(text, model, selected, kept) -> None:
    assert parse_policy(text).keeps(model, 10, selected=selected) == kept


def test_what_is_too_large_is_not_kept_under_any_policy() -> None:
    policy = parse_policy("all", 100)
    assert policy.keeps("m", 100, selected=False)
    assert not policy.keeps("m", 101, selected=True)
    assert not SAMPLED.keeps("m", 1, selected=False)


@pytest.mark.parametrize("text", ["some", "income=", "=all", "income=maybe", "a=all,a=none"])
def test_another_word_stops_the_start(text) -> None:
    with pytest.raises(ValueError, match="one of none, sampled, all"):
        Settings(payloads=text)
