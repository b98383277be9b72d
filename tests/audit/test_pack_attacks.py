"""Attacks on an evidence pack, one per test: the standalone verifier finds each of them.

The forger can repack whatever he likes, with a manifest that fits; he does not have the log's key.
"""

import asyncio
import contextlib
import io
import random
import struct
import zipfile

import pytest

from audit.cosignature import Cosigner, with_signatures
from audit.merkle import LeafHashes, leaf_hash, range_root
from audit.note import Checkpoint, Signer, split_note
from audit.pack_zip import write_archive
from audit.publish import read_checkpoint
from audit.tiles import TileBuilder
from tests.audit.packworld import bundle_of, entries_of, export, members_of, packed, verify
from tests.audit.worlds import ORIGIN, build_world
from weighbridge_verify.__main__ import main

BUNDLE, EDGE, ABOVE = "tile/entries/001", "tile/0/002.p/88", "tile/1/000.p/2"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return asyncio.run(build_world(tmp_path_factory.mktemp("world"), [300, 300], payload_every=0))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    return asyncio.run(build_world(tmp_path_factory.mktemp("older"), [300], payload_every=0))


@pytest.fixture(scope="module")
def pack(world):
    return export(world, 300, 310)


@pytest.fixture
def judged(world, tmp_path, capsys):
    """What the verifier says of members that were packed again."""

    def judge(members, *words, key=world.key):
        said = verify(packed(members), tmp_path, capsys, "--key", key, *words)
        assert said.status == 1, said.text
        assert said.problems
        assert "Traceback" not in said.text
        return said

    return judge


def test_the_pack_under_attack_is_a_good_one(world, pack, tmp_path, capsys):
    assert set(members_of(pack)) >= {BUNDLE, EDGE, ABOVE}
    assert verify(packed(members_of(pack)), tmp_path, capsys, "--key", world.key).status == 0


def test_a_flipped_bit_in_a_record(pack, judged):
    members = members_of(pack)
    members[BUNDLE] = members[BUNDLE].replace(b'"income"', b'"incomf"', 1)
    assert BUNDLE in judged(members).problems[0]


def test_a_record_taken_out(pack, judged):
    members = members_of(pack)
    entries = entries_of(members[BUNDLE])
    members[BUNDLE] = bundle_of(entries[:50] + entries[51:])
    assert "256" in judged(members).problems[0]


def test_a_record_put_in_the_place_of_another(pack, judged):
    members = members_of(pack)
    entries = entries_of(members[BUNDLE])
    members[BUNDLE] = bundle_of([*entries[:50], entries[49], *entries[51:]])
    assert BUNDLE in judged(members).problems[0]


def test_two_records_in_the_other_order(pack, judged):
    members = members_of(pack)
    entries = entries_of(members[BUNDLE])
    entries[44], entries[45] = entries[45], entries[44]
    members[BUNDLE] = bundle_of(entries)
    assert BUNDLE in judged(members).problems[0]


def test_a_bundle_cut_short(pack, judged):
    members = members_of(pack)
    members[BUNDLE] = members[BUNDLE][:-7]
    assert "ends within a record" in judged(members).problems[0]


@pytest.mark.parametrize("name", [BUNDLE, EDGE, ABOVE, "checkpoint", "report.json", "keys/log"])
def test_a_file_taken_out(pack, judged, name):
    members = members_of(pack)
    del members[name]
    assert name in judged(members).text


def test_a_bundle_of_another_place_of_the_same_log(world, pack, judged):
    members = members_of(pack)
    members[BUNDLE] = members_of(export(world, 1, 5))["tile/entries/000"]
    assert BUNDLE in judged(members).problems[0]


def test_a_file_put_in(pack, judged):
    members = members_of(pack) | {"tile/0/000": bytes(32 * 256)}
    assert "tile/0/000" in judged(members).problems[0]


