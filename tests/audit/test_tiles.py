import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.bundle import Bundle, format_bundle, parse_bundle
from audit.errors import LogDamaged
from audit.merkle import LeafHashes, inclusion_proof, leaf_hash, range_root
from audit.tiles import (
    Tile,
    TileBuilder,
    TileReader,
    partial_tiles_of,
    tiles_of,
    write_tile,
)

SIZE = 700
ENTRIES = [b"entry %d" % number for number in range(SIZE)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiles")
    builder = TileBuilder(lambda tile, data: write_tile(directory, tile, data))
    for entry in ENTRIES:
        builder.append(entry)
    for tile, data in builder.edge():
        write_tile(directory, tile, data)
    assert builder.frontier.root() == range_root(LeafHashes(LEAVES), 0, SIZE)
    return directory


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 256), "tile/0/000"),
        (Tile(-1, 1234067, 256), "tile/entries/x001/x234/067"),
        (Tile(1, 273, 112), "tile/1/273.p/112"),
        (Tile(0, 1000, 256), "tile/0/x001/000"),
    ],
)
def test_tiles_have_the_names_of_the_specification(tile, path):
    assert tile.path() == path


def test_a_tree_of_70000_leaves_has_the_tiles_of_the_specification():
    tiles = [tile for tile in tiles_of(70_000) if tile.level >= 0]
    shape = {
        (level, tile.width): sum(t.level == level and t.width == tile.width for t in tiles)
        for tile in tiles
        for level in [tile.level]
    }
    assert shape == {(0, 256): 273, (0, 112): 1, (1, 256): 1, (1, 17): 1, (2, 1): 1}
    assert [t for t in tiles if t.width < 256] == [
        t for t in partial_tiles_of(70_000) if t.level >= 0
    ]


def test_a_tree_of_256_leaves_has_a_full_tile_and_one_above():
    assert [t.path() for t in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]


def test_the_files_are_exactly_those_of_the_size(tree):
    names = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert names == {tile.path() for tile in tiles_of(SIZE)}


def test_a_tile_holds_the_leaf_hashes_and_a_bundle_the_entries(tree):
    assert (tree / "tile/0/001").read_bytes() == b"".join(LEAVES[256:512])
    assert parse_bundle((tree / "tile/entries/002.p/188").read_bytes(), 188) == ENTRIES[512:]
    first = range_root(LeafHashes(LEAVES), 0, 256)
    assert (tree / "tile/1/000.p/2").read_bytes()[:32] == first


def test_proofs_from_tiles_equal_proofs_from_memory(tree):
    reader = TileReader(tree, SIZE)
    for index in range(0, SIZE, 7):
        expected = inclusion_proof(LeafHashes(LEAVES), index, SIZE)
        assert inclusion_proof(reader, index, SIZE) == expected


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 699, 700])
def test_a_builder_resumes_from_the_files_of_any_size(tmp_path, size):
    builder = TileBuilder(lambda tile, data: write_tile(tmp_path, tile, data))
    for entry in ENTRIES[:size]:
        builder.append(entry)
    for tile, data in builder.edge():
        write_tile(tmp_path, tile, data)
    again = TileBuilder(lambda tile, data: write_tile(tmp_path, tile, data))
    again.resume(tmp_path, size)
    for entry in ENTRIES[size:]:
        again.append(entry)
    assert again.frontier.root() == range_root(LeafHashes(LEAVES), 0, SIZE)


def test_a_full_tile_replaces_its_partial_ones(tmp_path):
    write_tile(tmp_path, Tile(0, 0, 3), bytes(96))
    write_tile(tmp_path, Tile(0, 0, 256), bytes(8192))
    assert not (tmp_path / "tile/0/000.p").exists()
    assert TileReader(tmp_path, 3).hashes(0, 0) == bytes(96)


def test_a_missing_or_short_tile_is_named(tmp_path):
    with pytest.raises(LogDamaged, match="tile/0/000"):
        TileReader(tmp_path, 300).node(0, 1)
    write_tile(tmp_path, Tile(0, 0, 256), bytes(8191))
    with pytest.raises(LogDamaged, match="8191 bytes"):
        TileReader(tmp_path, 300).node(0, 1)
    write_tile(tmp_path, Tile(0, 0, 1), hashlib.sha256(b"").digest())
    with pytest.raises(LogDamaged, match="entries"):
        TileBuilder(lambda tile, data: None).resume(tmp_path, 1)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_reads_back_as_it_was_written(entries):
    assert parse_bundle(format_bundle(entries), len(entries)) == entries


@given(st.lists(st.binary(max_size=300), max_size=20), st.data())
def test_a_part_of_a_bundle_is_those_entries(entries, data):
    first, last = sorted(data.draw(st.integers(0, len(entries))) for _ in range(2))
    whole = Bundle.parse(format_bundle(entries), len(entries))
    made = Bundle.of(entries, whole.data)
    for bundle in (whole, made):
        part = bundle[first:last]
        assert list(part) == [part[at] for at in range(len(part))] == entries[first:last]
        assert [bytes(view) for view in part.views()] == entries[first:last]
        assert part.raw == format_bundle(entries[first:last])


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.data())
def test_a_bundle_of_another_length_is_refused(entries, data):
    whole = format_bundle(entries)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError):
        parse_bundle(whole[:cut], len(entries))
    with pytest.raises(ValueError):
        parse_bundle(whole + b"x", len(entries))
