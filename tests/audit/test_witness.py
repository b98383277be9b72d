"""A witness never cosigns two trees that contradict each other, whatever it is asked, and when."""

import base64
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.cosignature import Cosigner, CosignerKey, cosignatures, with_signatures
from audit.errors import KeyFileError, LogDamaged, LogLocked, NoteError
from audit.merkle import EMPTY_ROOT, LeafHashes, consistency_proof, leaf_hash, range_root
from audit.note import Checkpoint, Signer, VerifierKey, split_note
from audit.witness import SIZE_TYPE, Witness, format_request, parse_request
from audit.witness_key import load_or_create

VECTOR = json.loads(Path("tests/vectors/cosignature.json").read_text(encoding="utf-8"))
ORIGIN = "example.com/log"
SIGNER = Signer(ORIGIN, bytes(32))
COSIGNER = Cosigner("example.org/w", b"w" * 32)
LEAVES = LeafHashes([leaf_hash(b"%d" % leaf) for leaf in range(70)])
FORKED = LeafHashes([leaf_hash(b"%d" % (leaf // 3)) for leaf in range(70)])


class Clock:
    """Seconds that the test sets."""

    now_s = 1_790_000_000

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def witness(tmp_path, clock):
    made = Witness(tmp_path / "w", COSIGNER, [SIGNER.verifier_key], now_s=clock)
    yield made
    made.close()


def signed(size, tree=LEAVES, signer=SIGNER, origin=ORIGIN):
    return signer.sign(Checkpoint(origin, size, range_root(tree, 0, size)).text())


def submit(witness, old, size, tree=LEAVES, **other):
    proof = consistency_proof(tree, old, size) if old <= size else []
    return witness.add_checkpoint(format_request(old, proof, signed(size, tree, **other)).encode())


def test_a_first_checkpoint_is_cosigned_and_every_larger_one_that_extends_it(witness, clock):
    for old, size in [(0, 5), (5, 5), (5, 6), (6, 64), (64, 70)]:
        answer = submit(witness, old, size)
        assert (answer.status, answer.kind) == (200, "text/plain; charset=utf-8")
        note = with_signatures(signed(size), answer.body.splitlines())
        assert [(c.key, c.time_s) for c in cosignatures(note, [COSIGNER.key])] == [
            (COSIGNER.key, clock.now_s)
        ]
    assert witness.sizes() == {ORIGIN: 70}


@pytest.mark.parametrize("old", range(1, 20))
def test_from_every_small_size_to_every_larger_one(tmp_path, clock, old):
    for size in range(old, 24):
        witness = Witness(tmp_path / str(size), COSIGNER, [SIGNER.verifier_key], now_s=clock)
        assert submit(witness, 0, old).status == 200
        assert submit(witness, old, size).status == 200
        witness.close()


def test_another_old_size_is_a_conflict_that_names_the_right_one(witness):
    submit(witness, 0, 5)
    for old, size in [(0, 9), (4, 9), (6, 9), (0, 5), (9, 9)]:
        answer = submit(witness, old, size)
        assert (answer.status, answer.body, answer.kind) == (409, "5\n", SIZE_TYPE)


def test_a_fork_is_refused_at_every_size(witness):
    submit(witness, 0, 6)
    assert submit(witness, 6, 6, FORKED).status == 422
    assert submit(witness, 6, 9, FORKED).status == 422
    assert submit(witness, 6, 9).status == 200


def test_a_smaller_tree_is_refused(witness):
    submit(witness, 0, 9)
    assert submit(witness, 9, 5).status == 400
    assert submit(witness, 5, 5).status == 409
    assert submit(witness, 0, 5).status == 409


def test_a_proof_that_does_not_fit_is_refused(witness):
    submit(witness, 0, 6)
    good = consistency_proof(LEAVES, 6, 9)
    for proof in ([], good[:-1], [*good, bytes(32)], [bytes(32), *good[1:]], good[::-1]):
        request = format_request(6, proof, signed(9))
        assert witness.add_checkpoint(request.encode()).status == 422
    assert witness.add_checkpoint(format_request(6, good, signed(6)).encode()).status == 422


def test_a_first_checkpoint_has_no_proof(witness):
    request = format_request(0, [bytes(32)], signed(5))
    assert witness.add_checkpoint(request.encode()).status == 422


def test_the_empty_tree_has_one_root(witness):
    empty = SIGNER.sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text())
    other = SIGNER.sign(Checkpoint(ORIGIN, 0, bytes(32)).text())
    assert witness.add_checkpoint(format_request(0, [], other).encode()).status == 422
    assert witness.add_checkpoint(format_request(0, [], empty).encode()).status == 200
    assert submit(witness, 0, 5).status == 200


def test_an_unknown_log_is_404_and_an_unknown_key_403(witness):
    stranger = Signer("example.com/other", bytes(32))
    assert submit(witness, 0, 5, signer=stranger, origin="example.com/other").status == 404
    assert submit(witness, 0, 5, signer=Signer(ORIGIN, b"x" * 32)).status == 403
    note = signed(5).replace("\n5\n", "\n6\n")
    assert witness.add_checkpoint(format_request(0, [], note).encode()).status == 403
    assert witness.sizes() == {ORIGIN: 0}


def test_signatures_of_strangers_are_neither_needed_nor_in_the_way(witness):
    text = split_note(signed(5))[0]
    strangers = [f"— x{n} {base64.b64encode(bytes(5) + bytes([n])).decode()}" for n in range(98)]
    note = with_signatures(signed(5), strangers)
    assert witness.add_checkpoint(format_request(0, [], note).encode()).status == 200
    assert submit(witness, 5, 6).status == 200
    assert text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"old 0\n",
        b"old 00\n\n" + signed(5).encode(),
        b"old -1\n\n" + signed(5).encode(),
        b"old  1\n\n" + signed(5).encode(),
        b"old 1" + b"0" * 30 + b"\n\n" + signed(5).encode(),
        b"new 0\n\n" + signed(5).encode(),
        b"old 0\nAAAA\n\n" + signed(5).encode(),
        b"old 0\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\n" + signed(5).encode(),
        b"old 0\n\n" + signed(5).encode()[:-1],
        b"old 0\n\n\xff" + signed(5).encode(),
        b"old 0\r\n\r\n" + signed(5).encode(),
        b"old 0\n\nno checkpoint\n",
    ],
)
def test_what_is_no_request_is_400(witness, body):
    assert witness.add_checkpoint(body).status == 400


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail(body):
    witness = object.__new__(Witness)
    witness._logs = {}
    assert witness.add_checkpoint(body).status in (400, 404)


def test_the_specification_s_example_request_reads_and_writes_back():
    request = parse_request(VECTOR["spec"]["request"])
    assert (request.old, len(request.proof)) == (20852014, 4)
    assert format_request(request.old, request.proof, request.note) == VECTOR["spec"]["request"]


def test_the_requests_of_another_implementation_s_tests_are_answered_as_there(tmp_path, clock):
    vector = VECTOR["witness"]
    state = tmp_path / "w"
    state.mkdir()
    (state / "checkpoints").mkdir()
    (state / "witness.key").write_text(f"{vector['skey']}\n")
    (state / "witness.key").chmod(0o600)
    cosigner = load_or_create(state, None)
    witness = Witness(state, cosigner, [VerifierKey.parse(vector["log"])], now_s=clock)
    first = format_request(0, [], vector["first"])
    assert witness.add_checkpoint(first.encode()).status == 200
    proof = [bytes.fromhex(node) for node in vector["proof"]]
    second = format_request(5, proof, vector["second"]).encode()
    for spoilt in (second.replace(b"old 5", b"old 4"), second.replace(b"\nueH", b"\nveH", 1)):
        assert witness.add_checkpoint(spoilt).status in (409, 422)
    answer = witness.add_checkpoint(second)
    assert answer.status == 200
    note = with_signatures(vector["second"], answer.body.splitlines())
    assert cosignatures(note, [cosigner.key])
    witness.close()


def test_the_state_outlives_the_process(tmp_path, clock):
    state = tmp_path / "w"
    witness = Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    submit(witness, 0, 9)
    witness.close()
    again = Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    assert again.sizes() == {ORIGIN: 9}
    assert submit(again, 0, 12, FORKED).body == "9\n"
    assert submit(again, 9, 12, FORKED).status == 422
    assert submit(again, 9, 12).status == 200
    again.close()


def test_time_never_goes_back_not_even_over_a_restart(tmp_path, clock):
    state = tmp_path / "w"
    witness = Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    submit(witness, 0, 5)
    witness.close()
    clock.now_s -= 1000
    witness = Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    answer = submit(witness, 5, 6)
    note = with_signatures(signed(6), answer.body.splitlines())
    assert cosignatures(note, [COSIGNER.key])[0].time_s == clock.now_s + 1000
    witness.close()


def test_a_second_process_on_the_same_state_is_refused(witness, tmp_path, clock):
    with pytest.raises(LogLocked):
        Witness(tmp_path / "w", COSIGNER, [SIGNER.verifier_key], now_s=clock)


def test_a_changed_state_stops_it(tmp_path, clock):
    state = tmp_path / "w"
    witness = Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    submit(witness, 0, 9)
    witness.close()
    (path,) = (state / "checkpoints").iterdir()
    good = path.read_bytes()
    dice = random.Random(4)
    for _ in range(200):
        changed = bytearray(good)
        changed[dice.randrange(len(good))] ^= dice.randrange(1, 256)
        path.write_bytes(changed)
        with pytest.raises(LogDamaged):
            Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    path.write_bytes(signed(5).encode())  # an older one, which the witness did not sign
    with pytest.raises(LogDamaged):
        Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock)
    path.write_bytes(good)
    Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=clock).close()


