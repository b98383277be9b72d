"""The link to a notary elsewhere, from the settings: addresses and the TLS files of both ends.

Rule 1: TCP needs all of WEIGHBRIDGE_NOTARY_CERT, _KEY and _CA, on both sides: there is no link in
clear and none that trusts strangers.
Rule 2: the files are checked before the start, as those of the doors are (access/tls.py).
Boundary: settings to values; nothing is opened but the files.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from audit.link_address import LinkFiles, NotaryAddress, client_tls, server_tls

from .access.tls import TlsError, TlsFiles
from .settings import Settings

__all__ = ["LINK_FILES", "check_link", "client_link", "listening_link"]

LINK_FILES = ("notary_cert", "notary_key", "notary_ca")


def client_link(settings: Settings) -> tuple[NotaryAddress, ssl.SSLContext | None]:
    """Where this gateway's notary is, and how to reach it.

    Raises:
        TlsError: a file is missing or cannot be used.
    """
    address = NotaryAddress.parse(settings.notary)
    if address.path is not None:
        return address, None
    return address, client_tls(_files(settings))


def listening_link(settings: Settings) -> tuple[NotaryAddress, ssl.SSLContext] | None:
    """Where the notary listens for other machines; None where it does not.

    Raises:
        TlsError: as `client_link`.
        ValueError: not a TCP address.
    """
    if not settings.notary_listen:
        return None
    address = NotaryAddress.parse(settings.notary_listen)
    if address.path is not None:
        raise ValueError(
            "WEIGHBRIDGE_NOTARY_LISTEN must be tcp://HOST:PORT; the Unix socket is there anyway"
        )
    return address, server_tls(_files(settings))


def check_link(settings: Settings) -> None:
    """Refuse what would fail later.

    Raises:
        TlsError, ValueError: one sentence that says what to do.
    """
    if settings.notary and settings.notary_listen:
        raise ValueError(
            "WEIGHBRIDGE_NOTARY says that the log is elsewhere, WEIGHBRIDGE_NOTARY_LISTEN that it "
            "is here: set one of them"
        )
    if settings.notary:
        client_link(settings)
    elif settings.workers > 1:
        raise ValueError(
            "WEIGHBRIDGE_WORKERS above 1 needs WEIGHBRIDGE_NOTARY, because a log has one writer: "
            "run `weighbridge notary` and name its socket, unix:/PATH"
        )
    listening_link(settings)


def _files(settings: Settings) -> LinkFiles:
    given = [getattr(settings, name) for name in LINK_FILES]
    if not all(given):
        raise TlsError(
            "a notary over TCP needs WEIGHBRIDGE_NOTARY_CERT, WEIGHBRIDGE_NOTARY_KEY and "
            "WEIGHBRIDGE_NOTARY_CA; set all three"
        )
    cert, key, authority = (Path(path).absolute() for path in given)
    TlsFiles(cert, key, authority).check()
    return LinkFiles(cert, key, authority)
