"""Raw HTTP for tests: bytes on a socket, as no client library would send them."""

import json
import socket
from typing import NamedTuple

CANARY = "canary-7f3a9c"
"""A word that stands in units, attributes and inputs; it must be found nowhere afterwards."""


class Answer(NamedTuple):
    """One parsed reply; status 0 when the server closed the connection without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> str:
        """The text of a refusal in the protocol's form."""
        assert self.status >= 400, self
        assert self.headers["content-type"] == "application/json", self
        assert "content-encoding" not in self.headers
        found = json.loads(self.body)
        assert set(found) == {"error"}, found
        text = str(found["error"])
        assert CANARY not in text
        assert "/site-packages/" not in text
        assert "Traceback" not in text
        return text


def request(
    method: str, path: str, body: bytes = b"", *headers: bytes, length: int | None = None
) -> bytes:
    """One request; `length` lies about the body."""
    head = [f"{method} {path} HTTP/1.1".encode(), b"host: x", *headers]
    head.append(b"content-length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def send(port: int, data: bytes) -> Answer:
    """Send bytes on a connection of their own and read one reply."""
    with connect(port) as client:
        client.sendall(data)
        return read(client, head_only=data.startswith(b"HEAD"))


def read(client: socket.socket, *, head_only: bool = False) -> Answer:
    stream = client.makefile("rb")
    status = stream.readline().split()
    if len(status) < 2:
        return Answer(0, {}, b"")
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    size = 0 if head_only else int(headers.get("content-length", 0))
    return Answer(int(status[1]), headers, stream.read(size))
