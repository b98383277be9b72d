import json
from hashlib import sha256
from pathlib import Path

import pytest

from experiments import DefinitionError, InputError, Range, load, load_folder
from experiments.definition import canonical_bytes, format_percent, format_share
from experiments.plan import Snapshot, format_yaml, loads, reweight

FOLDER = Path(__file__).parents[2] / "experiments" / "definitions"
GOOD = (FOLDER / "digits.yaml").read_text(encoding="utf-8")
THREE = GOOD.replace("weight: 50", "weight: 33") + (
    '  - name: third\n    version: "3"\n    weight: 34\n'
)


def faults_of(text):
    with pytest.raises(DefinitionError) as caught:
        loads(text, "x.yaml")
    return caught.value.faults


def test_every_reference_model_has_a_half_and_half_experiment():
    snapshot = load_folder(FOLDER)
    assert sorted(snapshot) == ["digits", "income", "recommend", "sentiment"]
    for model, definition in snapshot.items():
        assert (definition.kind, definition.model, definition.epoch) == ("ab", model, 1)
        assert definition.arms == (("control", "1", 5000), ("treatment", "2", 5000))
        assert definition.ranges == (
            Range(0, 4999, "control"),
            Range(5000, 9999, "treatment"),
        )


def test_the_version_is_the_hash_of_the_canonical_json():
    definition = loads(GOOD)
    text = json.dumps(
        definition.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert definition.version == sha256(text.encode()).hexdigest()
    assert json.loads(canonical_bytes(definition.canonical())) == definition.canonical()


def test_comments_order_and_path_do_not_change_the_version_but_the_salt_does():
    head, _, tail = GOOD.partition("epoch: 1\n")
    moved = "epoch: 1\n# a remark\n" + head + tail
    assert loads(moved, "elsewhere.yaml").version == loads(GOOD).version
    assert loads(GOOD.replace("digits-2026", "other")).version != loads(GOOD).version


def test_a_written_definition_reads_back_equal():
    for text in (GOOD, THREE):
        definition = loads(text)
        assert loads(format_yaml(definition)) == definition


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "problem", "hint"),
    [
        ("kind: ab", "kindd: ab", 5, "kindd", "unknown field 'kindd'", "did you mean 'kind'?"),
        ("kind: ab", "kind: canary", 5, "kind", "not supported yet", "runs: ab"),
        ("kind: ab", "kind: canery", 5, "kind", "unknown kind", "did you mean 'canary'?"),
        ('version: "1"', "version: 1", 15, "arms[0].version", "must be text", 'quotes: "1"'),
        ('    version: "2"\n', "", 17, "arms[1].version", "is missing", 'version: "1"'),
        ("weight: 50", "weight: 40", 13, "arms", "sum to 80", "sum to 100"),
        ("weight: 50", "weight: yes", 16, "arms[0].weight", "must be a number", ""),
        ("weight: 50", "weight: 50.001", 16, "arms[0].weight", "two decimals", ""),
        ("name: treatment", "name: control", 17, "arms[1].name", "duplicate arm", "arms[0].name"),
        ("epoch: 1", "epoch: 1\nepoch: 2", 11, "epoch", "given twice", ""),
        ("epoch: 1", "epoch: 0", 10, "epoch", "greater than or equal to 1", ""),
        ("salt: digits-2026", 'salt: "a\\x1fb"', 9, "salt", "control characters", ""),
        ("model: digits", "model: Digits!", 6, "model", "not a valid name", "lower-case"),
        ("model: digits", "model: [digits]", 6, "model", "must be text", ""),
        ("unit: user", "unit: &a [*a]", 7, "unit[0]", "aliases", ""),
        ("unit: user", "unit: !!python/none x", 7, "unit", "tag", ""),
        ("epoch: 1", "epoch: 0x10", 10, "epoch", "plain decimal", ""),
        ("epoch: 1", "epoch: .inf", 10, "epoch", "plain decimal", ""),
        ("schema: 1", "schema: 2", 3, "schema", "should be 1", ""),
    ],
)
def test_a_fault_names_file_line_field_and_remedy(old, new, line, field, problem, hint):
    faults = faults_of(GOOD.replace(old, new))
    fault = next(f for f in faults if f.field == field and problem in f.problem)
    assert (fault.file, fault.line) == ("x.yaml", line)
    assert hint in fault.hint


def test_bad_syntax_names_its_line():
    (fault,) = faults_of("name: a\nkind: [ab,\n")
    assert (fault.line, fault.field) == (3, "")
    assert "not YAML" in fault.problem


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "just words\n", "a: 1\n---\nb: 2\n", "\t\x00", "[" * 5000]
)
def test_a_file_that_is_no_map_is_refused(text):
    assert faults_of(text)


