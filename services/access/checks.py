"""From settings to a guard, and what is refused before anything listens.

Rule 1: an address that others can reach is not opened without authentication, unless the operator
says so in as many words (WEIGHBRIDGE_ALLOW_OPEN).
Rule 2: a mode without its means (no key, no issuer) stops the start with one sentence.
Boundary: reads settings and files; binds and starts nothing.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Callable
from pathlib import Path

from ..settings import Settings
from .guard import Guard
from .jwks import ALGORITHMS, KeySet, check_source
from .keybook import KeyBook
from .limits import RateLimits
from .principal import Rate
from .tls import TlsFiles
from .tokens import Expected, Tokens

__all__ = ["AccessError", "check_access", "gated", "keys_path", "open_guard", "tls_of"]

log = logging.getLogger("weighbridge")


class AccessError(ValueError):
    """The settings of access do not fit together; says which, and what to do."""


def keys_path(settings: Settings) -> Path:
    """The file of API keys."""
    given = settings.api_keys
    return Path(given).absolute() if given else settings.keys_dir / "api_keys.json"


def tls_of(settings: Settings) -> TlsFiles | None:
    """The TLS files of the settings, unread; None without TLS.

    Raises:
        TlsError: one was given without the other.
    """
    return TlsFiles.of(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def gated(settings: Settings) -> bool:
    """Whether calls have to pass a gate: somebody is asked who they are, or counted."""
    return settings.auth != "none" or settings.rate_per_s > 0


def modes(settings: Settings) -> frozenset[str]:
    """`keys`, `jwt`, both or none."""
    return frozenset(settings.auth.split(",")) - {"none"}


def check_access(settings: Settings, http_host: str | None = None) -> None:
    """Refuse to start where callers could do what they must not.

    Args:
        settings: of the server.
        http_host: the address that HTTP will listen on, where that may be another one.

    Raises:
        AccessError, TlsError, KeyFileDamaged: one sentence that says what to do.
    """
    for host in {settings.host, http_host or settings.host}:
        _check_address(settings, host)
    files = tls_of(settings)
    if files is not None:
        files.check()
    if "jwt" in modes(settings):
        _expected(settings)
    if "keys" in modes(settings) and not KeyBook(keys_path(settings)).usable():
        text = f"no API key in {keys_path(settings)} can be used; make one: weighbridge apikey add"
        if modes(settings) == {"keys"}:
            raise AccessError(text)
        log.warning("%s", text)


def _check_address(settings: Settings, host: str) -> None:
    if modes(settings) or settings.allow_open or _loopback(host):
        return
    raise AccessError(
        f"{host} can be reached by others and nothing authenticates them: set "
        "WEIGHBRIDGE_AUTH=keys and make a key with `weighbridge apikey add`, or, where something "
        "in front authenticates, WEIGHBRIDGE_ALLOW_OPEN=true"
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _expected(settings: Settings) -> Expected:
    missing = [
        f"WEIGHBRIDGE_{name.upper()}"
        for name in ("jwt_issuer", "jwt_audience", "jwt_jwks")
        if not getattr(settings, name)
    ]
    if missing:
        raise AccessError(f"WEIGHBRIDGE_AUTH={settings.auth} needs {', '.join(missing)}")
    algorithms = frozenset(part.strip() for part in settings.jwt_algorithms.split(","))
    if not algorithms <= frozenset(ALGORITHMS):
        raise AccessError(f"WEIGHBRIDGE_JWT_ALGORITHMS may hold {', '.join(ALGORITHMS)}")
    try:
        check_source(settings.jwt_jwks)
    except ValueError as exc:
        raise AccessError(f"WEIGHBRIDGE_JWT_JWKS: {exc}") from exc
    return Expected(
        settings.jwt_issuer, settings.jwt_audience, settings.jwt_roles_claim, algorithms
    )


async def open_guard(settings: Settings, refused: Callable[..., None]) -> Guard:
    """The guard of a server; the issuer's keys are fetched, and may come later.

    Raises:
        AccessError, KeyFileDamaged: as `check_access`.
    """
    keys = KeyBook(keys_path(settings)) if "keys" in modes(settings) else None
    tokens = None
    if "jwt" in modes(settings):
        expected = _expected(settings)
        tokens = Tokens(KeySet(settings.jwt_jwks, expected.algorithms), expected)
        await tokens.keys.refresh()
    return Guard(keys=keys, tokens=tokens, rates=RateLimits(_rate(settings)), refused=refused)


def _rate(settings: Settings) -> Rate | None:
    if settings.rate_per_s <= 0:
        return None
    return Rate(settings.rate_per_s, settings.rate_burst or max(1, math.ceil(settings.rate_per_s)))
