"""Which subjects a log mentions: never forgotten, rarely imagined."""

import hashlib

import pytest

from audit.mentions import Mentions, unit_ref_in
from audit.record import encode
from tests.audit.worlds import decision


def ref(number):
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def test_what_was_added_is_never_denied_and_little_else_is_said():
    mentions = Mentions()
    for start in range(0, 20_000, 500):
        mentions.add([ref(number).encode() for number in range(start, start + 500)])
    assert all(mentions.perhaps(ref(number)) for number in range(20_000))
    assert sum(mentions.perhaps(ref(number)) for number in range(20_000, 40_000)) <= 1


@pytest.mark.parametrize("text", ["", "alice", "zz" * 16, "AB" * 16, "ab" * 15 + "  ", "ab" * 17])
def test_what_is_no_reference_is_passed_over_and_spoils_nothing(text):
    mentions = Mentions()
    mentions.add([ref(1).encode(), text.encode(), ref(2).encode()])
    assert not mentions.perhaps(text)
    assert mentions.perhaps(ref(1))
    assert mentions.perhaps(ref(2))
    assert not mentions.perhaps(ref(3))


def test_two_that_are_too_short_and_too_long_are_not_taken_for_two_others():
    mentions = Mentions()
    mentions.add([ref(1).encode()[:31], b"a" + ref(2).encode()])
    assert not mentions.perhaps(ref(1)[:31] + "a")
    assert not mentions.perhaps(ref(2))


def test_the_subject_is_found_in_a_record():
    assert unit_ref_in(encode(decision(1))) == b"ab" * 16
    assert unit_ref_in(b'{"unit_ref":null}') is None
    assert unit_ref_in(b'{"unit_ref":"short"}') is None
    assert unit_ref_in(b"{}") is None
