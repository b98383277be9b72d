"""Programs that others wrote verify our log from its files.

`metamorphic-log` is Rust, and verifies C2SP checkpoints and RFC 6962 proofs; `pymerkle` grows the
tree from the entries itself. Neither shares code with audit/.
"""

import asyncio
import base64

import metamorphic_log
import pytest
from pymerkle import InmemoryTree
from pymerkle import verify_inclusion as pymerkle_verifies

from audit.bundle import parse_bundle
from audit.merkle import consistency_proof, inclusion_proof, leaf_hash
from audit.prove import prove
from audit.publish import read_checkpoint
from audit.reader import LogReader
from audit.tiles import TileReader, tiles_of
from tests.audit.worlds import build_world

SIZE = 600


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return asyncio.run(build_world(folder, [7, 300, 293], payload_every=0))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The checkpoint of the same log when it had 307 records."""
    built = asyncio.run(build_world(tmp_path_factory.mktemp("older"), [7, 300], payload_every=0))
    return read_checkpoint(built.directory)


@pytest.fixture(scope="module")
def entries(world):
    """The entries as the public files hold them: bundles, read here and not by our reader."""
    found = []
    for tile in tiles_of(SIZE):
        if tile.level < 0:
            found += parse_bundle((world.directory / tile.path()).read_bytes(), tile.width)
    return found


def test_the_checkpoint_verifies_under_our_key_and_no_other(world):
    note, key = read_checkpoint(world.directory), str(world.key)
    head = metamorphic_log.checkpoint_verify(note, [key])
    assert (head.origin, head.size) == (world.key.name, SIZE)
    for spoilt in (note.replace("\n600\n", "\n601\n"), note.replace("example.com", "example.org")):
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.checkpoint_verify(spoilt, [key])


@pytest.mark.parametrize("leaf", [0, 1, 6, 7, 255, 256, 306, 511, 512, 598, 599])
def test_each_record_is_included(world, entries, leaf):
    note, key = read_checkpoint(world.directory), str(world.key)
    proof = inclusion_proof(TileReader(world.directory, SIZE), leaf, SIZE)
    hashed = leaf_hash(entries[leaf])
    metamorphic_log.checkpoint_verify_inclusion(note, [key], leaf, hashed, proof)
    for wrong_leaf, wrong_hash in ((leaf ^ 1, hashed), (leaf, leaf_hash(entries[leaf] + b" "))):
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.checkpoint_verify_inclusion(note, [key], wrong_leaf, wrong_hash, proof)


def test_the_later_tree_extends_the_earlier_one(world, older):
    note, key = read_checkpoint(world.directory), str(world.key)
    proof = consistency_proof(TileReader(world.directory, SIZE), 307, SIZE)
    metamorphic_log.checkpoint_verify_consistency(older, note, [key], proof)
    with pytest.raises(metamorphic_log.VerifyError):
        metamorphic_log.checkpoint_verify_consistency(older, note, [key], proof[:-1])


def test_a_proof_that_we_hand_out_is_one_that_they_accept(world, entries):
    text = prove(LogReader(world.directory), 400)
    head, _, note = text.partition("\n\n")
    _, index, *path = head.split("\n")
    metamorphic_log.checkpoint_verify_inclusion(
        note,
        [str(world.key)],
        int(index.removeprefix("index ")),
        leaf_hash(entries[400]),
        [base64.b64decode(line) for line in path],
    )


def test_another_program_grows_the_same_tree_from_our_entries(world, older, entries):
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries(entries)
    assert tree.get_root() == root_in(read_checkpoint(world.directory))
    assert tree.get_root(307) == root_in(older)


def test_another_program_s_own_proofs_lead_to_our_signed_root(world, entries):
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries(entries)
    root = root_in(read_checkpoint(world.directory))
    for index in (0, 255, 256, 599):
        proof = tree.prove_inclusion(index + 1)
        pymerkle_verifies(leaf_hash(entries[index]), root, proof)


def root_in(note):
    return base64.b64decode(note.split("\n")[2])
