import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.sample import Rules, Sampler
from tests.audit.worlds import uuid

KEY = bytes(range(32))
IDS = [uuid(number) for number in range(20_000)]


def test_the_share_selected_is_the_probability():
    sampler = Sampler(KEY, Rules(base=0.1))
    chosen = sum(sampler.select(i, score=None, threshold=None, rows=1).selected for i in IDS)
    assert abs(chosen - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5  # five standard deviations


@pytest.mark.parametrize(
    ("score", "threshold", "rows", "rule", "probability"),
    [
        (0.52, 0.5, 1, "near_threshold", "0.25"),
        (0.9, 0.5, 1, "base", "0.01"),
        (0.3, None, 1, "low_confidence", "0.25"),
        (0.9, None, 1, "base", "0.01"),
        (0.52, 0.5, 7, "base", "0.01"),
        (None, None, 1, "base", "0.01"),
    ],
)
def test_the_rule_with_the_highest_probability_counts(score, threshold, rows, rule, probability):
    selection = Sampler(KEY).select(uuid(1), score=score, threshold=threshold, rows=rows)
    assert (selection.rule, selection.probability) == (rule, probability)


@given(st.text(max_size=20), st.floats(0, 1))
def test_a_choice_depends_on_key_and_id_alone_and_grows_with_the_probability(name, base):
    def chosen(probability):
        rules = Rules(base=probability)
        return Sampler(KEY, rules).select(name, score=None, threshold=None, rows=1).selected

    assert chosen(base) == chosen(base)
    assert chosen(base) <= chosen(1.0)
    assert not chosen(0.0)
    assert chosen(1.0)


def test_the_commitment_does_not_show_the_key_and_names_it():
    assert Sampler(KEY).commitment == Sampler(KEY).commitment
    assert Sampler(KEY).commitment != Sampler(bytes(32)).commitment
    assert KEY.hex() not in Sampler(KEY).commitment
