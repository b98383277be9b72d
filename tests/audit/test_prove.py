import asyncio

import pytest

from audit.errors import LogDamaged, NoteError, NotFound, NotYetCheckpointed, ProofError
from audit.prove import format_proof, parse_proof, prove, verify_proof
from audit.reader import LogReader
from audit.record import encode
from tests.audit.worlds import build_world, open_log, records


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return asyncio.run(build_world(tmp_path_factory.mktemp("world"), [7, 300], payload_every=0))


def test_every_leaf_has_a_proof_that_verifies_with_the_public_key_alone(world):
    reader = LogReader(world.directory)
    for entry in reader.entries():
        proven = verify_proof(prove(reader, entry.index), entry.data, str(world.key))
        assert (proven.index, proven.checkpoint.size) == (entry.index, 307)


def test_a_proof_proves_no_other_entry(world):
    text = prove(LogReader(world.directory), 5)
    with pytest.raises(ProofError):
        verify_proof(text, encode(world.events[6]), world.key)
    with pytest.raises(NoteError, match=r"vkey of type 01$"):  # and no word of rotations
        verify_proof(text, encode(world.events[5]), "nonsense")


def test_no_changed_byte_leaves_a_proof_verified(world):
    text, entry = prove(LogReader(world.directory), 5), encode(world.events[5])
    raw = text.encode()
    for offset in range(len(raw)):
        changed = raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :]
        with pytest.raises((ProofError, NoteError, UnicodeDecodeError)):
            verify_proof(changed.decode(), entry, world.key)


def test_a_proof_reads_back_as_it_was_written(world):
    text = prove(LogReader(world.directory), 5)
    proof = parse_proof(text)
    assert format_proof(proof.index, proof.path, proof.note) == text
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 5\n")


def test_extra_data_is_allowed_and_ignored(world):
    text = prove(LogReader(world.directory), 5).replace("\nindex", "\nextra aGVsbG8=\nindex", 1)
    assert verify_proof(text, encode(world.events[5]), world.key).index == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 05\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex -1\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 1\n???\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex " + "9" * 5000 + "\n\nnote",
        "other\nindex 1\n\nnote",
    ],
)
def test_a_malformed_proof_is_refused(text):
    with pytest.raises(ProofError):
        parse_proof(text)


def test_a_leaf_that_does_not_exist_has_no_proof(world):
    with pytest.raises(NotFound):
        prove(LogReader(world.directory), 307)


def test_a_leaf_that_is_not_signed_yet_says_so(tmp_path):
    log = open_log(tmp_path)
    log.append(records(1))
    with pytest.raises(NotYetCheckpointed) as caught:
        prove(LogReader(tmp_path / "log"), 0)
    assert caught.value.retryable
    log.close()


def test_a_damaged_tile_gives_no_wrong_proof(world, tmp_path):
    victim = world.copy(tmp_path / "log")
    tile = victim.directory / "tile/0/000"
    tile.write_bytes(bytes(8192))
    with pytest.raises(ProofError):
        prove(LogReader(victim.directory), 10)
    tile.unlink()
    with pytest.raises(LogDamaged):
        prove(LogReader(victim.directory), 10)
