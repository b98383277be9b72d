import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import ProofError
from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    LeafHashes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    peaks,
    range_root,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads(Path("tests/vectors/rfc6962.json").read_text(encoding="utf-8"))
PUBLISHED = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(65)]
TREE = LeafHashes(LEAVES)
ROOTS = [range_root(TREE, 0, size) for size in range(65)]


def slow_root(leaves):
    """MTH, written from the text of RFC 6962."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(slow_root(leaves[:k]), slow_root(leaves[k:]))


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_are_reached(size):
    frontier = Frontier()
    for leaf in PUBLISHED[:size]:
        frontier.append(leaf)
    assert frontier.root().hex() == VECTORS["roots"][size]
    assert range_root(LeafHashes(PUBLISHED), 0, size).hex() == VECTORS["roots"][size]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=str)
def test_the_published_inclusion_proofs_are_made_and_verify(case):
    proof = inclusion_proof(LeafHashes(PUBLISHED), case["index"], case["size"])
    assert [node.hex() for node in proof] == case["proof"]
    root = bytes.fromhex(VECTORS["roots"][case["size"]])
    verify_inclusion(case["index"], case["size"], PUBLISHED[case["index"]], proof, root)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=str)
def test_the_published_consistency_proofs_are_made_and_verify(case):
    proof = consistency_proof(LeafHashes(PUBLISHED), case["old"], case["new"])
    assert [node.hex() for node in proof] == case["proof"]
    roots = [bytes.fromhex(VECTORS["roots"][case[name]]) for name in ("old", "new")]
    verify_consistency(case["old"], case["new"], *roots, proof)


@pytest.mark.parametrize("size", range(1, 65))
def test_every_leaf_of_every_small_tree_has_a_proof_that_proves_nothing_else(size):
    assert ROOTS[size] == slow_root(LEAVES[:size])
    for index in range(size):
        proof = inclusion_proof(TREE, index, size)
        verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
        for other in range(size):
            if other != index:
                with pytest.raises(ProofError):
                    verify_inclusion(other, size, LEAVES[index], proof, ROOTS[size])
        with pytest.raises(ProofError):
            verify_inclusion(index, size, LEAVES[index], [*proof, EMPTY_ROOT], ROOTS[size])
        for place in range(len(proof)):
            shorter = proof[:place] + proof[place + 1 :]
            with pytest.raises(ProofError):
                verify_inclusion(index, size, LEAVES[index], shorter, ROOTS[size])


@pytest.mark.parametrize("new", range(1, 65))
def test_every_pair_of_small_trees_has_a_proof_that_proves_nothing_else(new):
    for old in range(new + 1):
        proof = consistency_proof(TREE, old, new)
        verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)
        with pytest.raises(ProofError):
            verify_consistency(old, new, LEAVES[64], ROOTS[new], proof)
        with pytest.raises(ProofError):
            verify_consistency(old, new, ROOTS[old], ROOTS[new], [*proof, EMPTY_ROOT])
        for place in range(len(proof)):
            changed = [*proof[:place], LEAVES[64], *proof[place + 1 :]]
            with pytest.raises(ProofError):
                verify_consistency(old, new, ROOTS[old], ROOTS[new], changed)
            shorter = proof[:place] + proof[place + 1 :]
            with pytest.raises(ProofError):
                verify_consistency(old, new, ROOTS[old], ROOTS[new], shorter)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_adding_leaves_never_changes_an_old_proof(entries, data):
    leaves = [leaf_hash(entry) for entry in entries]
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    before = inclusion_proof(LeafHashes(leaves[:size]), index, size)
    assert inclusion_proof(LeafHashes(leaves), index, size) == before
    old, new = (range_root(LeafHashes(leaves), 0, n) for n in (size, len(leaves)))
    verify_consistency(size, len(leaves), old, new, consistency_proof(
        LeafHashes(leaves), size, len(leaves)))  # fmt: skip


@pytest.mark.parametrize("size", range(65))
def test_a_frontier_can_be_resumed_at_any_size(size):
    frontier = Frontier(size, peaks(TREE, size))
    assert frontier.root() == ROOTS[size]
    for leaf in LEAVES[size:64]:
        frontier.append(leaf)
    assert frontier.root() == ROOTS[64]


def test_a_frontier_with_the_wrong_peaks_is_refused():
    with pytest.raises(ProofError):
        Frontier(3, [EMPTY_ROOT])


def test_a_frontier_reports_the_subtrees_it_closes():
    frontier, closed = Frontier(), []
    for number in range(65536 + 256):
        closed += frontier.append(number.to_bytes(32, "big"))
    assert [(s.level, s.index) for s in closed if s.level == 16] == [(16, 0)]
    assert [s.index for s in closed if s.level == 8] == list(range(257))


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_leaf_outside_the_tree_has_no_proof(index, size):
    with pytest.raises(ProofError):
        inclusion_proof(TREE, index, size)
    with pytest.raises(ProofError):
        root_from_inclusion(index, size, LEAVES[0], [])


def test_a_larger_tree_is_not_consistent_with_a_smaller_one():
    with pytest.raises(ProofError):
        consistency_proof(TREE, 3, 2)
    with pytest.raises(ProofError):
        verify_consistency(3, 2, ROOTS[3], ROOTS[2], [])
    with pytest.raises(ProofError):
        verify_consistency(3, 5, ROOTS[3], ROOTS[5], [])
