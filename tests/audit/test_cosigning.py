"""The log's side: witnesses are asked beside everything else, and what they answer is checked."""

import asyncio
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from audit.cosignature import Cosigner, CosignerKey, cosignatures
from audit.cosigned import cosigned_path, read_cosigned
from audit.cosigning import Cosigning, WitnessAddress
from audit.notary import Notary
from audit.note import open_checkpoint
from audit.publish import read_checkpoint
from audit.verify import verify_log
from tests.audit.worlds import ORIGIN, World, append, build_world, decision, make_keyring
from tests.services.witnesses import running

OTHER = Cosigner("example.org/other", b"o" * 32)


def until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


async def until_async(condition):
    await asyncio.to_thread(until, condition)


@pytest.fixture
def world(tmp_path):
    return asyncio.run(build_world(tmp_path / "world", [5, 300], payload_every=0))


def asking(world, *addresses, timeout_s=2.0):
    return Cosigning(world.directory, world.key, addresses, timeout_s=timeout_s)


def size_of(world, note):
    return open_checkpoint(note, world.key).size


async def test_each_new_checkpoint_of_a_living_log_is_cosigned(tmp_path):
    keyring = make_keyring(tmp_path / "keys")
    key = keyring.verifier_key(ORIGIN)
    directory = tmp_path / "log"
    with running(tmp_path / "w", key) as witness:
        notary = await Notary.open(directory, keyring, origin=ORIGIN, checkpoint_interval_s=0.05)
        cosigning = Cosigning(directory, key, [witness.address])
        notary.checkpoints.on_signed = cosigning.wake
        cosigning.start()
        for seq in range(1, 301):
            await append(notary, decision(seq))
            if seq % 100 == 0:
                (state,) = cosigning.states()
                await until_async(lambda: cosigning.states()[0].cosigned == notary.size)
        await notary.close()
        cosigning.close()
    (note,) = read_cosigned(directory)
    assert open_checkpoint(note, key).size == 300
    assert cosignatures(note, [witness.key])
    found = verify_log(directory, key, witnesses=[witness.key])
    assert found.ok, found.text()
    assert found.counts["witnesses that cosigned"] == 1
    assert "10 what witnesses cosigned is a prefix of this log" in found.steps
    assert state.failure is None


def test_a_witness_that_comes_later_or_forgets_nothing_is_asked_from_what_it_knows(world, tmp_path):
    with running(tmp_path / "w", world.key) as witness:
        cosigning = asking(world, witness.address)
        cosigning.start()
        until(lambda: cosigning.states()[0].cosigned == 305)
        cosigning.close()
        # The log's own memory is lost: it asks from zero, and learns the size by a 409.
        cosigned_path(world.directory, witness.key).unlink()
        again = asking(world, witness.address)
        again.start()
        until(lambda: again.states()[0].cosigned == 305)
        again.close()


def test_a_log_and_its_memory_rolled_back_together_are_an_alarm_at_the_start(world, tmp_path):
    older = asyncio.run(build_world(tmp_path / "older", [5], payload_every=0))
    with running(tmp_path / "w", world.key) as witness:
        for log, size in ((older, 5), (world, 305)):
            cosigning = asking(log, witness.address)
            cosigning.start()
            until(lambda c=cosigning, size=size: c.states()[0].cosigned == size)
            cosigning.close()
        restored = asking(older, witness.address)
        restored.start()
        until(lambda: restored.states()[0].alarm)
        restored.close()


def test_two_witnesses_sign_one_note(world, tmp_path):
    with (
        running(tmp_path / "a", world.key, name="example.org/a") as one,
        running(tmp_path / "b", world.key, name="example.org/b") as two,
    ):
        cosigning = asking(world, one.address, two.address)
        cosigning.start()
        until(lambda: all(state.cosigned == 305 for state in cosigning.states()))
        cosigning.close()
    (note,) = read_cosigned(world.directory)
    assert {c.key for c in cosignatures(note, [one.key, two.key])} == {one.key, two.key}


