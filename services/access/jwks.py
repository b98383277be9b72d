"""The issuer's public keys (a JWK set), from a URL or a file, kept fresh.

Source: RFC 7517; OpenID Connect Discovery (`jwks_uri`).
Rule 1: public signature keys only. Symmetric keys (`oct`), private keys, encryption keys and RSA
below 2,048 bits are left out, so that no token can choose a key that anybody could sign with.
Rule 2: a key has the algorithms of its type (and of its `alg`, if it says one); a token's header
chooses among these and never beyond. The set's address comes from the settings only: `jku` and
`x5u` of a token are not read.
Rule 3: the set is fetched over https, or from loopback; no redirects, 5 seconds, 1 MiB.
Rule 4: old keys serve while a fetch fails, for a day. An unknown key id leads to a fetch, at most
one in ten seconds, whoever asks; so strangers cannot make us call the issuer.
Read next: tokens.py (what is verified with these keys).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ..faults import TryLater

__all__ = ["ALGORITHMS", "KeySet", "check_source", "parse_jwks"]

log = logging.getLogger("weighbridge")

_OF_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC P-256": ("ES256",),
    "EC P-384": ("ES384",),
    "EC P-521": ("ES512",),
    "OKP Ed25519": ("EdDSA",),
}
ALGORITHMS: Final = tuple(name for names in _OF_TYPE.values() for name in names)
"""All are asymmetric: verifying needs nothing that could sign."""
_MIN_RSA_BITS = 2048
_MAX_KEYS = 100
_MAX_BYTES = 1 << 20
_TIMEOUT_S = 5.0
_FRESH_S = 300.0
_COOLDOWN_S = 10.0
_STALE_S = 24 * 3600.0
Keys = dict[tuple[str | None, str], PyJWK]


def check_source(where: str) -> None:
    """Refuse an address that keys should not come from.

    Raises:
        ValueError: says what may stand there.
    """
    if "://" not in where:
        return
    url = urlsplit(where)
    if url.username or url.password:
        raise ValueError("the address of the key set must not hold a password")
    local = url.scheme == "http" and _loopback(url.hostname or "")
    if not url.hostname or not (url.scheme == "https" or local):
        raise ValueError("the key set must come from https://, from http:// on loopback, or a file")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_jwks(data: bytes, allowed: frozenset[str]) -> Keys:
    """The usable keys of a JWK set, by key id and algorithm.

    Raises:
        ValueError: it is not a JWK set.
    """
    found = orjson.loads(data)
    listed = found.get("keys") if isinstance(found, dict) else None
    if listed is None or not isinstance(listed, list):
        raise ValueError("it is not a JWK set")
    keys: Keys = {}
    for item in listed[:_MAX_KEYS]:
        for name in _algorithms_of(item) & allowed:
            try:
                key = PyJWK.from_dict(item, name)
            except (PyJWTError, ValueError, TypeError, KeyError):
                continue  # a key of a kind that we do not know; the others may be used
            if getattr(key.key, "key_size", _MIN_RSA_BITS) >= _MIN_RSA_BITS or name[:2] == "ES":
                keys.setdefault((_text(item.get("kid")), name), key)
    return keys


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _algorithms_of(item: Any) -> frozenset[str]:
    """What a JWK may verify; nothing when it is not a public signature key."""
    if not isinstance(item, dict) or "d" in item or item.get("use", "sig") != "sig":
        return frozenset()
    operations = item.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return frozenset()
    kind = item.get("kty") if item.get("kty") == "RSA" else f"{item.get('kty')} {item.get('crv')}"
    names = frozenset(_OF_TYPE.get(str(kind), ()))
    return names & {item["alg"]} if isinstance(item.get("alg"), str) else names


class KeySet:
    """The keys of one issuer."""

    def __init__(
        self,
        where: str,
        algorithms: frozenset[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            where: URL or file.
            algorithms: the allowed ones; a subset of ALGORITHMS.
            clock: monotonic seconds.

        Raises:
            ValueError: see `check_source`.
        """
        check_source(where)
        self._where = where
        self._algorithms = algorithms
        self._clock = clock
        self._keys: Keys = {}
        self._raw = b""
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.version = 0

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key for a token's header; None when there is none.

        Raises:
            TryLater: no keys could be had yet, or for a day.
        """
        self.keep_fresh()
        key = self._choose(kid, algorithm) if self._held() else None
        if key is None:
            if self._fetching is not None or self._may_try():
                await self.refresh()
            if not self._held():
                raise TryLater("the keys of the token's issuer are not to be had; try again")
            key = self._choose(kid, algorithm)
        return key

    def keep_fresh(self) -> None:
        """Fetch in the background when the keys are five minutes old; costs nothing otherwise."""
        if self._fetched is not None and self._clock() - self._fetched < _FRESH_S:
            return
        if self._fetched is not None and self._fetching is None and self._may_try():
            self._start()

    async def refresh(self) -> None:
        """Fetch now, once for all who wait; a failure is logged and keeps the old keys."""
        await asyncio.shield(self._fetching or self._start())

    async def close(self) -> None:
        """Stop a fetch that runs."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _held(self) -> bool:
        return self._fetched is not None and self._clock() - self._fetched < _STALE_S

    def _may_try(self) -> bool:
        return self._tried is None or self._clock() - self._tried >= _COOLDOWN_S

    def _choose(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _start(self) -> asyncio.Task[None]:
        self._tried = self._clock()
        self._fetching = asyncio.create_task(self._fetch())
        self._fetching.add_done_callback(self._ended)
        return self._fetching

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            data = await self._load()
            if data != self._raw:
                keys = parse_jwks(data, self._algorithms)
                self._keys, self._raw = keys, data
                self.version += 1
                log.warning("token keys were read: %d can be used", len({k for k, _ in keys}))
        except (httpx.HTTPError, OSError, ValueError) as exc:
            # Who learns of it: the operator here, and callers whose key we lack by 401 or 503.
            log.error("could not read the token keys, the old ones stay: %s", type(exc).__name__)
        else:
            self._fetched = self._clock()

    async def _load(self) -> bytes:
        if "://" not in self._where:
            return await asyncio.to_thread(Path(self._where).read_bytes)
        async with asyncio.timeout(_TIMEOUT_S):  # in all, where httpx counts each read anew
            return await self._download()

    async def _download(self) -> bytes:
        # A proxy of the environment is for the world, not for this machine.
        outside = self._where.startswith("https:")
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=outside) as client,
            client.stream("GET", self._where, headers={"accept": "application/json"}) as reply,
        ):
            if reply.status_code != 200:
                raise ValueError(f"the issuer answered {reply.status_code}")
            data = b""
            async for chunk in reply.aiter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError("the key set is larger than 1 MiB")
            return data
