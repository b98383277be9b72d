"""One log for gateways of several processes and machines: real processes, TLS and kills."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import notaries
import pytest
import server as servers

from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import Decision, ModelRegistered
from audit.seals import Seals
from tests.e2e.conftest import INCOME


def predict(gateway: servers.Server, unit: str, timeout_s: float = 30) -> httpx.Response:
    return httpx.post(
        f"{gateway.http}/v1/models/income:predict",
        json={"instances": [INCOME]},
        headers={"x-weighbridge-unit": unit},
        timeout=timeout_s,
    )


def decisions(home: Path) -> list[Decision]:
    entries = LogReader(home / "log").entries()
    return [entry.event for entry in entries if isinstance(entry.event, Decision)]


def until(found, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return False


class Load:
    """Callers of some gateways, from threads, until it is told to stop."""

    def __init__(self, gateways: list[servers.Server], per_gateway: int = 4) -> None:
        self.answered: list[tuple[str, str]] = []
        self.refused: list[tuple[int, str | None, float]] = []
        self._stop = threading.Event()
        count = len(gateways) * per_gateway
        self._pool = ThreadPoolExecutor(count)
        self._runs = [
            self._pool.submit(self._call, gateways[n % len(gateways)], n) for n in range(count)
        ]

    def _call(self, gateway: servers.Server, caller: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            began = time.monotonic()
            reply = predict(gateway, f"unit {caller} {number}")
            if reply.status_code == 200:
                head = reply.headers
                self.answered.append(
                    (head["x-weighbridge-decision"], head["x-weighbridge-receipt"])
                )
            else:
                took = time.monotonic() - began
                self.refused.append((reply.status_code, reply.headers.get("retry-after"), took))
                time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()
        for run in self._runs:
            run.result()
        self._pool.shutdown()


@pytest.fixture(scope="module")
def pair(trained_home, tmp_path_factory):
    """A notary, and two gateways that have neither its disk nor its keys."""
    folder = tmp_path_factory.mktemp("pair")
    with (
        notaries.notary(folder / "notary", WEIGHBRIDGE_PAYLOADS="all") as notary,
        notaries.gateway(
            folder / "one", trained_home, **notary.gateway_settings("one"),
            WEIGHBRIDGE_PAYLOADS="all", WEIGHBRIDGE_NOTARY_WAIT_MS="700",
        ) as one,
        notaries.gateway(
            folder / "two", trained_home, **notary.gateway_settings("two"),
            WEIGHBRIDGE_NOTARY_WAIT_MS="700",
        ) as two,
    ):  # fmt: skip
        yield notary, one, two


def test_two_gateways_share_one_log_and_hold_no_key(pair) -> None:
    notary, one, two = pair
    found = [predict(gateway, unit) for gateway in (one, two) for unit in ("alice", "bob")]
    assert [reply.status_code for reply in found] == [200] * 4
    leaves = [int(reply.headers["x-weighbridge-receipt"].partition("#")[2]) for reply in found]
    assert sorted(leaves) == leaves
    for gateway in (one, two):
        assert not (gateway.home / "keys").exists()
        assert not (gateway.home / "log").exists()
        ready = httpx.get(f"{gateway.http}/v2/health/ready").json()
        assert ready["notary"] == "connected"
    written = {event.id: event for event in decisions(notary.home)}
    mine = [written[reply.headers["x-weighbridge-decision"]] for reply in found]
    assert mine[0].unit_ref == mine[2].unit_ref != mine[1].unit_ref  # one unit, one reference
    assert len({event.instance for event in mine}) == 2
    ring = Keyring.load(notary.home / "keys")
    seals = Seals(notary.home / "log", ring)
    assert all(seals.secret(event) is not None for event in mine)
    reader = LogReader(notary.home / "log")
    assert reader.payload(ring, mine[0].id, "input") is not None
    registered = [e.event for e in reader.entries() if isinstance(e.event, ModelRegistered)]
    assert len(registered) == 2  # each version once, whichever gateway came first
    assert notary.cli("audit", "show", mine[3].id).returncode == 0
    assert notary.counted()["instances"] == 2
    checked = notary.cli("notary", "--check")
    assert (checked.returncode, "all is well" in checked.stderr) == (0, True), checked.stderr


def test_outcomes_are_counted_once_whichever_gateway_hears_of_them(pair) -> None:
    _, one, two = pair
    outcome = {"event_id": "sale 1", "unit": "alice", "metric": "sold", "value": 1.5}
    answers = [httpx.post(f"{g.http}/v1/outcomes", json=outcome).json() for g in (one, two)]
    assert [answer["recorded"] for answer in answers] == [1, 0]
    assert answers[0]["leaves"] == answers[1]["leaves"]
    conflict = httpx.post(f"{two.http}/v1/outcomes", json=outcome | {"value": 2})
    assert (conflict.status_code, "was used before" in conflict.text) == (409, True)
    wrong = httpx.post(f"{two.http}/v1/outcomes", json={"value": 2})
    assert wrong.status_code == 400


def test_an_erasure_through_one_gateway_holds_for_the_other(pair) -> None:
    notary, one, two = pair
    before = [predict(gateway, "carol") for gateway in (one, two)]
    ids = [reply.headers["x-weighbridge-decision"] for reply in before]
    body = {"unit": "carol", "actor": "officer", "reason": "asked"}
    held = httpx.post(f"{one.http}/v1/audit/holds", json=body)
    assert held.status_code == 200, held.text
    refused = httpx.post(f"{two.http}/v1/audit/erasures", json=body)
    assert (refused.status_code, "legal hold" in refused.text) == (409, True)
    assert httpx.post(f"{two.http}/v1/audit/holds/release", json=body).status_code == 200
    erased = httpx.post(f"{one.http}/v1/audit/erasures", json=body)
    assert (erased.status_code, erased.json()["keys"]) == (200, 1), erased.text
    ring = Keyring.load(notary.home / "keys")
    seals = Seals(notary.home / "log", ring)
    written = {event.id: event for event in decisions(notary.home)}
    assert [seals.secret(written[name]) for name in ids] == [None, None]
    # She comes back through either: under the new key, which both are lent.
    for gateway in (one, two):
        back = predict(gateway, "carol")
        assert back.status_code == 200, back.text
        (event,) = [
            e for e in decisions(notary.home) if e.id == back.headers["x-weighbridge-decision"]
        ]
        assert seals.secret(event) is not None
    assert notary.cli("audit", "verify").returncode == 0


def test_a_killed_notary_loses_nothing_and_gateways_go_on_by_themselves(pair) -> None:
    notary, one, two = pair
    load = Load([one, two])
    try:
        for _ in range(3):
            count = len(load.answered)
            assert until(lambda count=count: len(load.answered) > count + 100)
            notary.kill()
            refusals = len(load.refused)
            assert until(lambda refusals=refusals: len(load.refused) > refusals + 8)
            ready = httpx.get(f"{one.http}/v2/health/ready").json()
            assert ready["notary"] == "away"
            began = time.monotonic()
            assert predict(one, "dave").status_code == 503
            assert time.monotonic() - began < 1  # known to be away: at once
            count = len(load.answered)
            notary.start(WEIGHBRIDGE_PAYLOADS="all")
            assert until(lambda count=count: len(load.answered) > count + 100)
    finally:
        load.stop()
    assert {(status, retry) for status, retry, _ in load.refused} == {(503, "1")}
    assert max(took for _, _, took in load.refused) < 12
    time.sleep(1.2)  # the last checkpoint
    stored = {}
    for entry in LogReader(notary.home / "log").entries():
        if isinstance(entry.event, Decision):
            assert entry.event.id not in stored
            stored[entry.event.id] = entry.index
    said = {name: int(receipt.partition("#")[2]) for name, receipt in load.answered}
    assert {name: stored[name] for name in said} == said
    counted = notary.counted()  # verifies: no number is missing without a gap
    assert counted["decision events"] == len(stored)


def test_the_key_is_rotated_while_gateways_append(trained_home, tmp_path) -> None:
    with notaries.notary(tmp_path / "notary") as notary:
        first = notary.cli("audit", "key").stdout.strip()
        with notaries.gateway(
            tmp_path / "gateway", trained_home, **notary.gateway_settings()
        ) as gateway:
            load = Load([gateway])
            assert until(lambda: len(load.answered) > 50)
            done = notary.cli("audit", "rotate-key", "--reason", "every year", "--actor", "officer")
            assert done.returncode == 0, done.stderr
            count = len(load.answered)
            assert until(lambda: len(load.answered) > count + 50)
            load.stop()
            assert not load.refused
        second = notary.cli("audit", "key").stdout.strip()
        assert first != second
        assert second in done.stdout
        assert notary.stop() == 0
        alone = notary.cli("audit", "rotate-key", "--reason", "and again")
        assert alone.returncode == 0, alone.stderr
        third = notary.cli("audit", "key").stdout.strip()
        for key in (first, second, third):
            checked = notary.cli("audit", "verify", "--key", key)
            assert checked.returncode == 0, checked.stdout
        pack = tmp_path / "pack.zip"
        exported = notary.cli("audit", "export", "-o", str(pack), "--key", first)
        assert exported.returncode == 0, exported.stderr
        for key in (first, second, third):
            read = subprocess.run(
                [sys.executable, "-m", "weighbridge_verify", str(pack), "--key", key],
                cwd=servers.ROOT / "verifier",
                capture_output=True,
                text=True,
                check=False,
            )
            assert read.returncode == 0, read.stdout
        decision = load.answered[0][0]
        proof, record = tmp_path / "proof.txt", tmp_path / "record.json"
        notary.cli("audit", "prove", decision, "--out", str(proof))
        record.write_text(notary.cli("audit", "show", decision, "--raw").stdout)
        for key in (first, third):
            found = notary.cli("audit", "check", str(proof), str(record), "--key", key)
            assert found.returncode == 0, found.stderr
        notary.start()


def test_a_lost_acknowledgement_makes_no_second_record(trained_home, tmp_path) -> None:
    with notaries.notary(tmp_path / "notary") as notary, Cutter(notary.port) as cutter:
        settings = notary.gateway_settings() | {
            "WEIGHBRIDGE_NOTARY": f"tcp://127.0.0.1:{cutter.port}"
        }
        with notaries.gateway(tmp_path / "gateway", trained_home, **settings) as gateway:
            names = []
            for number in range(10):
                cutter.cut_next_answer()
                reply = predict(gateway, f"unit {number}")
                assert reply.status_code == 200, reply.text
                names.append(reply.headers["x-weighbridge-decision"])
            assert cutter.cuts == 10
        found = [event.id for event in decisions(notary.home)]
        assert sorted(found) == sorted(names)
        assert notary.counted()["decision events"] == 10


class Cutter:
    """Stands between gateway and notary; cuts the connection after a request went through."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.cuts = 0
        self._ends = []
        self._pumping = []
        self._armed = self._asked = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def cut_next_answer(self) -> None:
        self._asked, self._armed = False, True

    def __enter__(self) -> "Cutter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._listening)
        await self._end.wait()
        server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._pumping)

    async def _connected(self, reader, writer) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends += (writer, back_writer)
        self._pumping.append(asyncio.current_task())
        there = asyncio.create_task(self._pump(reader, back_writer, back=False))
        await self._pump(back_reader, writer, back=True)
        there.cancel()
        for end in (writer, back_writer):
            end.transport.abort()
        await asyncio.wait([there])

    async def _pump(self, reader, writer, *, back: bool) -> None:
        while data := await _some(reader):
            if back and self._armed and self._asked:
                self._armed = False
                self.cuts += 1
                return  # the notary has stored it; nobody hears of that
            if not back and self._armed:
                self._asked = True
            writer.write(data)