def test_a_witness_that_is_away_is_asked_again_and_others_are_not_held_up(world, tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        away = WitnessAddress(f"http://127.0.0.1:{silent.getsockname()[1]}", OTHER.key)
        with running(tmp_path / "w", world.key) as witness:
            cosigning = asking(world, away, witness.address, timeout_s=0.2)
            cosigning.start()
            until(lambda: cosigning.states()[1].cosigned == 305)
            until(lambda: cosigning.states()[0].failure is not None)
            begun = time.monotonic()
            cosigning.close()
            assert time.monotonic() - begun < 0.1, "closing waits for nobody"
    assert "could not be reached" in cosigning.states()[0].failure
    assert not cosigning.states()[0].alarm


def test_a_fork_is_an_alarm(world, tmp_path, caplog):
    """The witness saw another tree under this log's name: that is not the network's fault."""
    other = asyncio.run(build_world(tmp_path / "other", [9], payload_every=0))
    other_events = asyncio.run(forked_world(tmp_path / "forked"))
    assert other.key == world.key == other_events.key
    with running(tmp_path / "w", world.key) as witness:
        first = asking(other_events, witness.address)
        first.start()
        until(lambda: first.states()[0].cosigned == 20)
        first.close()
        caplog.set_level(logging.ERROR)
        for victim in (other, world):  # one is shorter, one longer than what was cosigned
            second = asking(victim, witness.address)
            second.start()
            until(lambda second=second: second.states()[0].alarm)
            second.close()
            assert "rolled back or forked" in second.states()[0].failure
            assert read_cosigned(victim.directory) == []
    assert "rolled back or forked" in caplog.text


async def forked_world(folder):
    keyring = make_keyring(folder / "keys")
    notary = await Notary.open(folder / "log", keyring, origin=ORIGIN, checkpoint_interval_s=3600)
    for seq in range(1, 21):
        await append(notary, decision(seq, label="other"))
    await notary.close()
    return World(folder / "log", keyring, ())


class Liar(BaseHTTPRequestHandler):
    """Answers whatever the test says."""

    answer = (200, "text/plain", b"")

    def do_POST(self):
        status, kind, body = self.answer
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def liar():
    server = HTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield WitnessAddress(f"http://127.0.0.1:{server.server_port}", OTHER.key)
    server.shutdown()
    server.server_close()
    thread.join()


STRANGER = Cosigner("example.org/stranger", b"s" * 32)
NAMESAKE = Cosigner("example.org/other", b"n" * 32)
TEXT = "example.com/weighbridge\n1\n" + "A" * 43 + "=\n"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/plain", b""),
        (200, "text/plain", b"\xff\xfe" * 100),
        (200, "text/plain", STRANGER.cosign(TEXT, 7).encode()),
        (200, "text/plain", NAMESAKE.cosign(TEXT, 7).encode()),
        (200, "text/plain", OTHER.cosign(TEXT, 7).encode()),  # ours, over another tree
        (200, "text/plain", b"\xe2\x80\x94 example.org/other AAAA\n"),
        (200, "text/plain", b"x" * 1_000_000),
        (302, "text/plain", b""),
        (404, "text/plain", b""),
        (409, "text/plain", b"5\n"),
        (409, "text/x.tlog.size", b"-5\n"),
        (409, "text/x.tlog.size", b"9" * 400),
        (500, "text/html", b"<h1>no</h1>"),
    ],
    ids=range(13),
)
def test_an_answer_that_is_no_cosignature_is_kept_nowhere(world, liar, status, kind, body):
    Liar.answer = (status, kind, body)
    cosigning = asking(world, liar)
    cosigning.start()
    until(lambda: cosigning.states()[0].failure is not None)
    cosigning.close()
    assert read_cosigned(world.directory) == []
    assert cosigning.states()[0].cosigned == 0
    assert not cosigning.states()[0].alarm
    assert verify_log(world.directory, world.key).ok


def test_a_forged_or_rolled_back_log_shows_in_what_was_cosigned(world, tmp_path):
    with running(tmp_path / "w", world.key) as witness:
        cosigning = asking(world, witness.address)
        cosigning.start()
        until(lambda: cosigning.states()[0].cosigned == 305)
        cosigning.close()
    shorter = asyncio.run(build_world(tmp_path / "shorter", [9], payload_every=0))
    path = cosigned_path(shorter.directory, witness.key)
    path.parent.mkdir()
    path.write_bytes(cosigned_path(world.directory, witness.key).read_bytes())
    found = verify_log(shorter.directory, shorter.key, witnesses=[witness.key])
    assert any(p.step == 10 and "rolled back" in p.message for p in found.problems)
    path.write_text(read_checkpoint(world.directory).replace("305", "304"), encoding="utf-8")
    found = verify_log(shorter.directory, shorter.key)
    assert any(p.step == 10 for p in found.problems)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("", str(OTHER.key)),
        ("ftp://x", str(OTHER.key)),
        ("http://", str(OTHER.key)),
        ("http://x:y", str(OTHER.key)),
        ("http://x?y=1", str(OTHER.key)),
        ("http://x", ""),
        ("http://x", "nonsense"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(url, key):
    with pytest.raises(ValueError, match="could not use the witness"):
        WitnessAddress.parse(url, key)


def test_a_log_s_key_is_no_witness_s(world):
    with pytest.raises(ValueError, match="could not use the witness"):
        WitnessAddress.parse("http://x", str(world.key))
    assert WitnessAddress.parse("http://x/w1/", str(OTHER.key)).url == "http://x/w1"
    assert isinstance(WitnessAddress.parse("http://x", str(OTHER.key)).key, CosignerKey)
