"""What was sealed is what a gateway seals, or it is refused in words that repeat nothing of it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import PayloadDamaged
from audit.fairness import Window
from audit.sealedpart import sealed_part

TEXTS = st.text(max_size=5)
PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner))
GROUP = st.tuples(st.dictionaries(TEXTS, PLAIN, max_size=3), TEXTS, st.integers(0, 9)).map(list)
GROUPS = st.lists(GROUP | st.lists(ANY, max_size=4), max_size=3)


@given(st.fixed_dictionaries({}, optional={"groups": GROUPS | ANY, "nonce": ANY}) | ANY)
def test_whatever_it_is_it_can_be_counted_or_is_refused(said) -> None:
    try:
        found = sealed_part(orjson.dumps(said), "d1")
    except PayloadDamaged:
        return
    window = Window("m", "yes")
    window.add(arm=None, version="1", groups=found["groups"], leaf=0, time_us=0)
    assert isinstance(found.get("nonce", ""), str)
    assert window.records() is not None


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{", b"1", b'{"groups":{}}', b'{"nonce":1}'])
def test_what_is_no_sealed_part_is_refused(raw) -> None:
    with pytest.raises(PayloadDamaged, match=r"part of d1: no gateway makes such$"):
        sealed_part(raw, "d1")


@given(st.lists(GROUP, max_size=3))
def test_what_a_gateway_seals_is_read(groups) -> None:
    assert sealed_part(orjson.dumps({"groups": groups, "nonce": "ab"}), "d1") == {
        "groups": groups,
        "nonce": "ab",
    }
