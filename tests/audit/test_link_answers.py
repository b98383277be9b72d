"""What may be asked of the notary: one after the other, and no more than the asker reads."""

import asyncio

import pytest

from audit import link_server
from audit.notary import Notary
from audit.socket_link import NotaryClient, serve
from audit.wire import DONE, HEAD, MANAGE, format_frame, format_json
from tests.audit.worlds import ORIGIN, decision, make_keyring

_LONG = "x" * (1 << 20)


class Asked:
    """A notary that gives long answers, and counts."""

    def __init__(self):
        self.begun = self.at_once = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, asked):
        self.begun += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        await self.gate.wait()
        self.at_once -= 1
        return {"n": asked["n"], "long": _LONG}

    async def open(self, folder):
        self.path = folder / "n.sock"
        ring = make_keyring(folder / "keys")
        self.notary = await Notary.open(folder / "log", ring, origin=ORIGIN)
        self.server = await serve(self.notary, self.path, handlers={"long": self.answer})

    async def ask(self, count):
        """A connection that has asked so often, and reads nothing yet."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        asked = [format_frame(n, MANAGE, format_json({"do": "long", "n": n})) for n in range(count)]
        writer.write(b"".join(asked))
        return reader, writer

    async def close(self):
        await self.server.close()
        await self.notary.close()


@pytest.fixture
async def asked(tmp_path):
    found = Asked()
    await found.open(tmp_path)
    yield found
    await found.close()


async def numbers(reader, count):
    await reader.readexactly(len(b"WBNOTARY1\n") + 2 + len(ORIGIN))
    found = []
    for _ in range(count):
        length, number, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
        body = await reader.readexactly(length - 5)
        assert kind == DONE
        assert len(body) > len(_LONG)
        found.append(number)
    return found


async def test_long_answers_that_nobody_reads_are_few(asked):
    reader, writer = await asked.ask(200)
    client = NotaryClient(asked.path)
    for n in range(1, 20):  # others go on meanwhile
        assert (await client.append(decision(n))).index == n - 1
    await asyncio.sleep(0.2)
    begun = asked.begun
    assert 1 <= begun <= 8
    (connection,) = [one for one in asked.server.connections if one._to_do]
    assert connection.transport.get_write_buffer_size() < 4 << 20
    assert await numbers(reader, 200) == list(range(200))
    assert asked.begun == 200
    assert asked.most == 1
    writer.close()
    await client.close()


async def test_who_reads_no_notices_is_hung_up_on(asked, monkeypatch):
    monkeypatch.setattr(link_server, "_MAX_UNREAD_BYTES", 1 << 20)
    reads, deaf = NotaryClient(asked.path), await asyncio.open_unix_connection(asked.path)
    notices = asyncio.Queue()
    reads.on_notice = notices.put_nowait
    await reads.append(decision(1))
    assert len(asked.server.connections) == 2
    told = 0
    while len(asked.server.connections) == 2:
        asked.server.tell({"what": _LONG[:100_000]})
        told += 1
        await notices.get()
    assert (asked.notary.size, told > 10) == (1, True)
    deaf[1].close()
    await deaf[1].wait_closed()
    await reads.close()


async def test_those_of_two_connections_are_done_side_by_side(asked):
    asked.gate.clear()
    some = [await asked.ask(3) for _ in range(2)]
    while asked.begun < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    asked.gate.set()
    for reader, writer in some:
        assert await numbers(reader, 3) == [0, 1, 2]
        writer.close()
    assert asked.most == 2


async def test_who_hangs_up_has_the_rest_dropped(asked):
    _, writer = await asked.ask(200)
    while not asked.begun:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    (connection,) = asked.server.connections
    writer.transport.abort()
    while asked.server.connections:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.wait_for(connection._idle.wait(), 5)
    assert connection._asked == connection._asked_bytes == 0
    await asyncio.sleep(0.1)
    assert asked.begun <= 8
    assert connection._doing is None
