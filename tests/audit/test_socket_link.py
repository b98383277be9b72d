import asyncio
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import AuditError, EntryTooLarge, EventConflict, LogUnavailable
from audit.notary import Notary
from audit.reader import LogReader
from audit.record import encode
from audit.socket_link import NotaryClient, serve
from audit.testing import FaultyFiles, check_log
from audit.wire import (
    APPEND,
    AppendRequest,
    format_append,
    format_refusal,
    parse_append,
    parse_refusal,
)
from tests.audit.worlds import ORIGIN, append, decision, leaf_of, make_keyring


@pytest.fixture
def ring(tmp_path):
    return make_keyring(tmp_path / "keys")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "n.sock"


class Gateway:
    """Stands between client and notary, and can lose what the notary says."""

    def __init__(self, front, back):
        self.front, self.back = front, back
        self.lose_replies = False
        self.lost = asyncio.Event()
        self.server = None

    async def start(self):
        self.server = await asyncio.start_unix_server(self._connected, self.front)

    async def _connected(self, reader, writer):
        back_reader, back_writer = await asyncio.open_unix_connection(self.back)
        there = asyncio.create_task(self._pump(reader, back_writer, losing=False))
        await self._pump(back_reader, writer, losing=True)
        there.cancel()
        writer.close()
        back_writer.close()

    async def _pump(self, reader, writer, *, losing):
        while data := await reader.read(65536):
            if losing and self.lose_replies:
                self.lose_replies = False
                self.lost.set()
                return
            writer.write(data)

    async def stop(self):
        self.server.close()
        await asyncio.sleep(0)


async def test_a_client_appends_and_gets_the_same_receipt_as_in_process(tmp_path, ring, path):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    client = NotaryClient(path)
    assert await client.append(decision(1)) == (ORIGIN, 0, leaf_of(decision(1)))
    assert client.origin == ORIGIN
    receipts = await asyncio.gather(*[append(client, decision(n), 4) for n in range(2, 201)])
    assert sorted(receipt.index for receipt in receipts) == list(range(1, 200))
    reader = LogReader(tmp_path / "log")
    assert reader.payload(ring, decision(8).id, "input") == b"the input of 8"
    await client.close()
    await server.close()
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_the_socket_is_private(tmp_path, ring, path):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await server.close()
    assert not path.exists()
    await notary.close()


async def test_a_lost_acknowledgement_makes_no_second_record(tmp_path, ring, path):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    gateway = Gateway(tmp_path / "front.sock", path)
    await gateway.start()
    client = NotaryClient(tmp_path / "front.sock")
    await client.append(decision(1))
    gateway.lose_replies = True
    receipt = await client.append(decision(2))
    assert gateway.lost.is_set()
    assert receipt == (ORIGIN, 1, leaf_of(decision(2)))
    assert notary.size == 2
    await client.close()
    await gateway.stop()
    await server.close()
    await notary.close()


async def test_a_client_lives_through_a_restart_of_the_notary(tmp_path, ring, path):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    client = NotaryClient(path, timeout_s=60)
    first = await client.append(decision(1))
    await server.close()
    await notary.close()
    waiting = [asyncio.create_task(client.append(decision(n))) for n in range(1, 11)]
    await asyncio.sleep(0)
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    receipts = await asyncio.gather(*waiting)
    assert receipts[0] == first
    assert notary.size == 10
    await client.close()
    await server.close()
    await notary.close()
    check_log(tmp_path / "log", ring.verifier_key(ORIGIN))


async def test_restarts_under_load_lose_and_double_nothing(tmp_path, ring, path):
    client = NotaryClient(path, timeout_s=60)
    receipts = {}

    async def appender(first):
        for seq in range(first, 601, 6):
            receipts[seq] = await client.append(decision(seq))

    load = asyncio.gather(*[appender(first) for first in range(1, 7)])
    for _ in range(5):
        notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
        server = await serve(notary, path)
        target = len(receipts) + 60
        while len(receipts) < target and not load.done():  # noqa: ASYNC110 - other tasks progress
            await asyncio.sleep(0.001)
        await server.close()
        await notary.close()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    await load
    await client.close()
    await server.close()
    await notary.close()
    entries = {entry.event.seq: entry.index for entry in LogReader(tmp_path / "log").entries()}
    assert entries == {seq: receipt.index for seq, receipt in receipts.items()}
    assert check_log(tmp_path / "log", ring.verifier_key(ORIGIN)).leaves == 600


async def test_refusals_arrive_as_the_errors_they_are(tmp_path, ring, path):
    files = FaultyFiles()
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, files=files)
    server = await serve(notary, path)
    client = NotaryClient(path)
    await client.append(decision(1))
    with pytest.raises(EventConflict):
        await client.append(decision(1, label="<=50K"))
    with pytest.raises(EntryTooLarge):
        await client.append(decision(2, label="x" * 70_000))
    with files.failing("not-stored"), pytest.raises(LogUnavailable, match="injected"):
        await client.append(decision(2))
    assert (await client.append(decision(2))).index == 1
    await client.close()
    await server.close()
    await notary.close()


async def test_an_absent_notary_is_unavailable_after_the_timeout(path):
    client = NotaryClient(path, timeout_s=0.2)
    with pytest.raises(LogUnavailable, match="no answer"):
        await client.append(decision(1))
    await client.close()


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 9, b"\xff" * 64, b"\0\0\0\x05\0\0\0\x01\x09"]
)
async def test_a_stranger_is_hung_up_on_and_harms_nobody(tmp_path, ring, path, junk):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(junk)
    writer.write_eof()
    await reader.read()
    writer.close()
    client = NotaryClient(path)
    assert (await client.append(decision(1))).index == 0
    await client.close()
    await server.close()
    await notary.close()


_DECISION = encode(decision(1))


@pytest.mark.parametrize(
    "data",
    [
        b"junk",
        b'{"id": "a"}',
        b"{}",
        b"",
        b" " + _DECISION,
        _DECISION.replace(b'"seq":1,', b'"seq":1.0,'),
        _DECISION.replace(b'"seq":1,', b'"extra":1,"seq":1,'),
        _DECISION.replace(b'"label":"', b'"label":"' + b"x" * 65_535),
    ],
)
async def test_bytes_that_are_no_event_are_not_stored(tmp_path, ring, path, data):
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, path)
    client = NotaryClient(path)
    body = format_append(AppendRequest(None, data, "", {}))
    for asked in (body, body[:-1]):
        refused = asyncio.get_running_loop().create_future()
        client._send(APPEND, asked, lambda *answer, r=refused: r.set_result(answer), 5.0)
        answer, error = await refused
        assert answer is None
        assert isinstance(error, AuditError)
    assert notary.size == 0
    await client.close()
    await server.close()
    await notary.close()


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(
    st.sampled_from([None, "strict", "bounded", "async"]),
    st.binary(max_size=50),
    _names,
    st.dictionaries(_names, st.binary(max_size=50), max_size=3),
)
def test_an_append_reads_back_as_it_was_written(durability, data, subject, payloads):
    request = AppendRequest(durability, data, subject, payloads)
    body = format_append(request)
    assert parse_append(body) == request
    for length in range(len(body)):
        with pytest.raises(ValueError):
            parse_append(body[:length])


def test_an_unknown_refusal_is_unavailability():
    assert type(parse_refusal(b"SomethingNew\nwords")) is LogUnavailable
    assert str(parse_refusal(format_refusal(EventConflict("no")))) == "no"
