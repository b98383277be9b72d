"""One question for every door: may this call go on, and as whom?

Order: probes pass unasked; then the credential, then the role, then the rate. So a stranger learns
nothing about roles and costs nobody's rate.
Rule 1: fails closed: a mode without its means does not start, an error in here refuses the call.
Rule 2: with authentication off everybody is `anonymous` and shares one rate; an arm may then be
forced where WEIGHBRIDGE_ALLOW_FORCE says so, which dataplane.py checks.
Boundary: knows no protocol; gate.py and rpcgate.py ask and refuse in theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from ..faults import Fault, Forbidden, Unauthenticated, report
from .credential import Said
from .keybook import KeyBook
from .limits import RateLimits
from .needs import AUTHENTICATED, FORCE, Need
from .principal import ANONYMOUS, Principal
from .tokens import REFUSED, Tokens

__all__ = ["Guard"]

_KEY_PREFIX = "wb_"


def _uncounted(*, status: int, origin: str) -> None:
    pass


class Guard:
    """Authentication, authorisation and rates of one server."""

    def __init__(
        self,
        *,
        keys: KeyBook | None = None,
        tokens: Tokens | None = None,
        rates: RateLimits | None = None,
        refused: Callable[..., None] = _uncounted,
    ) -> None:
        """Without `keys` and `tokens` nobody is asked who they are.

        Args:
            keys: API keys, if they are accepted.
            tokens: JSON Web Tokens, if they are accepted.
            rates: how much each principal may ask.
            refused: told the status and origin of each refusal.
        """
        self._keys = keys
        self._tokens = tokens
        self._rates = RateLimits() if rates is None else rates
        self._refused = refused

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._keys is None and self._tokens is None

    async def admit(self, said: Said, need: Need, *, counted: bool = True) -> Principal:
        """Who calls, if the call may go on; `need` is not empty.

        Args:
            said: the call's credential.
            need: the roles of which one is needed.
            counted: whether the call counts towards the principal's rate.

        Raises:
            Unauthenticated: no credential, or one that does not hold.
            Forbidden: the principal lacks the role.
            RateLimited: it asked too much.
            TryLater: the token's issuer cannot be reached.
        """
        principal = ANONYMOUS if self.open else await self._authenticated(said)
        if not principal.roles & need:
            raise Forbidden(_lacking(need))
        if said.forced and not principal.roles & FORCE:
            raise Forbidden(f"x-weighbridge-arm: {_lacking(FORCE)}")
        if counted:
            self._rates.take(principal)
        return principal

    async def _authenticated(self, said: Said) -> Principal:
        text = said.credential
        if text is None:
            raise Unauthenticated("authenticate: send 'Authorization: Bearer CREDENTIAL'")
        if self._keys is not None and text.startswith(_KEY_PREFIX):
            principal = self._keys.principal(text)
            if principal is None:
                raise Unauthenticated(REFUSED)
            return principal
        if self._tokens is None:
            raise Unauthenticated(REFUSED)
        return await self._tokens.verify(text)

    def refuse(self, error: Exception, origin: str) -> Fault:
        """Count a refusal, and say what the caller may know of it."""
        fault = report(error)
        self._refused(status=fault.status, origin=origin)
        return fault

    async def close(self) -> None:
        """Stop fetching keys."""
        if self._tokens is not None:
            await self._tokens.keys.close()


def _lacking(need: Need) -> str:
    if need == AUTHENTICATED:
        return "this needs a role, and the credential has none"
    return f"this needs the role {' or '.join(sorted(need))}"
