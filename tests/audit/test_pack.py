"""Packs that are as they should be: made from real logs, read by the standalone verifier."""

import ast
import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import weighbridge_verify
from audit.cosignature import Cosigner, with_signatures
from audit.cosigned import write_cosigned
from audit.errors import NotFound, NotYetCheckpointed, ProofError
from audit.keys import Keyring
from audit.merkle import LeafHashes, leaf_hash, range_root
from audit.notary import Notary
from audit.note import split_note
from audit.pack import tiles_needed
from audit.pack_range import Wanted, choose
from audit.publish import read_checkpoint
from audit.reader import LogReader
from audit.record import Erasure, Gap
from audit.tiles import TileBuilder
from tests.audit.packworld import export, members_of, report_of, run, verify
from tests.audit.worlds import (
    ORIGIN,
    START_US,
    World,
    append,
    build_world,
    decision,
    make_keyring,
    uuid,
)
from weighbridge_verify.__main__ import main
from weighbridge_verify.tree import Tree

WITNESS = Cosigner("example.org/w", bytes(32))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return asyncio.run(build_world(tmp_path_factory.mktemp("world"), [7, 300, 293]))


@pytest.fixture(scope="module")
def older_checkpoint(tmp_path_factory):
    """The checkpoint of the same log when it had 307 records."""
    folder = tmp_path_factory.mktemp("older")
    world = asyncio.run(build_world(folder, [7, 300]))
    return read_checkpoint(world.directory)


@pytest.mark.parametrize(("first", "last"), [(1, 600), (1, 1), (256, 257), (300, 310), (600, 600)])
def test_a_pack_verifies_and_says_what_it_holds(world, tmp_path, capsys, first, last):
    said = verify(export(world, first, last), tmp_path, capsys, "--key", world.key)
    assert said.status == 0, said.text
    assert len(said.lines("checked")) == 8
    assert f"records {first - 1} to {last - 1}" in said.text
    assert f"numbers {first} to {last}, {last - first + 1} answers, 0 refused" in said.text
    assert "result      all that was checked holds" in said.text


def test_the_readme_says_which_records_are_counted(world):
    pack = members_of(export(world, 250, 262))
    said = " ".join(pack["README.txt"].decode().split())
    assert sum(name.startswith("tile/entries/") for name in pack) == 2
    assert "Of the records 249 to 261, 0 are of another time" in said
    assert "holds records before and after those, too, because they come in bundles of 256" in said


def test_the_report_counts_what_the_log_holds(world):
    report = report_of(members_of(export(world, 250, 262)))
    assert report["records"] == {"decision": 13}
    assert report["decisions"] == [
        {"model": "income", "version": "1", "arm": "control", "count": 13}
    ]
    assert report["instances"] == {
        "0000000a": {
            "first_seq": 250,
            "last_seq": 262,
            "decisions": 13,
            "refused": 0,
            "missing": [],
        }
    }


def test_the_same_log_and_range_give_the_same_bytes(world, tmp_path):
    copy = world.copy(tmp_path / "copy")
    assert export(world, 3, 500) == export(world, 3, 500) == export(copy, 3, 500)