def test_all_faults_of_a_file_are_listed():
    bad = GOOD.replace("kind: ab", "kind: shadow").replace("metric", "metrik")
    bad = bad.replace('version: "1"', "version: 1")
    fields = [f.field for f in faults_of(bad)]
    assert fields == ["metric", "kind", "metrik", "arms[0].version"]


@pytest.mark.parametrize(
    ("ranges", "field", "problem"),
    [
        ("control: [[0, 4999]]", "ranges", "gap at bucket 5000"),
        ("control: [[0, 5999]]\n  treatment: [[6000, 9999]]", "ranges.control", "6000 buckets"),
        ("control: [[0, 4999]]\n  treatmnt: [[5000, 9999]]", "ranges.treatmnt", "no arm"),
        ("control: [[0, 4999, 1]]", "ranges.control[0]", "at most 2"),
        ("control: [[0, 10000]]", "ranges.control[0][1]", "less than or equal to 9999"),
    ],
)
def test_given_ranges_must_tile_and_match_the_weights(ranges, field, problem):
    faults = faults_of(GOOD + f"ranges:\n  {ranges}\n")
    assert any(f.field == field and problem in f.problem for f in faults)


def test_a_broken_folder_lists_every_fault_of_every_file(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD, encoding="utf-8")
    assert list(load_folder(tmp_path)) == ["digits"]
    (tmp_path / "b.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "c.yml").write_text("kind: [", encoding="utf-8")
    (tmp_path / "d.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.txt").write_text("not a definition", encoding="utf-8")
    with pytest.raises(DefinitionError) as caught:
        load_folder(tmp_path)
    found = [(Path(f.file).name, f.line, f.field) for f in caught.value.faults]
    assert found == [("b.yaml", 4, "name"), ("b.yaml", 6, "model"), ("c.yml", 1, ""),
                     ("d.yaml", 0, "")]  # fmt: skip
    assert "4 faults" in str(caught.value)


def test_one_layer_has_one_salt(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD, encoding="utf-8")
    other = GOOD.replace("name: digits-ab", "name: other").replace("model: digits", "model: x")
    (tmp_path / "b.yaml").write_text(other.replace("digits-2026", "salt-2"), encoding="utf-8")
    with pytest.raises(DefinitionError, match="another salt") as caught:
        load_folder(tmp_path)
    assert (caught.value.line, caught.value.field) == (9, "salt")


def test_a_missing_folder_and_a_missing_file_say_so(tmp_path):
    with pytest.raises(DefinitionError, match="is not a folder"):
        load_folder(tmp_path / "none")
    with pytest.raises(DefinitionError, match=r"could not be read: No such file"):
        load(tmp_path / "none.yaml")
    assert load_folder(tmp_path) == Snapshot()


def test_a_change_of_weights_needs_a_later_epoch(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(GOOD, encoding="utf-8")
    old = load_folder(tmp_path)
    changed = GOOD.replace("weight: 50", "weight: 20", 1).replace("weight: 50", "weight: 80")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(DefinitionError) as caught:
        load_folder(tmp_path, old)
    assert (caught.value.line, caught.value.field) == (10, "epoch")
    assert caught.value.hint == "write epoch: 2"
    path.write_text(changed.replace("epoch: 1", "epoch: 2"), encoding="utf-8")
    assert load_folder(tmp_path, old)["digits"].ranges[0].last == 1999


def test_three_arms_that_would_move_too_many_units_get_the_ranges_to_write(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(THREE, encoding="utf-8")
    old = load_folder(tmp_path)
    changed = THREE.replace("epoch: 1", "epoch: 2")
    changed = changed.replace("weight: 33", "weight: 10", 1).replace("weight: 34", "weight: 57")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(
        DefinitionError, match="moves 4600 of 10000 buckets where 2300 would do"
    ) as e:
        load_folder(tmp_path, old)
    path.write_text(changed + e.value.hint.removeprefix("write ") + "\n", encoding="utf-8")
    assert load_folder(tmp_path, old)["digits"].epoch == 2


def test_reweight_is_the_next_epoch_with_the_fewest_moves():
    old = loads(THREE)
    new = reweight(old, {"control": 10, "treatment": "33", "third": 57.0})
    assert new.epoch == 2
    assert [a.weight for a in new.arms] == [1000, 3300, 5700]
    assert loads(format_yaml(new)) == new
    with pytest.raises(InputError, match="no arm 'x'"):
        reweight(old, {"x": 100})
    with pytest.raises(InputError, match="weights"):
        reweight(old, {"control": 50})


@pytest.mark.parametrize(
    ("buckets", "share", "percent"),
    [(0, "0", "0"), (1, "0.0001", "0.01"), (5000, "0.5", "50"), (10_000, "1", "100"),
     (1250, "0.125", "12.5")],
)  # fmt: skip
def test_shares_are_the_shortest_decimals(buckets, share, percent):
    assert format_share(buckets) == share
    assert format_percent(buckets) == percent
