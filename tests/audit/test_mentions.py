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
    for number in range(20_000):
        mentions.add(ref(number))
    assert all(mentions.perhaps(ref(number)) for number in range(20_000))
    assert sum(mentions.perhaps(ref(number)) for number in range(20_000, 40_000)) <= 1


@pytest.mark.parametrize("text", ["", "alice", "zz" * 16])
def test_what_is_no_reference_is_not_mentioned(text):
    mentions = Mentions()
    mentions.add(text)
    assert not mentions.perhaps(text)


def test_the_subject_is_found_in_a_record():
    assert unit_ref_in(encode(decision(1))) == b"ab" * 16
    assert unit_ref_in(b'{"unit_ref":null}') is None
    assert unit_ref_in(b'{"unit_ref":"short"}') is None
    assert unit_ref_in(b"{}") is None