def test_a_disk_that_refuses_means_no_signature_and_no_new_state(witness, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "no space")

    submit(witness, 0, 5)
    with monkeypatch.context() as patched:
        patched.setattr("audit.witness.replace_file", full)
        with pytest.raises(OSError, match="no space"):
            submit(witness, 5, 9)
        assert witness.sizes() == {ORIGIN: 5}
    assert submit(witness, 5, 9, FORKED).status == 422
    assert submit(witness, 5, 9).status == 200


def test_of_two_forks_at_once_one_is_cosigned(tmp_path, clock):
    """Many threads submit both sides of a fork: all that was cosigned is one history."""
    witness = Witness(tmp_path / "w", COSIGNER, [SIGNER.verifier_key], now_s=clock)
    cosigned, start = [], threading.Barrier(8)

    def race(tree):
        start.wait()
        old = 0
        for size in range(1, 40):
            answer = submit(witness, old, size, tree)
            if answer.status == 200:
                cosigned.append((size, range_root(tree, 0, size)))
                old = size
            elif answer.status == 409:
                old = min(int(answer.body), size)

    threads = [threading.Thread(target=race, args=(t,)) for t in [LEAVES, FORKED] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    witness.close()
    assert cosigned
    histories = [
        all(root == range_root(tree, 0, size) for size, root in cosigned)
        for tree in (LEAVES, FORKED)
    ]
    assert any(histories)


def test_a_key_is_made_once_and_kept(tmp_path):
    made = load_or_create(tmp_path / "w", "example.org/w")
    assert load_or_create(tmp_path / "w", None).key == made.key
    assert load_or_create(tmp_path / "w", "example.org/w").key == made.key
    assert CosignerKey.parse(str(made.key)) == made.key
    with pytest.raises(KeyFileError, match=r"example\.org/w, not of example\.org/x"):
        load_or_create(tmp_path / "w", "example.org/x")


def test_a_key_without_its_state_never_signs_again(tmp_path):
    load_or_create(tmp_path / "w", "example.org/w")
    (tmp_path / "w" / "checkpoints").rmdir()
    with pytest.raises(KeyFileError, match="contradict itself"):
        load_or_create(tmp_path / "w", None)


def test_a_damaged_or_open_key_is_refused_and_stays(tmp_path):
    load_or_create(tmp_path / "w", "example.org/w")
    path = tmp_path / "w" / "witness.key"
    line = path.read_text()
    for wrong in (
        line[:-5],
        line.replace("example.org/w", "example.org/x"),
        "",
        line + "x",
        line[1:],
    ):
        path.write_text(wrong)
        with pytest.raises(KeyFileError, match="damaged"):
            load_or_create(tmp_path / "w", None)
        assert path.read_text() == wrong
    path.write_text(line)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read it"):
        load_or_create(tmp_path / "w", None)


def test_a_new_key_needs_a_name(tmp_path):
    with pytest.raises(KeyFileError, match="--name"):
        load_or_create(tmp_path / "w", None)
    with pytest.raises(NoteError):
        load_or_create(tmp_path / "w", "two words")


def test_killed_between_keeping_and_answering_it_gives_the_signature_to_who_asks_again(tmp_path):
    script = """
import os, sys
from pathlib import Path
from tests.audit.test_witness import COSIGNER, SIGNER, submit
import audit.witness as w
state = Path(sys.argv[1])
witness = w.Witness(state, COSIGNER, [SIGNER.verifier_key], now_s=lambda: 7)
kept = w.replace_file
w.replace_file = lambda path, data: (kept(path, data), os._exit(9))
submit(witness, 0, 5)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "w"], check=False)
    assert done.returncode == 9
    witness = Witness(tmp_path / "w", COSIGNER, [SIGNER.verifier_key], now_s=lambda: 8)
    assert submit(witness, 0, 5).body == "5\n"
    assert submit(witness, 5, 5).status == 200
    witness.close()


def test_killed_at_any_moment_it_has_cosigned_one_history(tmp_path):
    """A child cosigns 1, 2, 3, … and is killed; the next one never contradicts what it said."""
    script = """
import sys
from pathlib import Path
from tests.audit.test_witness import COSIGNER, SIGNER, submit
from audit.witness import Witness
witness = Witness(Path(sys.argv[1]), COSIGNER, [SIGNER.verifier_key], now_s=lambda: 7)
size = next(iter(witness.sizes().values()))
print("from", size, flush=True)
while size < 70:
    assert submit(witness, size, size + 1).status == 200
    size += 1
    print("said", size, flush=True)
"""
    dice, said = random.Random(7), 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "w"], stdout=subprocess.PIPE, text=True
        )
        begun = int(child.stdout.readline().split()[1])
        assert begun in (said, said + 1), "what was said was kept, and at most one more"
        for _ in range(dice.randrange(1, 5)):
            line = child.stdout.readline()
            said = int(line.split()[1]) if line else said
        child.kill()
        rest = child.stdout.read().splitlines()
        said = max([said, begun, *(int(line.split()[1]) for line in rest if line[-1:].isdigit())])
        child.wait()
        child.stdout.close()
    witness = Witness(tmp_path / "w", COSIGNER, [SIGNER.verifier_key], now_s=lambda: 8)
    kept = witness.sizes()[ORIGIN]
    assert said <= kept <= said + 1
    assert submit(witness, kept, 70, FORKED).status == 422
    assert submit(witness, kept, 70).status == 200
    witness.close()
