"""TLS for both doors from the same three files: certificate chain, private key, CA of clients.

Rule 1: TLS 1.2 with forward secrecy, or 1.3. BentoML's own default cipher list means CBC suites,
so ours is given.
Rule 2: with a client CA a certificate is required (mTLS); it says who may open a connection, and
nothing about roles (docs/adr/0010-access.md).
Rule 3: files are checked before the start: they exist, parse, belong together and are in date, and
nobody else may read the key. No text here holds anything of a key or a certificate but its path.
Boundary: files to what uvicorn (through BentoML) and gRPC take; read once, at the start.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

__all__ = ["TlsError", "TlsFiles", "bentoml_ssl", "grpc_credentials"]

_T = TypeVar("_T")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsError(ValueError):
    """A TLS file cannot be used; names the file and what to do."""


class TlsFiles(NamedTuple):
    """Where certificate chain, key and client CA stand, as PEM; absolute paths."""

    cert: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def of(cls, cert: str, key: str, client_ca: str) -> TlsFiles | None:
        """The files of the settings; None when no TLS is asked for.

        Raises:
            TlsError: one was given without the other.
        """
        if not cert and not key:
            if client_ca:
                raise TlsError("WEIGHBRIDGE_TLS_CLIENT_CA needs WEIGHBRIDGE_TLS_CERT and _TLS_KEY")
            return None
        if not cert or not key:
            raise TlsError("WEIGHBRIDGE_TLS_CERT and WEIGHBRIDGE_TLS_KEY go together; set both")
        authority = Path(client_ca).absolute() if client_ca else None
        return cls(Path(cert).absolute(), Path(key).absolute(), authority)

    def check(self, now: datetime | None = None) -> None:
        """Refuse files that would fail later, or that give the key away.

        Raises:
            TlsError: names the file and what to do.
        """
        moment = now or datetime.now(UTC)
        chain = _parsed(self.cert, x509.load_pem_x509_certificates, "a PEM certificate")
        _check_secret(self.key)
        key = _parsed(
            self.key, lambda data: load_pem_private_key(data, None), "a PEM key without a password"
        )
        if _spki(chain[0].public_key()) != _spki(key.public_key()):
            raise TlsError(f"{self.key} is not the key of the first certificate in {self.cert}")
        _check_dates(self.cert, chain[0], moment)
        if self.client_ca is not None:
            found = _parsed(self.client_ca, x509.load_pem_x509_certificates, "a PEM certificate")
            for certificate in found:
                _check_dates(self.client_ca, certificate, moment)


def _parsed(path: Path, parse: Callable[[bytes], _T], what: str) -> _T:
    try:
        return parse(path.read_bytes())
    except OSError as exc:
        raise TlsError(f"could not read {path}: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise TlsError(f"could not use {path}: it is not {what}") from exc


def _check_secret(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise TlsError(f"could not read {path}: {exc.strerror}") from exc
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise TlsError(f"others may read {path} or write it; chmod 600 {path}, or 640")


def _spki(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def _check_dates(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise TlsError(f"the certificate in {path} has expired; renew it")
    if now < certificate.not_valid_before_utc:
        raise TlsError(f"the certificate in {path} is not valid yet; look at the clock")


def bentoml_ssl(files: TlsFiles | None) -> dict[str, Any]:
    """The `ssl` option of a BentoML service, as keyword arguments; none without TLS."""
    if files is None:
        return {}
    found: dict[str, Any] = {
        "enabled": True,
        "certfile": str(files.cert),
        "keyfile": str(files.key),
        "version": int(ssl.PROTOCOL_TLS_SERVER),  # TLS 1.2 at least, by Python's default
        "ciphers": _CIPHERS,
    }
    if files.client_ca is not None:
        found |= {"ca_certs": str(files.client_ca), "cert_reqs": int(ssl.CERT_REQUIRED)}
    return {"ssl": found}


def grpc_credentials(files: TlsFiles | None) -> Any:
    """`grpc.ServerCredentials`, or None without TLS.

    Raises:
        OSError: a file cannot be read.
    """
    if files is None:
        return None
    authority = files.client_ca.read_bytes() if files.client_ca else None
    return grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.cert.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )
