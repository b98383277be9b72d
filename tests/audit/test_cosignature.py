"""Cosignatures as the public witness network writes them; our own in the same bytes."""

import asyncio
import base64
import hashlib
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit.cosignature import Cosigner, CosignerKey, cosignatures, with_signatures
from audit.cosigned import cosigned_path, write_cosigned
from audit.errors import NoteError
from audit.note import Checkpoint, Signer, VerifierKey, open_checkpoint, parse_signature, split_note
from audit.prove import parse_proof, prove, verify_proof
from audit.publish import read_checkpoint
from audit.reader import LogReader
from tests.audit.worlds import build_world
from weighbridge_verify import Broken
from weighbridge_verify.notes import LOG, WITNESS, Key, Signed

VECTOR = json.loads(Path("tests/vectors/cosignature.json").read_text(encoding="utf-8"))
PUBLIC, SPEC = VECTOR["public"], VECTOR["spec"]
WITNESSES = [CosignerKey.parse(vkey) for vkey in PUBLIC["witnesses"]]
LOG_KEY = VerifierKey.parse(PUBLIC["log"])
SEED = bytes(range(32))
TREE = Checkpoint("example.com/log", 3, bytes(32))
NOTE = Signer("example.com/log", bytes(32)).sign(TREE.text())
COSIGNER = Cosigner("example.org/w", SEED)


def test_a_checkpoint_of_the_public_network_verifies_under_every_published_key():
    found = cosignatures(PUBLIC["note"], WITNESSES)
    assert {cosigned.key for cosigned in found} == set(WITNESSES)
    assert {cosigned.time_s for cosigned in found} == {PUBLIC["time_s"]}
    assert open_checkpoint(PUBLIC["note"], LOG_KEY, *WITNESSES).size == 1432088532


def test_the_standalone_verifier_reads_the_same_checkpoint_the_same_way():
    signed = Signed.parse(PUBLIC["note"].encode())
    assert signed.by(Key.parse(PUBLIC["log"], LOG)) == 0
    for vkey in PUBLIC["witnesses"]:
        assert signed.by(Key.parse(vkey, WITNESS)) == PUBLIC["time_s"]
        with pytest.raises(Broken):
            Key.parse(vkey, LOG)
    other = Signed.parse(PUBLIC["note"].replace("1432088532", "1432088533").encode())
    for vkey, kind in [(PUBLIC["log"], LOG), *((vkey, WITNESS) for vkey in PUBLIC["witnesses"])]:
        with pytest.raises(Broken):
            other.by(Key.parse(vkey, kind))


def test_a_published_key_reads_back_as_it_was_written():
    assert [str(key) for key in WITNESSES] == PUBLIC["witnesses"]
    for vkey in PUBLIC["witnesses"]:
        with pytest.raises(NoteError):
            VerifierKey.parse(vkey)


def test_the_specification_s_example_has_the_time_and_the_key_id_that_it_says():
    name, key_id, signature = parse_signature(SPEC["cosignature"])
    assert (name, key_id.hex()) == ("witness.example.com/w1", SPEC["key_id"])
    assert struct.unpack(">Q", signature[:8])[0] == SPEC["time_s"]
    assert len(signature) == 72
    assert with_signatures(SPEC["checkpoint"], [SPEC["cosignature"]]).endswith(
        f"{SPEC['cosignature']}\n"
    )


def test_our_bytes_are_those_that_the_specification_gives():
    """Derived here from the specification's words alone."""
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    public = key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(b"example.org/w\n\x04" + public).digest()[:4]
    text = f"example.com/log\n3\n{base64.b64encode(bytes(32)).decode()}\n"
    signature = key.sign(f"cosignature/v1\ntime 1679315147\n{text}".encode())
    blob = key_id + (1679315147).to_bytes(8, "big") + signature
    assert COSIGNER.cosign(TREE.text(), 1679315147) == (
        f"— example.org/w {base64.b64encode(blob).decode()}\n"
    )
    vkey = f"example.org/w+{key_id.hex()}+{base64.b64encode(bytes([4]) + public).decode()}"
    assert str(COSIGNER.key) == vkey


def test_the_log_s_signature_and_the_witness_s_stand_side_by_side_and_each_once():
    line = COSIGNER.cosign(TREE.text(), 7).rstrip("\n")
    note = with_signatures(NOTE, [line, line])
    assert note.count("example.org/w") == 1
    assert split_note(note)[0] == TREE.text()
    assert [(c.key, c.time_s) for c in cosignatures(note, [COSIGNER.key])] == [(COSIGNER.key, 7)]
    assert cosignatures(NOTE, [COSIGNER.key]) == []


def test_a_wrong_cosignature_of_a_known_witness_condemns_the_note():
    line = COSIGNER.cosign(TREE.text(), 7).rstrip("\n")
    forged = COSIGNER.cosign(Checkpoint("example.com/log", 4, bytes(32)).text(), 7).rstrip("\n")
    for wrong in (forged, *changed_times(line)):
        with pytest.raises(NoteError):
            cosignatures(with_signatures(NOTE, [wrong]), [COSIGNER.key])


def changed_times(line):
    prefix, _, encoded = line.rpartition(" ")
    raw = bytearray(base64.b64decode(encoded))
    raw[11] ^= 1  # the time's last byte
    yield f"{prefix} {base64.b64encode(raw).decode()}"
    yield f"{prefix} {base64.b64encode(bytes(raw[:-1])).decode()}"


@given(st.integers(0, 2**63 - 1))
def test_any_time_reads_back(time_s):
    note = with_signatures(NOTE, [COSIGNER.cosign(TREE.text(), time_s).rstrip("\n")])
    assert cosignatures(note, [COSIGNER.key])[0].time_s == time_s


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_a_time_that_no_cosignature_can_hold_is_refused(time_s):
    with pytest.raises(NoteError):
        COSIGNER.cosign(TREE.text(), time_s)


def test_a_proof_carries_the_cosignatures_of_its_checkpoint(tmp_path):
    world = asyncio.run(build_world(tmp_path, [9], payload_every=0))
    note = read_checkpoint(world.directory)
    line = COSIGNER.cosign(split_note(note)[0], 7).rstrip("\n")
    reader = LogReader(world.directory)
    assert "example.org/w" not in prove(reader, 3)
    write_cosigned(world.directory, COSIGNER.key, with_signatures(note, [line]))
    proof = prove(reader, 3)
    assert cosignatures(parse_proof(proof).note, [COSIGNER.key])
    assert verify_proof(proof, reader.entry(3).data, world.key).index == 3
    cosigned_path(world.directory, COSIGNER.key).write_text("damaged")
    assert verify_proof(prove(reader, 3), reader.entry(3).data, world.key).index == 3
