"""Who gets in: a bounded number of connections, and of strangers at the door.

Rule 1: until TLS is done a connection is a stranger: it has `HANDSHAKE_S`, at most `_STRANGERS` of
one address and `_ALL_STRANGERS` in all are at the door, and one more is turned away at once. So a
flood of them costs nobody who is inside anything, and those of other addresses nothing.
Rule 2: those inside and those who are coming are counted together, at most `_CONNECTIONS`, and over
TLS `_OF_ONE` of one address, so that one machine cannot take the places of all others. In a burst
each has others take their turn: a socket that is ready would keep the loop to itself.
Rule 3: where the process has no file descriptor left, nobody is let in for a moment, and those
inside go on.
Boundary: sockets to asyncio transports; what is spoken is the protocol's matter.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

__all__ = ["HANDSHAKE_S", "Acceptor"]

_LOGGER = logging.getLogger("weighbridge.audit")
HANDSHAKE_S = 5.0
_STRANGERS = 16
_ALL_STRANGERS = 256
_CONNECTIONS = 512
_OF_ONE = 128
_PAUSE_S = 0.1


class Acceptor:
    """Accepts on a listening socket until it is closed.

    Args:
        listening: bound and listening.
        protocol: makes what speaks to a connection.
        tls: how strangers become known; None where the socket's file says who may come.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        listening.setblocking(False)
        self._listening, self._protocol, self._tls = listening, protocol, tls
        self._strangers: Counter[str] = Counter()
        self._coming: set[asyncio.Task[None]] = set()
        self._inside: dict[asyncio.BaseTransport, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._said, self._turned_away = -1.0, 0

    def start(self) -> None:
        """Begin to accept."""
        self._task = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Accept nobody any more; who is at the door is turned away, who is inside stays."""
        tasks = [*self._coming] + ([self._task] if self._task is not None else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError as error:  # no descriptor left, or a peer that is gone already
                _LOGGER.warning("could not accept a connection to the notary: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            host = str(address[0]) if address else ""
            if not self._room_for(host):
                connection.close()
                self._say("there are too many")
                continue
            self._strangers[host] += 1
            task = loop.create_task(self._let_in(connection, host))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    def _say(self, why: str) -> None:
        """One line a second at most: a flood must not fill the process log."""
        self._turned_away += 1
        now = asyncio.get_running_loop().time()
        if now - self._said >= 1:
            count, self._said, self._turned_away = self._turned_away, now, 0
            _LOGGER.warning("turned %d strangers away from the notary, the last: %s", count, why)

    def _room_for(self, host: str) -> bool:
        self._inside = {one: of for one, of in self._inside.items() if not one.is_closing()}
        if len(self._inside) + len(self._coming) >= _CONNECTIONS:
            return False
        if self._tls is None:
            return True
        if sum(of == host for of in self._inside.values()) + self._strangers[host] >= _OF_ONE:
            return False
        return self._strangers[host] < _STRANGERS and len(self._coming) < _ALL_STRANGERS

    async def _let_in(self, connection: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        wait = None if self._tls is None else HANDSHAKE_S
        try:
            if self._tls is not None:
                keep_alive(connection)
            transport, _ = await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=wait
            )
            self._inside[transport] = host
        except OSError as error:  # a refused certificate is one, too
            connection.close()
            self._say(_why(error))
        finally:
            self._strangers[host] -= 1
            if not self._strangers[host]:
                del self._strangers[host]


def keep_alive(connection: socket.socket) -> None:
    """Notice within a minute that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _why(error: OSError) -> str:
    """In a few words, for the process log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "TLS failed")
    return type(error).__name__
