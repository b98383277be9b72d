"""A decision told by its form: exactly those that parsing would accept, with the same values."""

import random

import orjson
import pytest
from hypothesis import given

from audit.bundle import Bundle
from audit.canonical import is_canonical
from audit.grammar import DecisionForms, decision_id
from audit.record import Decision, encode, field_names
from tests.audit.anyevents import entries
from tests.audit.worlds import decision

PLAIN = encode(decision(7))


def said(*entries, forms=None):
    return (forms or DecisionForms()).match([Bundle.of(entries)])


def parsed(entry):
    """What a form must say of an entry; None if parsing would not accept it as a decision."""
    try:
        body = orjson.loads(entry)
    except orjson.JSONDecodeError:
        return None
    good = isinstance(body, dict) and is_canonical(entry) and body.get("type") == "decision"
    if not good or body.keys() != field_names(Decision) or body["schema"] != 2:
        return None
    values = [body[name] for name in ("id", "instance", "seq", "time_us")]
    if [type(value) for value in values] != [str, str, int, int] or body["seq"] < 1:
        return None
    return tuple(str(value).encode() for value in values)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label": None, "label_counts": {}, "score": None, "threshold": None, "sealed": None},
        {"slot": None, "experiment": None, "arm_served": None, "propensity": None},
        {"seq": 1, "epoch": 0, "latency_us": {"queue": 0, "infer": 0, "total": 10**14}},
    ],
)
def test_decisions_as_gateways_write_them_are_told_by_their_form(changes):
    entry = encode(decision(**{"seq": 7} | changes))
    assert said(entry) == [parsed(entry)]
    assert parsed(entry) is not None
    assert decision_id(entry) == decision(1 if changes.get("seq") == 1 else 7).id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":"01994f00-0000-7000-8000-00000a000007"', b'"id":""'),
        (b'"seq":7', b'"seq":07'),
        (b'"seq":7', b'"seq":0'),
        (b'"seq":7', b'"seq":-7'),
        (b'"seq":7', b'"seq":7.0'),
        (b'"seq":7', b'"seq":"7"'),
        (b'"seq":7', b'"seq": 7'),
        (b'"epoch":1', b'"epoch":1.5'),
        (b'"epoch":1', b'"epoch":9007199254740993'),
        (b'"device":"cpu"', b'"device":"c\\u0070u"'),
        (b'"device":"cpu"', b'"device":"c\tpu"'),
        (b'"device":"cpu"', b'"device":"c\xffpu"'),
        (b'"device":"cpu"', b'"device":7'),
        (b'"device":"cpu"', b'"device":null'),
        (b'"rows":1', b'"rows":null'),
        (b'"schema":2', b'"schema":3'),
        (b'"schema":2', b'"schema":1'),
        (b'"selected":false', b'"selected":0'),
        (b'"instance":"0000000a"', b'"instance":7'),
        (b'"label_counts":{">50K":1}', b'"label_counts":{"b":1,"a":1}'),
        (b'"route":"income",', b""),
        (b'"route":"income",', b'"route":"income","route":"income",'),
        (b'"rows":1,"runtime":"onnxruntime"', b'"runtime":"onnxruntime","rows":1'),
        (b'"version":"1"}', b'"version":"1"}\n'),
        (b'"version":"1"}', b'"version":"1","x":1}'),
        (b'{"arm_assigned"', b' {"arm_assigned"'),
    ],
)
def test_what_is_no_canonical_decision_is_left_to_parsing(old, new):
    entry = PLAIN.replace(old, new)
    assert entry != PLAIN
    assert said(entry) == [None]
    assert decision_id(entry) is None
    assert said(PLAIN, entry, PLAIN) == [parsed(PLAIN), None, parsed(PLAIN)]


def test_random_changes_are_judged_as_parsing_judges_them():
    source, forms = random.Random(5), DecisionForms()
    said(PLAIN, forms=forms)
    for _ in range(20_000):
        entry = bytearray(PLAIN)
        for _ in range(source.randrange(1, 4)):
            entry[source.randrange(len(entry))] = source.choice(b'0123789af"\\{}[]:, \n.-\x80z')
        (found,) = said(bytes(entry), forms=forms)
        assert found is None or found == parsed(bytes(entry))
        event_id = decision_id(bytes(entry))
        assert event_id is None or event_id.encode() == parsed(bytes(entry))[0]


@given(entries(min_size=1))
def test_a_form_never_says_more_than_parsing(made):
    for entry in made:
        (found,) = said(entry)
        assert found is None or found == parsed(entry)


def test_many_heads_are_told_apart():
    made = [encode(decision(n, arm_served=f"arm {n % 12}")) for n in range(1, 200)]
    forms = DecisionForms()
    assert said(*made, forms=forms) == [parsed(entry) for entry in made]
    assert said(*made[:1], forms=forms) == [parsed(made[0])]


def test_kinds_that_differ_behind_the_id_are_told_apart_however_many():
    routes = ["income", "in.ome", "a*b", "(c", "d|e", "f g", "h+", "#i", "j-k", "[l]", "^m$"]
    made = [
        encode(
            decision(
                n,
                route=routes[n % len(routes)],
                version=str(n % 7),
                label=None if n % 3 else ">50K",
                slot=None if n % 5 else n,
                sealed=None if n % 4 else "c2VhbGVk",
            )
        )
        for n in range(1, 400)
    ]
    forms = DecisionForms()
    expected = [parsed(entry) for entry in made]
    assert None not in expected
    assert said(*made, forms=forms) == expected
    assert said(*made, forms=forms) == expected, "with what was learned"
    assert [said(entry, forms=forms)[0] for entry in made] == expected


def test_a_value_like_a_learned_one_is_not_taken_for_it():
    forms = DecisionForms()
    assert said(encode(decision(1, route="a.c")), forms=forms) != [None]
    for other in ("abc", "a.cd", "A.C"):
        entry = encode(decision(2, route=other))
        assert said(entry, forms=forms) == [parsed(entry)]
        assert said(entry.replace(b'"route":"', b'"route": "'), forms=forms) == [None]


def test_a_kind_that_comes_late_is_learned_too():
    forms = DecisionForms()
    early = [encode(decision(n, version=str(n))) for n in range(1, 40)]
    assert said(*early, forms=forms) == [parsed(entry) for entry in early]
    late = [encode(decision(n, version="late")) for n in range(1, 5_000)]
    assert said(*late, forms=forms) == [parsed(entry) for entry in late]
    assert forms._kinds[0].fullmatch(late[0])
    assert said(*early, *late, forms=forms) == [parsed(entry) for entry in [*early, *late]]