async def _some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:  # aborted
        return b""


def test_gateways_of_several_workers_append_over_the_unix_socket(trained_home, tmp_path) -> None:
    with notaries.notary(tmp_path / "notary") as notary:
        path = notary.home / "run" / "notary.sock"
        settings = notaries.QUIET | {
            "WEIGHBRIDGE_NOTARY": f"unix:{path}",
            "WEIGHBRIDGE_WORKERS": "2",
        }
        with notaries.gateway(tmp_path / "gateway", trained_home, **settings) as gateway:
            warming = Load([gateway], per_gateway=8)  # one worker may be ready before the other
            both = until(lambda: len({e.instance for e in decisions(notary.home)}) == 2)
            warming.stop()
            assert both
            load = Load([gateway], per_gateway=8)
            assert until(lambda: len(load.answered) > 200)
            load.stop()
            assert not load.refused
        counted, answered = notary.counted(), len(warming.answered) + len(load.answered)
        assert (counted["instances"], counted["decision events"]) == (2, answered)
        assert notary.stop() == 0
        assert "stopped: the log is signed and closed" in notary.output()
        assert notary.cli("notary", "--check").returncode == 1


def test_the_notary_tells_systemd(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)
        with notaries.notary(tmp_path / "n", NOTIFY_SOCKET=str(tmp_path / "notify")) as notary:
            assert told.recv(100) == b"READY=1"
            second = notary.cli("notary")
            assert (second.returncode, "another process is its writer" in second.stderr) == (
                2,
                True,
            )
            notary.process.send_signal(signal.SIGINT)
            assert told.recv(100) == b"STOPPING=1"
            assert notary.process.wait(20) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"WEIGHBRIDGE_WORKERS": "2"}, "needs WEIGHBRIDGE_NOTARY"),
        ({"WEIGHBRIDGE_NOTARY": "tcp://127.0.0.1:1"}, "set all three"),
        ({"WEIGHBRIDGE_NOTARY": "ftp://x"}, "tcp://HOST:PORT"),
        (
            {"WEIGHBRIDGE_NOTARY": "unix:/x", "WEIGHBRIDGE_NOTARY_LISTEN": "tcp://127.0.0.1:1"},
            "set one of them",
        ),
        (
            {
                "WEIGHBRIDGE_NOTARY": "tcp://127.0.0.1:1",
                "WEIGHBRIDGE_NOTARY_CERT": "/no/such",
                "WEIGHBRIDGE_NOTARY_KEY": "/no/such",
                "WEIGHBRIDGE_NOTARY_CA": "/no/such",
            },
            "could not read /no/such",
        ),
    ],
)
def test_what_does_not_fit_together_does_not_start(tmp_path, settings, said) -> None:
    ports = servers.free_port(), servers.free_port()
    environment = servers.environment_of(tmp_path, *ports, **settings)
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway"],
        cwd=servers.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
