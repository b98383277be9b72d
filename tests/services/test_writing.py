"""Writing from a shell: under the lock or through the socket, whichever opens first."""

import asyncio
import os
import socket

import pytest

from audit.errors import EventInvalid, LogLocked, LogUnavailable, NotPrunable
from audit.keys import Keyring
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import Erasure, KeyRotation, LegalHold, Override, Pruned
from audit.socket_link import serve
from audit.writerlock import take_lock
from services import cli_erase, cli_override, cli_prune, cli_rotate, writing
from services.ledger import LocalLedger
from services.settings import Settings
from services.writing import shell_user, write
from tests.audit.worlds import decision
from tests.services.test_accessed import audit

UNIT = "ab" * 16
_LONG_AGO_US = 1_600_000_000_000_000
DEEDS = {
    "erase": lambda: cli_erase.erase("why", unit_ref=UNIT),
    "hold": lambda: cli_erase.hold("why", unit_ref=UNIT),
    "release": lambda: cli_erase.release("why", unit_ref=UNIT),
    "override": lambda: cli_override.override(decision(1).id, "<=50K", "why"),
    "prune": lambda: cli_prune.prune(reason="why"),
    "rotate-key": lambda: cli_rotate.rotate_key("why"),
}
RECORDED = {
    "erase": Erasure,
    "hold": LegalHold,
    "release": LegalHold,
    "override": Override,
    "prune": Pruned,
    "rotate-key": KeyRotation,
}


@pytest.fixture
async def home(tmp_path, monkeypatch):
    """The settings of a home whose log holds what every deed needs; no gateway runs."""
    chosen = Settings(home=tmp_path / "home", retention="1h..")
    keyring = Keyring.load_or_create(chosen.keys_dir)
    small = {"origin": chosen.origin, "segment_bytes": 60_000}
    notary = await Notary.open(chosen.log_dir, keyring, **small)
    for seq in range(1, 300):
        await notary.append(decision(seq, time_us=_LONG_AGO_US + seq))
    await notary.close()
    for module in (cli_erase, cli_override, cli_prune, cli_rotate):
        monkeypatch.setattr(module, "settings", lambda: chosen)
    return chosen


def recorded(chosen, kind):
    entries = LogReader(chosen.log_dir).entries()
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


async def nothing():
    raise AssertionError("this way must not be taken")


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_lock_that_is_held_for_a_moment_is_waited_for(home, deed):
    if deed == "release":
        await asyncio.to_thread(DEEDS["hold"])
    before = len(recorded(home, RECORDED[deed]))
    lock = take_lock(home.log_dir)
    doing = asyncio.create_task(asyncio.to_thread(DEEDS[deed]))
    await asyncio.sleep(0.2)
    assert not doing.done()
    lock.close()
    async with asyncio.timeout(30):
        await doing
    assert len(recorded(home, RECORDED[deed])) == before + 1


def test_pruning_without_a_retention_says_so_and_changes_nothing(home, monkeypatch):
    chosen = home.model_copy(update={"retention": ""})
    monkeypatch.setattr(cli_prune, "settings", lambda: chosen)
    before = sorted(path.name for path in (home.log_dir / "wal").iterdir())
    for ask in ({"dry_run": True}, {"reason": "why"}, {"reason": "why", "roll": True}):
        with pytest.raises(NotPrunable, match=r"no retention is set.*WEIGHBRIDGE_RETENTION"):
            cli_prune.prune(**ask)
    assert sorted(path.name for path in (home.log_dir / "wal").iterdir()) == before


def test_a_pruned_decision_that_is_not_found_is_said_to_be_pruned_perhaps(home):
    gone, left = ("find", "--decision", decision(1).id), ("find", "--decision", decision(299).id)
    assert "were pruned" not in audit(home, *gone).stderr
    cli_prune.prune(reason="why")
    for form in ([], ["--json"]):
        done = audit(home, *gone, *form)
        assert done.returncode == 0
        said = " ".join(done.stderr.split())
        assert "the leaves before 256 were pruned" in said
        assert "it may have been among them" in said
        assert "were pruned" not in audit(home, *left, *form).stderr


@pytest.mark.parametrize("left", ["nothing", "a stale socket", "a socket that is silent"])
async def test_a_writer_without_a_socket_is_refused_in_words(home, monkeypatch, left):
    monkeypatch.setattr(writing, "_WITHIN_S", 0.3)
    home.run_dir.mkdir(parents=True)
    path = home.run_dir / "notary.sock"
    lock = take_lock(home.log_dir)
    listening = socket.socket(socket.AF_UNIX)
    if left != "nothing":
        listening.bind(str(path))
    if left == "a socket that is silent":
        listening.listen()
    why = "offers no socket at" if left == "nothing" else "does not answer at"
    async with asyncio.timeout(5):
        with pytest.raises(LogUnavailable, match=f"{why} .*nothing was changed"):
            await asyncio.to_thread(DEEDS["hold"])
    listening.close()
    lock.close()
    assert recorded(home, LegalHold) == []


async def test_a_gateway_that_starts_waits_for_a_command_to_end(home, monkeypatch):
    lock = take_lock(home.log_dir)
    ledger = LocalLedger(home)
    opening = asyncio.create_task(ledger.open())
    await asyncio.sleep(0.2)
    assert not opening.done()
    lock.close()
    await opening
    monkeypatch.setattr(writing, "_WITHIN_S", 0.2)
    with pytest.raises(LogLocked, match="another process is its writer"):
        await LocalLedger(home).open()
    await ledger.close()


async def test_a_gateway_that_starts_meanwhile_is_asked(home):
    notary = await Notary.open(home.log_dir, Keyring.load(home.keys_dir), origin=home.origin)
    appended = asyncio.create_task(
        write(
            home,
            here=nothing,
            there=lambda client: client.append(decision(400), durability="strict"),
            answer_s=10,
        )
    )
    await asyncio.sleep(0.2)
    home.run_dir.mkdir(parents=True)
    server = await serve(notary, home.run_dir / "notary.sock")
    assert (await appended).index == notary.size - 1
    await server.close()
    await notary.close()


@pytest.mark.parametrize("again", [False, True])
async def test_what_was_sent_is_sent_again_only_where_that_does_no_harm(home, again):
    notary = await Notary.open(home.log_dir, Keyring.load(home.keys_dir), origin=home.origin)
    home.run_dir.mkdir(parents=True)
    server = await serve(notary, home.run_dir / "notary.sock")
    asked = []

    async def there(client):
        asked.append(client.connected)
        if len(asked) < 3:
            raise LogUnavailable("no answer in time")
        return "done"

    doing = write(home, here=nothing, there=there, answer_s=10, again=again)
    if again:
        assert await doing == "done"
    else:
        with pytest.raises(LogUnavailable, match="no answer"):
            await doing
    assert asked == [True] * (3 if again else 1)
    await server.close()
    await notary.close()


async def test_a_refusal_of_what_was_asked_is_told_at_once(home):
    async def here():
        raise EventInvalid("no")

    with pytest.raises(EventInvalid):
        await write(home, here=here, there=lambda _: nothing(), answer_s=10)


def test_a_user_that_the_system_has_no_name_for_has_a_number(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert shell_user() == f"uid {os.getuid()}"
