"""Evidence packs for tests: logs that were exported, and ways to take a pack apart and forge it."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from audit.canonical import dumps
from audit.pack import write_pack
from audit.pack_range import Wanted, choose
from audit.pack_zip import write_archive
from audit.reader import LogReader
from tests.audit.worlds import START_US
from weighbridge_verify.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def export(world, first_seq, last_seq, *, since=None, witnesses=()):
    """The bytes of a pack about the decisions numbered [first_seq, last_seq]."""
    wanted = Wanted(
        from_us=START_US + first_seq * 1000,
        to_us=START_US + last_seq * 1000 + 1,
        log_key=world.key,
        witness_keys=witnesses,
        since=since,
    )
    reader, file = LogReader(world.directory), io.BytesIO()
    write_pack(reader, wanted, choose(reader, wanted), file)
    return file.getvalue()


@dataclass(frozen=True)
class Said:
    """What the verifier said."""

    status: int
    text: str

    def lines(self, word):
        return [line[12:] for line in self.text.splitlines() if line.startswith(word)]

    @property
    def problems(self):
        return self.lines("PROBLEM")


def verify(pack, folder, capsys, *words):
    """Run the verifier on the bytes of a pack."""
    path = folder / "pack.zip"
    path.write_bytes(pack)
    capsys.readouterr()
    status = main([str(path), *map(str, words)])
    return Said(status, capsys.readouterr().out)


def members_of(pack):
    """Name to bytes; read by the standard library, not by the code under test."""
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, *, manifest=True):
    """A pack of these members, with a manifest that fits them: a forger's work."""
    members = dict(members)
    if manifest:
        members.pop("manifest.json", None)
        files = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        form = "weighbridge-evidence-pack/1"
        members["manifest.json"] = dumps({"files": files, "format": form})
    file = io.BytesIO()
    write_archive(file, sorted(members.items()))
    return file.getvalue()


def entries_of(bundle):
    found, position = [], 0
    while position < len(bundle):
        length = int.from_bytes(bundle[position : position + 2], "big")
        found.append(bundle[position + 2 : position + 2 + length])
        position += 2 + length
    return found


def bundle_of(entries):
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def report_of(members):
    return json.loads(members["report.json"])


def run(*words, **options):
    """Run the verifier in a process of its own."""
    command = [sys.executable, "-m", "weighbridge_verify", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT / "verifier", capture_output=True, text=True, check=False, **options
    )