def test_an_edge_hash_changed(pack, judged):
    members = members_of(pack)
    members[EDGE] = bytes(32) + members[EDGE][32:]
    judged(members)
    members = members_of(pack)
    members[ABOVE] = members[ABOVE][32:] + members[ABOVE][:32]
    judged(members)


def forged_members(members, key_seed):
    """A whole other log, consistent in itself, signed by a key of the forger's."""
    files = {}
    builder = TileBuilder(lambda tile, data: files.__setitem__(tile.path(), data))
    entries = [b""] * 256 + entries_of(members[BUNDLE])
    entries[300] = entries[300].replace(b'"income"', b'"incomf"', 1)
    for entry in entries + [b"x"] * 88:
        builder.append(entry)
    files.update({tile.path(): data for tile, data in builder.edge()})
    signer = Signer(ORIGIN, key_seed)
    forged = {name: files[name] for name in (BUNDLE, EDGE, ABOVE)}
    root = builder.frontier.root()
    forged["checkpoint"] = signer.sign(Checkpoint(ORIGIN, 600, root).text()).encode()
    return members | forged, signer.verifier_key


def test_a_log_made_anew_with_another_key(pack, judged):
    members, _ = forged_members(members_of(pack), bytes(range(32)))
    assert "lacks the log's signature" in judged(members).problems[0]


def test_a_swapped_key_shows_as_soon_as_the_reviewer_has_his_own(pack, judged, tmp_path, capsys):
    members, key = forged_members(members_of(pack), bytes(range(32)))
    members["keys/log"] = f"{key}\n".encode()
    said = judged(members)
    assert "the pack names another log key than you gave" in said.problems
    alone = verify(packed(members), tmp_path, capsys)
    assert "came from the pack itself" in alone.lines("WARNING")[0]


def test_a_forked_tree_signed_by_the_log_itself(world, pack, older, judged, tmp_path):
    """The operator rewrote history and signed it; who kept a checkpoint sees it."""
    members, _ = forged_members(members_of(pack), world.keyring.log_seed)
    kept = tmp_path / "kept"
    kept.write_text(read_checkpoint(world.directory), encoding="utf-8")
    said = judged(members, "--earlier", kept)
    assert "forked" in said.problems[0]
    members = members_of(export(world, 300, 310, since=read_checkpoint(older.directory)))
    assert "checkpoints/300" in members
    forged, _ = forged_members(members, world.keyring.log_seed)
    assert any("checkpoints/300" in problem for problem in judged(forged).problems)


def test_an_older_checkpoint_replayed(world, older, judged, tmp_path):
    """An old pack instead of the new one: whoever saw the newer tree is told."""
    kept = tmp_path / "kept"
    kept.write_text(read_checkpoint(world.directory), encoding="utf-8")
    said = judged(members_of(export(older, 290, 299)), "--earlier", kept)
    assert "rolled back" in said.problems[0]


def test_an_older_checkpoint_under_newer_tiles(pack, older, judged):
    members = members_of(pack) | {"checkpoint": read_checkpoint(older.directory).encode()}
    judged(members)


def test_a_range_that_is_said_to_be_longer_than_it_is(pack, judged):
    """The record before, or after, is of the time that the report claims to cover."""
    members = members_of(pack)
    report = members["report.json"]
    for old, new in (
        (b'"from_us":1790000000300000', b'"from_us":1790000000299000'),
        (b'"to_us":1790000000310001', b'"to_us":1790000000311001'),
    ):
        assert old in report
        said = judged(members | {"report.json": report.replace(old, new)})
        assert "it is of the time that the report names, but not in its range" in said.text


def test_a_checkpoint_whose_size_or_root_was_changed(pack, judged):
    note = members_of(pack)["checkpoint"]
    for changed in (note.replace(b"\n600\n", b"\n601\n"), note.replace(b"=\n\n", b"A=\n\n", 1)):
        judged(members_of(pack) | {"checkpoint": changed})


