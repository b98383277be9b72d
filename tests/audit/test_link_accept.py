"""Who gets in: a burst of connections takes no turn of others, and no more than may come in."""

import asyncio
import socket
import ssl
from unittest.mock import Mock

import pytest

from audit.link_accept import Acceptor


@pytest.fixture
def burst(tmp_path):
    """A listening Unix socket at which a hundred wait already."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "n.sock"))
    listening.listen(256)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for one in waiting:
        one.connect(str(tmp_path / "n.sock"))
    yield listening
    for one in waiting:
        one.close()


async def hang_up_on_all(acceptor):
    while acceptor._coming:  # noqa: ASYNC110  its own tasks let them in
        await asyncio.sleep(0)
    inside = list(acceptor._inside)
    for transport in inside:
        transport.abort()
    await acceptor.close()
    await asyncio.sleep(0.01)  # their sockets close in a turn of their own
    return len(inside)


async def test_others_have_their_turn_between_those_who_come(burst, monkeypatch):
    loop = asyncio.get_running_loop()
    real, taken, turns = loop.sock_accept, [0], []

    async def accept(sock):
        found = await real(sock)
        taken[0] += 1
        return found

    monkeypatch.setattr(loop, "sock_accept", accept)
    acceptor = Acceptor(burst, asyncio.Protocol)
    acceptor.start()
    while taken[0] < 100:
        await asyncio.sleep(0)
        turns.append(taken[0])
    assert max(b - a for a, b in zip([0, *turns], turns, strict=False)) == 1
    assert await hang_up_on_all(acceptor) == 100


async def test_those_who_are_coming_count_as_those_who_are_inside(burst, monkeypatch):
    monkeypatch.setattr("audit.link_accept._CONNECTIONS", 7)
    loop, most = asyncio.get_running_loop(), 0
    real, gate = loop.connect_accepted_socket, asyncio.Event()

    async def slowly(*args, **kwargs):
        await gate.wait()
        return await real(*args, **kwargs)

    monkeypatch.setattr(loop, "connect_accepted_socket", slowly)
    acceptor = Acceptor(burst, asyncio.Protocol)
    acceptor.start()
    for _ in range(300):
        await asyncio.sleep(0)
        most = max(most, len(acceptor._coming))
    assert most == 7
    gate.set()
    assert await hang_up_on_all(acceptor) == 7


async def test_one_address_does_not_take_the_places_of_all(burst):
    acceptor = Acceptor(burst, asyncio.Protocol, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    here = [Mock(**{"is_closing.return_value": False}) for _ in range(128)]
    acceptor._inside = dict.fromkeys(here, "10.0.0.1")
    assert not acceptor._room_for("10.0.0.1")
    assert acceptor._room_for("10.0.0.2")
    here[0].is_closing.return_value = True
    assert acceptor._room_for("10.0.0.1")
    await acceptor.close()
