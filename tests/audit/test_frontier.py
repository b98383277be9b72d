"""The frontier of a pruned tree: what C2SP's minimum index promises can still be had, is had."""

import pytest

from audit.errors import LogDamaged
from audit.events import Pruned
from audit.frontier import fold, path_to_peak, peak_of, peaks_of, rows_at
from audit.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    peaks,
    range_root,
    verify_consistency,
    verify_inclusion,
)
from audit.prunefiles import _prune_tiles
from audit.tiles import TileBuilder, TileReader, write_tile

SIZE = 66_900
BOUNDARIES = (256, 512, 1280, 32_768, 65_280, 65_536, 65_792, 66_048, 66_816)


def entry(index):
    return b"entry %d" % index


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The folder of a tree of 66,900 leaves, and its roots at the boundaries."""
    folder, roots = tmp_path_factory.mktemp("tree"), {}
    tiles = TileBuilder(lambda tile, data: write_tile(folder, tile, data))
    for index in range(SIZE):
        tiles.append(entry(index))
        if tiles.size in (*BOUNDARIES, 66_560, SIZE):
            roots[tiles.size] = tiles.frontier.root()
    for tile, data in tiles.edge():
        write_tile(folder, tile, data)
    return folder, roots


@pytest.mark.parametrize("size", BOUNDARIES)
def test_rows_give_the_frontier_and_the_frontier_the_root(tree, size) -> None:
    folder, roots = tree
    hashes = TileReader(folder, SIZE)
    rows = rows_at(hashes, size)
    assert peaks_of(rows, size) == peaks(hashes, size)
    assert Frontier(size, peaks_of(rows, size)).root() == roots[size]
    if rows:
        level = max(rows)
        with pytest.raises(LogDamaged, match=f"level {level}"):
            peaks_of(rows | {level: rows[level][:-32]}, size)


@pytest.mark.parametrize("size", BOUNDARIES)
def test_a_path_leads_to_its_peak_and_grows_to_a_later_one(tree, size) -> None:
    folder, _ = tree
    hashes = TileReader(folder, SIZE)
    frontier = peaks(hashes, size)
    for leaf in (0, 1, 255, size // 3, size // 2, size - 256, size - 1):
        path = path_to_peak(hashes, leaf, size)
        assert fold(leaf, leaf_hash(entry(leaf)), path) == frontier[peak_of(leaf, size)]
        assert fold(leaf, leaf_hash(b"another"), path) not in frontier
        for later in (n for n in BOUNDARIES if n > size):
            longer = [*path, *path_to_peak(hashes, leaf, later, begun=len(path))]
            assert longer == path_to_peak(hashes, leaf, later)


def pruned(first):
    return Pruned(
        id="x",
        time_us=0,
        from_leaf=0,
        first_leaf=first,
        kept_from=first,
        tree_size=SIZE,
        root="",
        frontier=[],
        segments=1,
        first_payloads=0,
        until_us=0,
        numbers=[],
        actor="",
        reason="",
    )


def test_after_each_pruning_all_later_proofs_can_be_made(tree) -> None:
    folder, roots = tree
    previous = 0
    for first in BOUNDARIES:  # on the same folder, one after the other
        _prune_tiles(folder, pruned(first), int)
        hashes = TileReader(folder, SIZE)
        assert range_root(hashes, 0, SIZE) == roots[SIZE]
        for leaf in {first, first + 1, first + 83, (first + SIZE) // 2, SIZE - 1}:
            proof = inclusion_proof(hashes, leaf, SIZE)
            verify_inclusion(leaf, SIZE, leaf_hash(entry(leaf)), proof, roots[SIZE])
        for old in (n for n in (*BOUNDARIES, 66_560) if n >= first):
            assert range_root(hashes, 0, old) == roots[old]
            proof = consistency_proof(hashes, old, SIZE)
            verify_consistency(old, SIZE, roots[old], roots[SIZE], proof)
            assert peaks_of(rows_at(hashes, old), old) == peaks(hashes, old)
        gone = previous
        with pytest.raises(LogDamaged):
            inclusion_proof(TileReader(folder, SIZE), gone, SIZE)
        previous = first
