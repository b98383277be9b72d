"""fsck, prune and verify as commands, without a gateway: what they print, and how they exit."""

import asyncio
from pathlib import Path

import orjson
import pytest
import server as servers

from audit.reader import LogReader
from tests.audit.pruneworld import living
from tests.audit.test_pruning import old_and_new
from tests.audit.worlds import ORIGIN, make_keyring


@pytest.fixture
def stopped(tmp_path: Path) -> servers.Server:
    """A home with keys and a log of 1,103 records, and no gateway."""
    ring = make_keyring(tmp_path / "keys")

    async def fill() -> None:
        async with living(tmp_path, ring) as log:
            await old_and_new(log)

    asyncio.run(fill())
    settings = {"WEIGHBRIDGE_ORIGIN": ORIGIN, "WEIGHBRIDGE_RETENTION": "1h..,digits=10y.."}
    return servers.stopped(tmp_path, **settings)


def test_fsck_explains_and_repairs_derived_files_only(stopped: servers.Server) -> None:
    log = stopped.home / "log"
    clean = stopped.cli("audit", "fsck", "--all")
    assert (clean.returncode, "result     clean" in clean.stdout) == (0, True), clean.stdout
    assert "fine       lock: free" in clean.stdout
    assert "1103 leaves read; as they must be: " in clean.stdout
    tile, last = log / "tile" / "0" / "000", max((log / "wal").glob("*.wal"))
    whole, segment = tile.read_bytes(), last.read_bytes()
    tile.write_bytes(b"\0" * len(whole))
    last.write_bytes(segment + b"\xf5WB\xfe torn")
    found = stopped.cli("audit", "fsck")
    assert (found.returncode, "result     damage" in found.stdout) == (2, True), found.stdout
    assert "to do: stop the server and run: weighbridge audit fsck --repair" in found.stdout
    mended = stopped.cli("audit", "fsck", "--repair", "--json")
    said = orjson.loads(mended.stdout)
    assert (mended.returncode, said["status"], said["repaired"]) == (1, 1, ["tile/0/000"])
    assert [one["level"] for one in said["seen"]] == ["mend"]
    assert "torn tail" in said["seen"][0]["what"]
    assert tile.read_bytes() == whole
    assert last.read_bytes() == segment + b"\xf5WB\xfe torn"  # the truth is not its business
    assert stopped.cli("audit", "fsck", "--log", str(log / "no")).returncode == 2


def test_prune_says_what_would_go_and_does_it(stopped: servers.Server) -> None:
    log = LogReader(stopped.home / "log")
    early = log.checkpoint()
    (stopped.home / "early").write_text(early)
    parquet = stopped.cli("audit", "parquet")
    assert parquet.returncode == 0, parquet.stderr
    assert stopped.cli("audit", "prune").returncode == 2  # nobody said why
    plan = stopped.cli("audit", "prune", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "would prune the leaves 0 to 1023" in plan.stdout, plan.stdout
    assert "every floor is passed" in plan.stdout
    assert log.first() == 0
    done = stopped.cli("audit", "prune", "--reason", "its time", "--actor", "me")
    assert (done.returncode, "begins at leaf 1024" in done.stdout) == (0, True), done.stderr
    again = stopped.cli("audit", "prune", "--reason", "its time")
    assert (again.returncode, "nothing may be pruned now" in again.stderr) == (2, True)
    verified = stopped.cli("audit", "verify", "--json", "--earlier", str(stopped.home / "early"))
    said = orjson.loads(verified.stdout)
    assert (verified.returncode, said["ok"], said["counts"]["pruned leaves"]) == (0, True, 1024)
    since = stopped.cli(
        "audit", "verify", "--complete", "--since", str(stopped.home / "early"), "--json"
    )
    counted = orjson.loads(since.stdout)
    assert counted["ok"], counted["problems"]
    assert counted["from_leaf"] == 1103
    assert counted["records"]["pruned"] == 1
    assert stopped.cli("audit", "verify", "--since", str(stopped.home / "early")).returncode == 2
    dropped = stopped.cli("audit", "parquet", "--drop-pruned")
    assert (dropped.returncode, "pruned leaves from" in dropped.stdout) == (0, True), dropped.stderr
    checked = stopped.cli("audit", "parquet", "--check")
    assert checked.returncode == 0, checked.stdout
    copied = checked.stdout.partition(" are in ")[0]
    assert 768 < int(copied.removeprefix("the leaves ").partition(" ")[0]) <= 1024
    asked = stopped.cli("audit", "query", "select min(leaf) first from decision")
    assert (asked.returncode, f"note: {copied} come from " in asked.stderr) == (0, True)
    assert "leaves pruned, in no table" in asked.stderr
    assert stopped.cli("audit", "fsck").returncode == 0