def test_a_checkpoint_of_another_log_of_the_same_key(world, pack, judged):
    text = split_note(members_of(pack)["checkpoint"].decode())[0]
    other = Signer("example.com/other", world.keyring.log_seed)
    note = other.sign(text.replace(ORIGIN, "example.com/other"))
    judged(members_of(pack) | {"checkpoint": note.encode()})


def test_a_forged_cosignature(world, pack, judged):
    witness, forger = Cosigner("example.org/w", bytes(32)), Cosigner("example.org/w", b"f" * 32)
    note = members_of(pack)["checkpoint"].decode()
    text = split_note(note)[0]
    elsewhere = witness.cosign(text.replace("600", "601"), 7).rstrip("\n")
    wrong = with_signatures(note, [elsewhere])
    said = judged(members_of(pack) | {"checkpoint": wrong.encode()}, "--witness", witness.key)
    assert "the signature of example.org/w is wrong" in said.problems
    strange = with_signatures(note, [forger.cosign(text, 7).rstrip("\n")])
    members = members_of(pack) | {"checkpoint": strange.encode()}
    said = judged(members, "--witness", witness.key, "--quorum", 1)
    assert "0 of your witnesses cosigned, you ask for 1" in said.problems
    assert "unknown key" in said.lines("NOT CHECKED")[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"count":11', b'"count":12'),
        (b'"from_us":179', b'"from_us":178'),
        (b'"format":"weighbridge-evidence-report/1"', b'"format":"weighbridge-evidence-report/2"'),
        (b'"last_seq":310', b'"last_seq":311'),
        (b'"first_seq":300', b'"first_seq":301'),
        (b'"refused":0', b'"refused":1'),
        (b'"erasures":[]', b'"erasures":[{"leaf":300,"unit_ref":"00"}]'),
        (b'"first_leaf":299', b'"first_leaf":300'),
        (b'"end_leaf":310', b'"end_leaf":99999999'),
        (b'"end_leaf":310', b'"end_leaf":9007199254740991'),
        (b'"tree_size":600', b'"tree_size":601'),
        (b'"decision":11', b'"decision":11,"x":1.5'),
        (b"{", b"[" * 40000),
    ],
)
def test_a_report_that_says_something_else(pack, judged, old, new):
    members = members_of(pack)
    assert old in members["report.json"]
    members["report.json"] = members["report.json"].replace(old, new, 1)
    assert any("report" in problem for problem in judged(members).problems)


def test_a_record_that_is_not_canonical_though_it_was_signed(tmp_path, capsys):
    """The operator's own fault: such a record is named."""
    entry = b'{"id":"x","schema":1,"time_us":5, "type":"decision"}'
    tree = Checkpoint(ORIGIN, 1, range_root(LeafHashes([leaf_hash(entry)]), 0, 1))
    signer = Signer(ORIGIN, bytes(32))
    report = (
        b'{"decisions":[],"end_leaf":1,"erasures":[],"first_leaf":0,'
        b'"format":"weighbridge-evidence-report/1","from_us":0,"gaps":[],"instances":{},'
        b'"origin":"example.com/weighbridge","records":{},"records_outside_the_time":1,'
        b'"to_us":9,"tree_size":1}'
    )
    members = {
        "README.txt": b"",
        "checkpoint": signer.sign(tree.text()).encode(),
        "keys/log": str(signer.verifier_key).encode(),
        "keys/witnesses": b"",
        "report.json": report,
        "tile/entries/000.p/1": bundle_of([entry]),
    }
    said = verify(packed(members), tmp_path, capsys, "--key", signer.verifier_key)
    assert said.problems == ["record 0: it is not a canonical JSON object"]


# --- the archive itself -----------------------------------------------------------------------


def unreadable(data, folder, capsys, *words):
    said = verify(data, folder, capsys, *words)
    assert said.status == 2, said.text
    assert said.text.startswith("could not check")
    assert "Traceback" not in said.text


@pytest.mark.parametrize("length", [0, 1, 21, 22, 40, 500, -1])
def test_a_truncated_archive(pack, tmp_path, capsys, length):
    unreadable(pack[:length], tmp_path, capsys)


