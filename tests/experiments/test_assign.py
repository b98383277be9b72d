import json
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments import UnitError, assign, load, slot_of
from experiments.plan import loads

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "slots.json").read_text(encoding="utf-8")
)["vectors"]
DIGITS = Path(__file__).parents[2] / "experiments" / "definitions" / "digits.yaml"
UNITS = st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(("salt", "unit", "slot"), VECTORS)
def test_slots_are_those_of_an_independent_program(salt, unit, slot):
    assert slot_of(salt.encode(), unit) == slot


@given(salt=st.binary(max_size=20), unit=UNITS)
def test_a_slot_is_the_hash_scaled_in_exact_fractions(salt, unit):
    first = sha256(salt + b"\x1f" + unit.encode()).hexdigest()[:16]
    assert slot_of(salt, unit) == int(Fraction(int(first, 16), 2**64) * 10_000)


@pytest.mark.parametrize("unit", ["", "\ud800"])
def test_a_unit_that_is_no_text_is_refused(unit):
    with pytest.raises(UnitError, match="could not assign unit"):
        slot_of(b"s", unit)


def test_slots_are_uniform_and_two_layers_are_independent():
    units = [f"unit-{i}" for i in range(20_000)]
    ours = [slot_of(b"layer-a", u) // 1000 for u in units]
    theirs = [slot_of(b"layer-b", u) // 1000 for u in units]
    assert stats.chisquare(list(Counter(ours).values())).pvalue > 1e-6
    table = [[0] * 10 for _ in range(10)]
    for a, b in zip(ours, theirs, strict=True):
        table[a][b] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-6


def test_the_arm_is_the_owner_of_the_slot_at_every_bucket_edge():
    text = DIGITS.read_text(encoding="utf-8")
    text += "ranges:\n  control: [[0, 0], [5001, 9999]]\n  treatment: [[1, 5000]]\n"
    definition = loads(text)
    seen = set()
    for i in range(60_000):
        found = assign(definition, f"u{i}")
        owner = "treatment" if 1 <= found.slot <= 5000 else "control"
        assert found.arm == owner
        assert found.model_version == {"control": "1", "treatment": "2"}[owner]
        seen.add(found.slot)
    assert {0, 1, 5000, 5001} <= seen


def test_an_assignment_names_all_that_an_auditor_needs():
    definition = load(DIGITS)
    found = assign(definition, "user-1")
    assert found == ("digits-ab", definition.version, 1, 476, "control", "1", "0.5")


@given(units=st.lists(UNITS, unique=True, max_size=20), data=st.data())
def test_assignment_is_stable_and_independent_of_order(units, data):
    definition = load(DIGITS)
    shuffled = data.draw(st.permutations(units))
    before = {u: assign(definition, u) for u in units}
    assert {u: assign(definition, u) for u in shuffled} == before


def test_another_process_assigns_alike():
    units = [f"user-{i}" for i in range(50)]
    program = (
        "import sys, json; from pathlib import Path; from experiments import assign, load;"
        "d = load(Path(sys.argv[1]));"
        "print(json.dumps([assign(d, u) for u in json.loads(sys.argv[2])]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(DIGITS), json.dumps(units)],
        check=True,
        capture_output=True,
        cwd=DIGITS.parents[2],
    )
    definition = load(DIGITS)
    assert json.loads(out.stdout) == [list(assign(definition, u)) for u in units]
