"""JSON Web Tokens of one issuer: verified, and the verdict remembered until the token expires.

Source: RFC 7519, RFC 8725 (best current practices): PyJWT verifies signature and claims; what may
be used at all is decided here and in jwks.py.
Rule 1: the algorithm is one of ours, all asymmetric; `none` and HMAC do not exist here.
Rule 2: `iss`, `aud`, `exp` and `sub` must be there and hold; `nbf` and `iat` hold where present; 30
seconds of leeway for clocks. A critical extension is refused.
Rule 3: roles come from one claim; a name that is no role of ours grants nothing.
Rule 4: a verdict is kept under the token's SHA-256, never the token itself, until the token expires
or the issuer's keys change; at most 4,096.
Rule 5: every failure is the same refusal; what was wrong with a token is the issuer's business.
Read next: guard.py.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import PyJWTError

from ..faults import Unauthenticated
from .jwks import KeySet
from .principal import Principal, known_roles

__all__ = ["REFUSED", "Expected", "Tokens", "roles_of"]

REFUSED = "the credential does not hold: it is unknown, expired or revoked"
_LEEWAY_S = 30
_REMEMBERED = 4096
_MAX_SUBJECT = 256
# What reading a stranger's bytes may end in, before any signature was checked.
_UNREADABLE = (PyJWTError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError)


class Expected(NamedTuple):
    """What a token must say."""

    issuer: str
    audience: str
    roles_claim: str
    algorithms: frozenset[str]


class _Verdict(NamedTuple):
    principal: Principal
    expires: float


class Tokens:
    """Verifies tokens."""

    def __init__(
        self,
        keys: KeySet,
        expected: Expected,
        *,
        now: Callable[[], float] = time.time,
        remembered: int = _REMEMBERED,
    ) -> None:
        """`now` is Unix seconds and decides how long a verdict is kept."""
        self.keys = keys
        self._expected = expected
        self._now = now
        self._remembered = remembered
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._version = keys.version

    def recall(self, text: str) -> Principal | None:
        """The principal of a token that was verified before; a few microseconds."""
        self.keys.keep_fresh()
        self._forget_if_rotated()
        name = hashlib.sha256(text.encode()).digest()
        verdict = self._verdicts.get(name)
        if verdict is None:
            return None
        if verdict.expires <= self._now():
            del self._verdicts[name]
            return None
        self._verdicts.move_to_end(name)
        return verdict.principal

    async def verify(self, text: str) -> Principal:
        """The principal of a token.

        Raises:
            Unauthenticated: it does not hold.
            TryLater: the issuer's keys are not to be had.
        """
        recalled = self.recall(text)
        if recalled is not None:
            return recalled
        try:
            header = jwt.get_unverified_header(text)
            kid, algorithm = header.get("kid"), header["alg"]
        except _UNREADABLE as exc:
            raise Unauthenticated(REFUSED) from exc
        if (
            not isinstance(algorithm, str)
            or algorithm not in self._expected.algorithms
            or "crit" in header
        ):
            raise Unauthenticated(REFUSED)
        key = await self.keys.find(kid, algorithm)
        if key is None:
            raise Unauthenticated(REFUSED)
        verdict = self._checked(text, key, algorithm)
        self._forget_if_rotated()
        self._remember(text, verdict)
        return verdict.principal

    def _checked(self, text: str, key: Any, algorithm: str) -> _Verdict:
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                issuer=self._expected.issuer,
                audience=self._expected.audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            subject, expires = claims["sub"], float(claims["exp"])
        except _UNREADABLE as exc:
            raise Unauthenticated(REFUSED) from exc
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            raise Unauthenticated(REFUSED)
        roles = known_roles(roles_of(claims, self._expected.roles_claim))
        return _Verdict(Principal(f"jwt:{subject}", roles), expires)

    def _forget_if_rotated(self) -> None:
        if self._version != self.keys.version:
            self._verdicts.clear()
            self._version = self.keys.version

    def _remember(self, text: str, verdict: _Verdict) -> None:
        self._verdicts[hashlib.sha256(text.encode()).digest()] = verdict
        if len(self._verdicts) > self._remembered:
            self._verdicts.popitem(last=False)

    @property
    def size(self) -> int:
        """How many verdicts are remembered."""
        return len(self._verdicts)


def roles_of(claims: Mapping[str, Any], name: str) -> list[object]:
    """The names in a roles claim: a list, or words as `scope` has them.

    Args:
        claims: of a verified token.
        name: a claim, or a path of claims with dots, e.g. `realm_access.roles`; a claim whose own
            name holds dots wins.
    """
    found: Any = claims
    for part in (name,) if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return list(found.split())
    return list(found) if isinstance(found, list) else []