def test_bytes_behind_and_before_the_archive(pack, tmp_path, capsys):
    unreadable(pack + b"\0", tmp_path, capsys)
    unreadable(b"#!/bin/sh\n" + pack, tmp_path, capsys)


def zipped(*members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "data",
    [
        zipped(("a", bytes(10 << 20)), compression=zipfile.ZIP_DEFLATED),
        zipped(("../../etc/passwd", b"x")),
        zipped(("/etc/passwd", b"x")),
        zipped(("checkpoint", b"x")),
        zipped(),
        b"PK\x03\x04" + b"\xff" * 60,
        b"\x00" * 100,
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, 1, 0) + b"a",
    ],
    ids=range(8),
)
def test_a_hostile_archive(tmp_path, capsys, data):
    unreadable(data, tmp_path, capsys)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../b", "x\\y", "a b", "\x1b[2Jx", "a/"])
def test_a_name_that_leads_elsewhere(pack, tmp_path, capsys, name):
    unreadable(packed(members_of(pack) | {name: b"x"}), tmp_path, capsys)


def test_a_name_that_is_there_twice(pack, tmp_path, capsys):
    members = sorted([*members_of(pack).items(), ("checkpoint", b"another")])
    file = io.BytesIO()
    write_archive(file, members)
    unreadable(file.getvalue(), tmp_path, capsys)


@pytest.mark.parametrize(
    "name", ["checkpoint", "keys/log", "keys/witnesses", "report.json", EDGE, BUNDLE]
)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"\n" * 100_000,
        b"a+b+c\n" * 50_000,
        b"{" * 100_000,
        b"[]",
        b"null",
        b"\xe2\x80\x94 x AAAAAAA=\n" * 5000,
        b"a\n" + b"9" * 5000 + b"\nAAAA\n\n\xe2\x80\x94 x AAAAAAA=\n",
    ],
    ids=range(9),
)
def test_malformed_members_are_sentences_not_tracebacks(pack, judged, name, data):
    if (name, data) == ("keys/witnesses", b""):
        data = b"\n"  # empty is what it holds: a line that is no key
    judged(members_of(pack) | {name: data})


def test_text_from_the_pack_cannot_write_to_the_terminal(pack, judged):
    note = members_of(pack)["checkpoint"].decode()
    evil = with_signatures(note, ["— \x7fevil\x9b2J AAAAAAA="]).encode()
    said = judged(members_of(pack) | {"checkpoint": evil, "zzz": b""})
    assert all(line.isprintable() for line in said.text.splitlines())


def test_two_thousand_random_single_byte_changes_are_all_found(world, tmp_path):
    """No byte of a pack is without meaning: each change is found, whatever it is."""
    pack = export(world, 598, 600)
    path = tmp_path / "pack.zip"
    dice = random.Random(20_261_122)
    for _ in range(2000):
        place, change = dice.randrange(len(pack)), dice.randrange(1, 256)
        changed = bytearray(pack)
        changed[place] ^= change
        path.write_bytes(changed)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = main([str(path), "--key", str(world.key)])
        assert status in (1, 2), f"byte {place} ^ {change}"
        assert "provoked" not in said.getvalue(), f"byte {place} ^ {change}"


def test_every_fifth_byte_of_what_is_not_a_record_counts(world, tmp_path):
    """The headers, the notes, the keys, the manifest, the report: one bit each."""
    pack = export(world, 600, 600)
    members = members_of(pack)
    bundle = next(name for name in members if name.startswith("tile/entries"))
    start = pack.index(members[bundle])
    path = tmp_path / "pack.zip"
    for place in [*range(0, start, 5), *range(start + len(members[bundle]), len(pack), 5)]:
        changed = bytearray(pack)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with contextlib.redirect_stdout(io.StringIO()):
            status = main([str(path), "--key", str(world.key)])
        assert status in (1, 2), f"byte {place}"
