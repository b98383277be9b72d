"""What waits for the notary is answered once, whatever answers it, and never too much waits."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import link_calls
from audit.errors import LogOverloaded, LogUnavailable
from audit.link_calls import Answer, Calls
from audit.wire import APPEND, DONE, REFUSED, format_frame, format_refusal

NUMBERS = st.integers(1, 12)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["answer", "refuse"]), NUMBERS),
    st.tuples(st.just("overdue"), st.integers(0, 9)),
    st.tuples(st.just("all"), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
def test_each_call_is_answered_once_and_what_is_not_waits(steps):
    calls, told, until = Calls(), defaultdict(list), {}
    for step, given_ in steps:
        if step == "add":
            number = len(until) + 1
            frame = calls.add(
                APPEND, b"%d" % number, lambda *how, n=number: told[n].append(how), given_
            )
            assert frame == format_frame(number, APPEND, b"%d" % number)
            until[number] = given_
        elif step == "answer":
            calls.answer(given_, DONE, b"{}")
        elif step == "refuse":
            calls.answer(given_, REFUSED, format_refusal(LogOverloaded("later")))
        elif step == "overdue":
            calls.refuse_overdue(given_, "too late")
            assert all(told[n] for n in until if until[n] < given_)
        else:
            calls.refuse_all("away")
            assert not calls
    waiting = [n for n in until if not told[n]]
    assert [format_frame(n, APPEND, b"%d" % n) for n in waiting] == list(calls.frames())
    assert len(calls) == len(waiting)
    for answers in told.values():
        assert len(answers) <= 1
        for answer, error in answers:
            assert (answer is None) == isinstance(error, LogOverloaded | LogUnavailable)
            assert answer in (None, Answer(DONE, b"{}"))


def test_too_many_and_too_much_are_refused_until_some_are_answered(monkeypatch):
    monkeypatch.setattr(link_calls, "_MAX_WAITING", 3)
    monkeypatch.setattr(link_calls, "_MAX_WAITING_BYTES", 100)
    calls = Calls()
    calls.add(APPEND, bytes(1000), lambda *_: None, 1)  # alone, of any size
    with pytest.raises(LogOverloaded, match="1 are waiting"):
        calls.add(APPEND, b"", lambda *_: None, 1)
    calls.answer(1, DONE, b"")
    for _ in range(3):
        calls.add(APPEND, b"", lambda *_: None, 1)
    with pytest.raises(LogOverloaded, match="3 are waiting"):
        calls.add(APPEND, b"", lambda *_: None, 1)
    calls.refuse_overdue(2, "too late")
    assert len(calls) == 0
    calls.add(APPEND, b"", lambda *_: None, 1)