def test_any_zip_program_opens_it(world, tmp_path):
    pack = export(world, 3, 4)
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert names == sorted(names)
    path = tmp_path / "pack.zip"
    path.write_bytes(pack)
    done = subprocess.run(["unzip", "-t", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_holds_no_secret_and_no_payload(world):
    pack = export(world, 1, 600)
    ring = world.keyring
    for secret in (ring.log_seed, ring.master, ring.unit):
        assert secret not in pack
        assert secret.hex().encode() not in pack
    assert b"the input of" not in pack
    assert b"the output of" not in pack


def test_without_a_key_it_says_that_the_key_came_from_the_pack(world, tmp_path, capsys):
    said = verify(export(world, 1, 9), tmp_path, capsys)
    assert said.status == 0
    assert "came from the pack itself" in said.text
    assert (
        "came from the pack"
        not in verify(export(world, 1, 9), tmp_path, capsys, "--key", world.key).text
    )


def test_what_cannot_be_read_is_named_and_is_no_evidence(world, tmp_path, capsys):
    pack, odd = export(world, 1, 9), tmp_path / "odd"
    odd.write_text("host\n")
    for words, said in (
        (("--key", "bad"), "the keys: 'bad' is no key"),
        (("--key", str(world.key)[:-3] + "***"), "is no key"),
        (("--earlier", odd), f"{odd}: a checkpoint is not origin"),
        (("--earlier", tmp_path / "gone"), f"{tmp_path / 'gone'}: No such file"),
        (("--earlier", tmp_path), f"{tmp_path}: Is a directory"),
    ):
        found = verify(pack, tmp_path, capsys, *words)
        assert (found.status, said in found.text, found.problems) == (2, True, []), found.text
    gone = main([str(tmp_path / "gone.zip"), "--key", str(world.key)])
    assert (gone, "gone.zip: No such file" in capsys.readouterr().out) == (2, True)


def test_the_time_of_the_records_is_said_to_the_microsecond(world, tmp_path, capsys):
    said = verify(export(world, 3, 9), tmp_path, capsys, "--key", world.key)
    since, until = (
        datetime.fromtimestamp(0, UTC) + timedelta(microseconds=START_US + ms * 1000 + one)
        for ms, one in ((3, 0), (9, 1))
    )
    assert f"of {since} to {until}" in said.text


def test_an_earlier_checkpoint_is_shown_to_be_a_prefix(world, older_checkpoint, tmp_path, capsys):
    kept = tmp_path / "kept"
    kept.write_text(older_checkpoint, encoding="utf-8")
    pack = export(world, 590, 600, since=older_checkpoint)
    said = verify(pack, tmp_path, capsys, "--key", world.key, "--earlier", kept)
    assert said.status == 0, said.text
    assert "checkpoints/307 (307 records) is the beginning of this log" in said.text
    assert f"your {kept} (307 records) is the beginning of this log" in said.text
    without = verify(
        export(world, 590, 600), tmp_path, capsys, "--key", world.key, "--earlier", kept
    )
    assert without.status == 1
    assert "ask for a pack with --since-checkpoint" in without.text


@pytest.mark.parametrize("cosigned_size", [600, 307])
def test_cosignatures_go_with_the_pack(world, older_checkpoint, tmp_path, capsys, cosigned_size):
    copy = world.copy(tmp_path / "copy")
    note = older_checkpoint if cosigned_size == 307 else read_checkpoint(copy.directory)
    line = WITNESS.cosign(split_note(note)[0], 1_790_000_000).rstrip("\n")
    write_cosigned(copy.directory, WITNESS.key, with_signatures(note, [line]))
    pack = export(copy, 300, 600, witnesses=[WITNESS.key])
    words = ("--key", world.key, "--witness", WITNESS.key)
    said = verify(pack, tmp_path, capsys, *words)
    assert said.status == 0, said.text
    done = "did not sign this checkpoint" if cosigned_size == 307 else "cosigned at 2026-09-21"
    assert f"witness example.org/w (its key is yours) {done}" in said.text
    assert ("checkpoints/307" in members_of(pack)) == (cosigned_size == 307)
    quorum = verify(pack, tmp_path, capsys, *words, "--quorum", "1")
    assert quorum.status == (1 if cosigned_size == 307 else 0)


def test_a_cosigned_checkpoint_that_covers_the_range_is_preferred(
    world, older_checkpoint, tmp_path
):
    copy = world.copy(tmp_path / "copy")
    line = WITNESS.cosign(split_note(older_checkpoint)[0], 1_790_000_000).rstrip("\n")
    write_cosigned(copy.directory, WITNESS.key, with_signatures(older_checkpoint, [line]))
    assert report_of(members_of(export(copy, 2, 300)))["tree_size"] == 307
    assert report_of(members_of(export(copy, 2, 310)))["tree_size"] == 600


def test_a_fork_and_a_rolled_back_log_are_not_exported(world, older_checkpoint, tmp_path):
    forged = world.keyring.signer(ORIGIN).sign(
        split_note(older_checkpoint)[0].replace("307", "308", 1)
    )
    with pytest.raises(ProofError):
        export(world, 1, 5, since=forged)
    larger = world.keyring.signer(ORIGIN).sign(
        split_note(older_checkpoint)[0].replace("307", "601", 1)
    )
    with pytest.raises(ProofError):
        export(world, 1, 5, since=larger)


def test_no_record_of_that_time_is_a_clear_refusal(world):
    with pytest.raises(NotFound):
        export(world, 1000, 1001)


async def odd_world(folder, events):
    """A closed log of these events."""
    keyring = make_keyring(folder / "keys")
    notary = await Notary.open(folder / "log", keyring, origin=ORIGIN, checkpoint_interval_s=3600)
    for event in events:
        await notary.append(event)
    await notary.close()
    return World(folder / "log", keyring, ())


async def test_numbers_out_of_order_at_the_edges_come_along(tmp_path, capsys):
    times = {1: 1, 2: 9, 3: 2, 4: 3}  # number 2 was written last, and long after
    order = [1, 3, 4, 2]
    world = await odd_world(
        tmp_path, [decision(seq, time_us=START_US + times[seq] * 1000) for seq in order]
    )
    pack = export(world, 2, 3)
    report = report_of(members_of(pack))
    assert (report["first_leaf"], report["end_leaf"]) == (1, 3)
    assert report["instances"]["0000000a"]["missing"] == []
    wide = report_of(members_of(export(world, 1, 3)))
    assert (wide["first_leaf"], wide["end_leaf"]) == (0, 4)
    assert wide["records_outside_the_time"] == 1
    assert verify(export(world, 1, 3), tmp_path, capsys, "--key", world.key).status == 0


async def test_a_hole_is_named_and_a_gap_explains_one(tmp_path, capsys):
    gap = Gap(
        id=uuid(1 << 40),
        time_us=START_US + 4500,
        instance="0000000a",
        first_seq=4,
        last_seq=5,
        reason="the disk was full",
    )
    erased = Erasure(
        id=uuid(2 << 40), time_us=START_US + 4600, unit_ref="ab" * 16, actor="dpo", reason="asked"
    )
    events = [decision(1), decision(3), gap, erased, decision(6), decision(1, instance="0000000b")]
    world = await odd_world(tmp_path, events)
    pack = export(world, 1, 6)
    said = verify(pack, tmp_path, capsys, "--key", world.key)
    assert said.status == 1
    assert said.problems == ["instance 0000000a: 2 to 2 missing, no gap explains it"]
    report = report_of(members_of(pack))
    assert report["gaps"] == [
        {
            "leaf": 2,
            "instance": "0000000a",
            "first_seq": 4,
            "last_seq": 5,
            "reason": "the disk was full",
        }
    ]
    assert report["erasures"] == [{"leaf": 3, "unit_ref": "ab" * 16}]
    assert verify(export(world, 3, 6), tmp_path, capsys, "--key", world.key).status == 0


async def test_a_number_that_is_durable_but_not_signed_is_waited_for(tmp_path):
    keyring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", keyring, origin=ORIGIN, checkpoint_interval_s=3600)
    for seq in (1, 3):
        await append(notary, decision(seq))
    await notary.checkpoint()
    await append(notary, decision(2))
    wanted = Wanted(from_us=START_US, to_us=START_US + 10_000, log_key=keyring.verifier_key(ORIGIN))
    reader = LogReader(tmp_path / "log")
    with pytest.raises(NotYetCheckpointed):
        choose(reader, wanted)
    await notary.checkpoint()
    assert choose(reader, wanted)[:2] == (0, 3)
    await notary.close()


class Synthetic:
    """A pack of a large tree whose leaves are numbers, without a log."""

    def __init__(self, size):
        self.files = {}
        builder = TileBuilder(lambda tile, data: self.files.__setitem__(tile.path(), data))
        self.leaves = []
        for leaf in range(size):
            entry = b"%d" % leaf
            builder.append(entry)
            self.leaves.append(leaf_hash(entry))
        self.files.update({tile.path(): data for tile, data in builder.edge()})

    def tree(self, first, end, earlier):
        size = len(self.leaves)
        names = {tile.path() for tile in tiles_needed(size, first, end, earlier)}
        held = {name: self.files[name] for name in names}
        bundles = range(max(first - 1, 0) // 256, min(end, size - 1) // 256 + 1)
        tree = Tree(held, size, bundles, earlier)
        assert set(tree.names.values()) == names, "both sides mean the same files"
        return tree


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 66000])
def test_tiles_of_trees_of_every_shape_lead_to_the_root(size):
    synthetic = Synthetic(size)
    reader = LeafHashes(synthetic.leaves)
    ends = sorted({1, 2, 256, 257, size // 2 + 1, size} & set(range(1, size + 1)))
    for end in ends:
        for first in {0, end - 1, end // 2}:
            earlier = [n for n in (0, 1, end, size - 1) if n < size]
            tree = synthetic.tree(first, end, earlier)
            tree.check(range_root(reader, 0, size))
            for older in earlier:
                assert tree.root(older) == range_root(reader, 0, older)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_range_of_every_small_tree_leads_to_the_root(size):
    synthetic = Synthetic(size)
    reader = LeafHashes(synthetic.leaves)
    for older in range(size):
        tree = synthetic.tree(0, size, [older])
        tree.check(range_root(reader, 0, size))
        assert tree.root(older) == range_root(reader, 0, older)


def test_the_verifier_is_small_and_needs_nothing_but_cryptography():
    folder = Path(weighbridge_verify.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    assert sum(source.count("\n") for source in sources) < 600
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "cryptography", name


def test_it_runs_as_a_program_and_answers_with_its_status(world, tmp_path):
    path = tmp_path / "pack.zip"
    path.write_bytes(export(world, 1, 9))
    good = run(path, "--key", str(world.key))
    assert (good.returncode, good.stderr) == (0, "")
    assert run(tmp_path / "nothing.zip").returncode == 2
    assert run(path, "--key", "nonsense").returncode == 2
    other = Keyring(bytes(32), bytes(32), bytes(32)).verifier_key(ORIGIN)
    assert run(path, "--key", str(other)).returncode == 1


def test_it_says_in_a_line_what_it_cannot_print_and_ends_quietly_at_a_closed_pipe(world, tmp_path):
    path, strange = tmp_path / "pack.zip", tmp_path / os.fsdecode(b"\xff \xe4\xb8\xad")
    path.write_bytes(export(world, 1, 9))
    words = [sys.executable, "-m", "weighbridge_verify", path, "--key", str(world.key)]
    folder = Path(weighbridge_verify.__file__).parents[1]

    def said(output):
        done = subprocess.run(words, cwd=folder, stdout=output, stderr=subprocess.PIPE, check=False)
        return done.returncode, done.stderr.decode()

    with Path("/dev/full").open("wb") as full:
        status, words_of_it = said(full)
    assert status == 2
    assert words_of_it.startswith("could not write what was found: No space left")
    assert len(words_of_it.splitlines()) == 1
    reads, writes = os.pipe()
    os.close(reads)
    assert said(writes) == (0, "")  # the verdict stands
    os.close(writes)
    ascii_only = run(strange, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ascii_only.returncode, ascii_only.stderr) == (2, "")
    assert "\\udcff \\u4e2d: No such file" in ascii_only.stdout


@pytest.mark.parametrize("quorum", ["0", "-1"])
def test_a_quorum_of_nobody_is_refused_in_words(quorum, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pack.zip", "--quorum", quorum])
    assert ended.value.code == 2
    assert "--quorum must be 1 or more" in capsys.readouterr().err


def test_the_manifest_names_every_file(world):
    members = members_of(export(world, 1, 9))
    manifest = json.loads(members.pop("manifest.json"))
    assert set(manifest["files"]) == set(members)
