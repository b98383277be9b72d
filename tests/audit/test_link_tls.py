"""The link over TCP: who gets in, who does not, and what strangers cost those who are in."""

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack, suppress

import pytest

from audit.errors import EventInvalid, LogOverloaded, LogUnavailable
from audit.link_accept import Acceptor
from audit.link_address import LinkFiles, NotaryAddress, client_tls, server_tls
from audit.notary import Notary
from audit.record import Erasure, KeyRotation, encode
from audit.socket_link import NotaryClient, serve, serve_tcp
from audit.testing import check_log
from audit.wire import HEAD, MAX_FRAME_BYTES
from tests.audit.worlds import ORIGIN, START_US, decision, make_keyring, uuid
from tests.services.access.authority import Authority


class Link:
    """A notary on TCP, and certificates for those who may come."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.ring = make_keyring(folder / "keys")
        self.stack = AsyncExitStack()

    async def open(self, *, frame_s=30.0, **options):
        self.notary = await Notary.open(self.folder / "log", self.ring, origin=ORIGIN, **options)
        self.stack.push_async_callback(self.notary.close)
        pair = self.authority.issue("notary")
        tls = server_tls(LinkFiles(pair.cert, pair.key, self.authority.path))
        self.server = await serve_tcp(self.notary, "127.0.0.1", 0, tls, frame_s=frame_s)
        self.stack.push_async_callback(self.server.close)
        return self

    def context(self, name="gateway", authority=None, trusted=None, days=30):
        pair = (authority or self.authority).issue(name, client=True, days=days)
        return client_tls(LinkFiles(pair.cert, pair.key, (trusted or self.authority).path))

    def client(self, context=None, **options):
        address = NotaryAddress(None, "127.0.0.1", self.server.port)
        client = NotaryClient(address, tls=context or self.context(), **options)
        self.stack.push_async_callback(client.close)
        return client

    async def stranger(self, context=None, source="127.0.0.1"):
        return await asyncio.open_connection(
            "127.0.0.1",
            self.server.port,
            ssl=context,
            local_addr=(source, 0),
            server_hostname="127.0.0.1" if context else None,
        )


@pytest.fixture
async def link(tmp_path):
    found = Link(tmp_path)
    async with found.stack:
        yield found


async def refused(client):
    with pytest.raises(LogUnavailable) as caught:
        await client.append(decision(9))
    return str(caught.value)


async def test_a_gateway_with_a_certificate_appends(link, tmp_path):
    await link.open()
    client = link.client()
    receipts = await asyncio.gather(*[client.append(decision(n)) for n in range(1, 101)])
    assert sorted(receipt.index for receipt in receipts) == list(range(100))
    assert client._stream.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    await link.stack.aclose()
    assert check_log(tmp_path / "log", link.ring.verifier_key(ORIGIN)).leaves == 100


async def test_who_has_no_right_certificate_does_not_get_in(link, tmp_path):
    await link.open()
    other = Authority(tmp_path / "other", "other")
    bare = ssl.create_default_context(cafile=str(link.authority.path))
    old = ssl.create_default_context(cafile=str(link.authority.path))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (
        bare,
        old,
        link.context("stranger", authority=other),
        link.context("late", days=-1),
    ):
        assert "no answer" in await refused(link.client(context, timeout_s=0.5))
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"WBNOTARY1\n"):
        reader, writer = await link.stranger()
        writer.write(junk)
        with suppress(ConnectionError):
            assert b"WBNOTARY" not in await reader.read()
        writer.close()
    assert link.notary.size == 0
    assert (await link.client().append(decision(1))).index == 0


async def test_a_gateway_speaks_to_nobody_but_the_named_notary(link, tmp_path):
    await link.open()
    other = Authority(tmp_path / "other", "other")
    assert "certificate" in await refused(link.client(link.context(trusted=other), timeout_s=0.5))
    by_name = NotaryClient(
        NotaryAddress(None, "localhost", link.server.port), tls=link.context(), timeout_s=0.5
    )
    assert "not valid for 'localhost'" in await refused(by_name)
    await by_name.close()
    with pytest.raises(ValueError, match="TLS on both sides"):
        NotaryClient(NotaryAddress(None, "127.0.0.1", link.server.port))
    with pytest.raises(ValueError, match="must ask for certificates"):
        await serve_tcp(link.notary, "127.0.0.1", 0, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


async def test_strangers_at_the_door_are_bounded_and_cost_nobody_inside(link):
    await link.open()
    inside = link.client()
    await inside.append(decision(1))
    flood = [await link.stranger(source="127.0.0.2") for _ in range(300)]
    assert len(link.server._acceptor._coming) <= 16
    assert (await inside.append(decision(2))).index == 1
    assert (await link.client().append(decision(3))).index == 2  # from another address
    silent = [reader for reader, _ in flood]
    ends = await asyncio.gather(*(end_of(reader) for reader in silent))  # the handshake's limit
    assert all(ends)
    assert not link.server._acceptor._strangers
    for _, writer in flood:
        writer.close()
    assert (await inside.append(decision(4))).index == 3


async def end_of(reader):
    with suppress(ConnectionError):
        return await reader.read() == b""
    return True


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HEAD.pack(MAX_FRAME_BYTES + 1, 1, 1), id="oversized"),
        pytest.param(HEAD.pack(4, 1, 1), id="undersized"),
        pytest.param(HEAD.pack(1000, 1, 1) + b"half", id="half a frame"),
        pytest.param(HEAD.pack(5, 1, 99), id="unknown kind"),
    ],
)
async def test_a_peer_that_speaks_no_sense_is_hung_up_on(link, sent):
    await link.open(frame_s=0.2)
    other = link.client()
    await other.append(decision(1))
    reader, writer = await link.stranger(link.context("odd"))
    writer.write(sent)
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()
    assert (await other.append(decision(2))).index == 1


async def test_one_byte_at_a_time_does_not_hold_a_frame_open(link):
    await link.open(frame_s=0.3)
    reader, writer = await link.stranger(link.context("slow"))
    gone = asyncio.create_task(end_of_stream(reader))
    for byte in HEAD.pack(100_000, 1, 1) + bytes(1000):
        if gone.done():
            break
        with suppress(ConnectionError):
            writer.write(bytes([byte]))
            await writer.drain()
        await asyncio.wait([gone], timeout=0.02)
    assert gone.done()
    writer.close()


async def end_of_stream(reader):
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass


async def test_what_a_deed_stands_behind_is_the_notarys_to_write(link):
    await link.open()
    client = link.client()
    erasure = Erasure(id=uuid(1), time_us=START_US, unit_ref="ab" * 16, actor="a", reason="b")
    with pytest.raises(EventInvalid, match="only the notary"):
        await client.append(erasure)
    assert KeyRotation.type not in encode(decision(1)).decode()
    with pytest.raises(EventInvalid, match="does not offer"):
        await client.manage("erase", "ab" * 16, actor="a", reason="b")
    assert link.notary.size == 0


async def test_a_notary_that_is_away_refuses_at_once_and_serving_resumes_by_itself(link):
    await link.open()
    loop, port = asyncio.get_running_loop(), link.server.port
    events = []
    client = link.client(patience_s=0.3, timeout_s=20)
    client.on_away, client.on_connected = (
        lambda: events.append("away"),
        lambda: events.append("back"),
    )
    await client.append(decision(1))
    await link.server.close()
    began = loop.time()
    with pytest.raises(LogUnavailable):
        await client.append(decision(2))
    assert loop.time() - began < 5
    began = loop.time()
    with pytest.raises(LogUnavailable, match="no answer"):
        await client.append(decision(2))
    assert loop.time() - began < 0.1  # known to be away: nobody waits
    assert link.notary.size == 1
    pair = link.authority.issue("again")
    tls = server_tls(LinkFiles(pair.cert, pair.key, link.authority.path))
    again = await serve_tcp(link.notary, "127.0.0.1", port, tls)
    link.stack.push_async_callback(again.close)
    while not client.connected:  # noqa: ASYNC110  its own task connects
        await asyncio.sleep(0.01)
    assert (await client.append(decision(2))).index == 1
    assert events == ["back", "away", "back"]


async def test_what_waits_is_bounded(tmp_path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "n.sock"))
    listening.listen()  # accepts nobody: everything waits
    client = NotaryClient(tmp_path / "n.sock", timeout_s=30)
    ended = []
    for n in range(16_384):
        client.submit(uuid(n), b"x", lambda _, error: ended.append(error))
    assert ended == []
    with pytest.raises(LogOverloaded):
        await client.append(decision(1))
    await client.close()
    assert len(ended) == 16_384
    listening.close()


async def test_a_client_that_reads_no_answers_is_not_read_either(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN)
    server = await serve(notary, tmp_path / "n.sock")
    _, writer = await asyncio.open_unix_connection(tmp_path / "n.sock")
    frame = HEAD.pack(5 + 2000, 7, 1) + bytes(2000)  # each is refused in words
    sent = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            while sent < 200 << 20:
                writer.write(frame * 100)
                sent += 100 * len(frame)
                await writer.drain()
    assert sent < 200 << 20
    client = NotaryClient(tmp_path / "n.sock")
    assert (await client.append(decision(1))).index == 0
    writer.transport.abort()
    await client.close()
    await server.close()
    await notary.close()


async def test_bounded_receipts_cross_the_link(tmp_path):
    ring = make_keyring(tmp_path / "keys")
    notary = await Notary.open(tmp_path / "log", ring, origin=ORIGIN, durability="bounded")
    server = await serve(notary, tmp_path / "n.sock")
    client = NotaryClient(tmp_path / "n.sock", timeout_s=2)
    assert str(await client.append(decision(1))).startswith(f"{ORIGIN}#sha256:")
    strict = await client.append(decision(2), durability="strict")
    assert strict.index in (0, 1)
    await client.close()
    await server.close()
    await notary.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:/run/n.sock", "unix:/run/n.sock"),
        ("tcp://notary.example.org:3003", "tcp://notary.example.org:3003"),
        ("tcp://[::1]:1", "tcp://[::1]:1"),
    ],
)
def test_an_address_reads_back_as_it_was_written(text, shown):
    assert str(NotaryAddress.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "unix:relative", "tcp://host", "tcp://:1", "tcp://h:1/x", "http://h:1", "tcp://h:x"],
)
def test_what_is_no_address_is_refused_in_words(text):
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        NotaryAddress.parse(text)


async def test_an_acceptor_without_descriptors_goes_on(tmp_path, monkeypatch):
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    real, faults = loop.sock_accept, [OSError(24, "too many open files")]

    async def accept(sock):
        if faults:
            raise faults.pop()
        return await real(sock)

    monkeypatch.setattr(loop, "sock_accept", accept)
    acceptor = Acceptor(listening, asyncio.Protocol)
    acceptor.start()
    _, writer = await asyncio.open_connection(*listening.getsockname())
    while not acceptor._inside:  # noqa: ASYNC110  its own task accepts
        await asyncio.sleep(0.01)
    for transport in acceptor._inside:
        transport.abort()
    writer.close()
    await acceptor.close()
