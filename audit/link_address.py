"""Where a notary is found, and the TLS between it and those who append.

    unix:/run/weighbridge/notary.sock    a socket that is private to its user
    tcp://notary.example.org:3003        TLS 1.3, certificates on both sides

Rule 1: there is no TCP without TLS: records' payloads cross the link in clear inside it.
Rule 2: both sides show a certificate and check the other's against one CA; the client also checks
that the server's certificate names the host that it asked for.
Boundary: files to `ssl` contexts; no socket is opened here.
"""

import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["LinkFiles", "NotaryAddress", "client_tls", "server_tls"]


class NotaryAddress(NamedTuple):
    """A Unix socket's path, or a host and a port."""

    path: Path | None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "NotaryAddress":
        """Read an address; the inverse of `str`.

        Raises:
            ValueError: it is neither `unix:/PATH` nor `tcp://HOST:PORT`.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest.startswith("/"):
            return cls(Path(rest))
        try:
            parts = urlsplit(text)
            usable = parts.scheme == "tcp" and not (parts.path or parts.query or parts.username)
            if usable and parts.hostname and parts.port is not None:
                return cls(None, parts.hostname, parts.port)
        except ValueError:
            pass
        raise ValueError(f"could not use the notary '{text}': write unix:/PATH or tcp://HOST:PORT")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


class LinkFiles(NamedTuple):
    """This side's certificate chain and key, and the CA of the other side's; PEM."""

    cert: Path
    key: Path
    authority: Path


def server_tls(files: LinkFiles) -> ssl.SSLContext:
    """How the notary listens: who has no certificate of the CA does not get in.

    Raises:
        OSError: a file cannot be read or used (`ssl.SSLError` is one).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with(context, files)


def client_tls(files: LinkFiles) -> ssl.SSLContext:
    """How a gateway connects: it checks the notary's certificate and name, and shows its own.

    Raises:
        OSError: as `server_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _with(context, files)


def _with(context: ssl.SSLContext, files: LinkFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.cert, files.key)
    context.load_verify_locations(files.authority)
    return context
